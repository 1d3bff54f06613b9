package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
)

// settled is how long a file must not have been written to, so that a copy made while lite
// runs is valid later if size and time are still the same: times are no finer than a tick
// of the kernel.
const settled = time.Minute

// when is what a copy is made for.
type when int

const (
	// early is while lite runs, so that less is left for when it is stopped: it copies only
	// files that nobody has written to for a while.
	early when = iota
	late
	// back is for restoring the original.
	back
)

// copyTree makes to the same as from: directories, files and links, with their owners,
// modes and times. A copy from an earlier call stays if it still has the size and the time
// of its original; what is only in to is removed, unless something is mounted there. Users'
// mounts are left alone on both sides.
func copyTree(from, to string, w when) error {
	began := time.Now()
	theirs, err := usersMounts(from)
	if err != nil {
		return err
	}
	stays, err := usersMounts(to)
	if err != nil {
		return err
	}
	err = filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		gone := func(err error) bool { return w == early && errors.Is(err, fs.ErrNotExist) }
		if err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if stays(rel) {
			return skip(entry)
		}
		if err == nil && !(w == early && info.Mode().IsRegular() && began.Sub(info.ModTime()) < settled) {
			err = copyEntry(path, filepath.Join(to, rel), info)
		}
		if gone(err) {
			return nil
		}
		if w == back && isUsers(rel) {
			err = leave(filepath.Join(to, rel), err)
		}
		if err == nil && theirs(rel) {
			return skip(entry)
		}
		return err
	})
	if err != nil {
		return err
	}
	return prune(from, to)
}

// isUsers reports whether something in a server's directory is the user's, and so may be
// read-only. All else must be restored: the old program on the data of the new one would be
// worse than none.
func isUsers(rel string) bool { return strings.HasPrefix(rel+"/", "manifests/") }

// usersMounts finds mounts of the user's in a directory, such as a checkout of manifests.
// They are neither backed up nor restored, since they are not lite's to change.
func usersMounts(dir string) (func(rel string) bool, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return func(string) bool { return false }, nil
	}
	if err != nil {
		return nil, err
	}
	mounts, err := mountsIn(real)
	return func(rel string) bool { return isUsers(rel) && slices.Contains(mounts, filepath.Join(real, rel)) }, err
}

// skip skips an entry of a walk.
func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// copyEntry makes one file, link or directory (without its content) like another. An
// existing one that is alike stays.
func copyEntry(from, to string, info fs.FileInfo) error {
	have, err := os.Lstat(to)
	if err == nil && have.Mode().Type() != info.Mode().Type() {
		if err := remove(to); err != nil {
			return err
		}
		have = nil
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return giveOwner(to, info)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if is, err := os.Readlink(to); err == nil && is == target {
			return giveOwner(to, info)
		}
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
		return giveOwner(to, info)
	case 0:
		if err == nil && have != nil && have.Size() == info.Size() && have.ModTime().Equal(info.ModTime()) {
			return giveOwner(to, info)
		}
		return copyFile(from, to, info)
	}
	return nil // a socket or a pipe has no content
}

// modeBits is what chmod sets.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// giveOwner gives a file the owner, group and mode of another, where they differ.
func giveOwner(path string, like fs.FileInfo) error {
	have, err := os.Lstat(path)
	if err != nil {
		return err
	}
	is, ok := have.Sys().(*syscall.Stat_t)
	want, okWant := like.Sys().(*syscall.Stat_t)
	if ok && okWant && (is.Uid != want.Uid || is.Gid != want.Gid) {
		if err := os.Lchown(path, int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
		if have, err = os.Lstat(path); err != nil { // that may change the mode
			return err
		}
	}
	if mode := like.Mode() & modeBits; like.Mode().Type() != fs.ModeSymlink && have.Mode()&modeBits != mode {
		return os.Chmod(path, mode)
	}
	return nil
}

// alike reports whether two files or links are the same to a user. One that does not exist
// is not like any other.
func alike(a, b string) (bool, error) {
	is, err := os.Lstat(a)
	if err != nil {
		return false, err
	}
	other, err := os.Lstat(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sa, ok := is.Sys().(*syscall.Stat_t)
	sb, okOther := other.Sys().(*syscall.Stat_t)
	if is.Mode() != other.Mode() || ok && okOther && (sa.Uid != sb.Uid || sa.Gid != sb.Gid) {
		return false, nil
	}
	read := os.ReadFile
	if is.Mode().Type() == fs.ModeSymlink {
		read = func(path string) ([]byte, error) {
			target, err := os.Readlink(path)
			return []byte(target), err
		}
	}
	da, err := read(a)
	if err != nil {
		return false, err
	}
	db, err := read(b)
	return bytes.Equal(da, db), err
}

// mountsIn is what is mounted at a path and below, by real paths.
func mountsIn(path string) ([]string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var mounts []string
	for _, m := range found {
		mounts = append(mounts, m.Mountpoint)
	}
	return mounts, nil
}

// remove removes a tree, unless something is mounted in it, which is not ours.
func remove(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		mounts, err := mountsIn(path)
		if err != nil {
			return err
		}
		if len(mounts) > 0 {
			return fmt.Errorf("remove %s: %s is mounted there; unmount it", path, mounts[0])
		}
	}
	return os.RemoveAll(path)
}

// prune removes what a copy has and the original does not have. What was mounted there
// since stays, with the directories that lead to it.
func prune(from, to string) error {
	real, err := filepath.EvalSymlinks(to)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	mounts, err := mountsIn(real)
	if err != nil {
		return err
	}
	return filepath.WalkDir(real, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(real, path)
		if err != nil || rel == "." {
			return err
		}
		if isUsers(rel) && slices.Contains(mounts, path) {
			return skip(entry)
		}
		if _, err := os.Lstat(filepath.Join(from, rel)); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		below := func(m string) bool { return strings.HasPrefix(m, path+"/") }
		switch {
		case slices.Contains(mounts, path):
			return skip(entry)
		case slices.ContainsFunc(mounts, below):
			return nil
		}
		err = os.RemoveAll(path)
		if isUsers(rel) {
			err = leave(path, err)
		}
		if err != nil {
			return err
		}
		return skip(entry)
	})
}

// copyFile copies and syncs a file. If the file system supports it, both share their blocks
// until one is changed. Holes stay holes: etcd preallocates 64 MiB for each file of its
// log.
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
	if err := giveOwner(to, info); err != nil {
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
			data = at // a file system without holes
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

// linkOrCopy links a file that nobody changes, or copies it to another file system. It
// replaces an existing file, and returns when the result is on disk.
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

// syncTree syncs the directories of a tree; copyFile has synced the files.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return file.SyncDir(path)
	})
}

// SizeOf is how much room a copy of a tree takes, in bytes; 0 if it does not exist.
func SizeOf(path string) (total int64) {
	theirs, err := usersMounts(path)
	if err != nil {
		theirs = func(string) bool { return false }
	}
	_ = filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if rel, err := filepath.Rel(path, at); err == nil && theirs(rel) {
			return skip(entry)
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
