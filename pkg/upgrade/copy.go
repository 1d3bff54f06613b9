package upgrade

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
)

// settled is how long a file must not have been written to for a copy of it that
// is made while lite runs to be taken for good later, when its size and time are
// still the same: times are no finer than a tick of the kernel.
const settled = time.Minute

// copyTree makes to what from is: directories, files and links, with their modes
// and times. A copy that an earlier call has made and that still has the size
// and the time of its original stays; what is in to and not in from goes.
//
// With early only such files are copied that nobody has written to for a while:
// it is called while lite runs, so that less is left to do while it does not.
func copyTree(from, to string, early bool) error {
	began := time.Now()
	wanted := map[string]bool{}
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if early && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		wanted[rel] = true
		info, err := entry.Info()
		if early && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		err = copyEntry(path, filepath.Join(to, rel), info, early && began.Sub(info.ModTime()) < settled)
		if early && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return prune(to, wanted)
}

func copyEntry(from, to string, info fs.FileInfo, skip bool) error {
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := os.Mkdir(to, info.Mode().Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Chmod(to, info.Mode().Perm())
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(target, to)
	case 0:
		if have, err := os.Lstat(to); skip || err == nil && have.Size() == info.Size() && have.ModTime().Equal(info.ModTime()) {
			return nil
		}
		return copyFile(from, to, info)
	}
	return nil // a socket or a pipe has no content
}

// prune removes what a tree has too much.
func prune(dir string, wanted map[string]bool) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || wanted[rel] {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if entry.IsDir() {
			return filepath.SkipDir
		}
		return nil
	})
}

// copyFile copies a file and puts the copy on the disk. Where the file system
// can, both share their blocks until one is changed. Holes stay holes: etcd sets
// aside 64 MiB for each file of its log.
func copyFile(from, to string, info fs.FileInfo) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, target.Close())
		if err == nil {
			err = os.Chtimes(to, time.Time{}, info.ModTime())
		}
	}()
	if unix.IoctlFileClone(int(target.Fd()), int(source.Fd())) != nil {
		if err := copyData(source, target); err != nil {
			return fmt.Errorf("copy %s to %s: %w", from, to, err)
		}
	}
	if err := target.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return target.Sync()
}

// copyData copies what is not a hole.
func copyData(source, target *os.File) error {
	info, err := source.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	for at := int64(0); at < end; {
		data, err := unix.Seek(int(source.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		hole := end
		if err != nil {
			data = at // a file system that knows no holes
		} else if hole, err = unix.Seek(int(source.Fd()), data, unix.SEEK_HOLE); err != nil {
			hole = end
		}
		hole = min(hole, end)
		if _, err := source.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := target.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if n, err := io.CopyN(target, source, hole-data); err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("it ends at byte %d of %d", data+n, end)
			}
			return err
		}
		at = hole
	}
	return target.Truncate(end)
}

// linkOrCopy gives a file that nobody changes a second name, or makes a copy
// where that is on another file system. It replaces what is there, on the disk
// when it returns.
func linkOrCopy(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if os.Link(from, to) != nil {
		info, err := os.Stat(from)
		if err != nil {
			return err
		}
		if err := copyFile(from, to, info); err != nil {
			return err
		}
	}
	return file.SyncDir(filepath.Dir(to))
}

// syncTree puts the names of a tree on the disk; copyFile has done so with the
// contents.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return file.SyncDir(path)
	})
}

// sizeOf is how much room a tree takes, in bytes; what is not there takes none.
func sizeOf(path string) (total int64) {
	_ = filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				total += stat.Blocks * 512
			} else {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
