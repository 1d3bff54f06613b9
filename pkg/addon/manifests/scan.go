package manifests

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	files "lite.io/lite/pkg/file"
)

const (
	maxFile  = 16 << 20 // bytes of a file; a cluster's objects are a tenth of that
	maxLinks = 40       // as the kernel has it
	// maxDirectories bounds what one entry of the directory may have below it. A
	// link may lead to /, or to /proc, which has no end.
	maxDirectories = 1000
	// longestPause is how long a program that has a file open may write nothing before the
	// file counts as complete. On NFS and CIFS, which refuse leases in the same way, every
	// file waits as long.
	longestPause = time.Minute
)

// suffixes are the names of files that are applied.
var suffixes = []string{".yaml", ".yml", ".json"}

// skip is the suffix of a file that makes lite ignore the file of the same name without it.
const skip = ".skip"

// scan is what one scan of the directory has found. Paths are relative to it.
type scan struct {
	root    string
	files   map[string]found
	skipped map[string]bool  // files and directories to leave alone
	failed  map[string]error // files and directories that cannot be read
	walked  int              // directories of the entry at the top that is being read

	watcher   *fsnotify.Watcher // of all directories that the files depend on; nil if there is none
	unwatched error             // why not all of them are watched
}

// found is a file as it was found.
type found struct {
	path  string // with links resolved
	stamp files.Stamp
}

// scanDirectory reads the directory, and creates it if it does not exist. Each scan has a
// watcher of its own, and a directory is watched before it is read, so that no change is
// lost between two scans, whatever is moved, replaced or mounted.
func scanDirectory(dir string) (*scan, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the directory: %w", err)
	}
	above, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	s := &scan{root: above, files: map[string]found{}, skipped: map[string]bool{}, failed: map[string]error{}}
	if s.watcher, err = fsnotify.NewWatcher(); err != nil {
		s.unwatched = fmt.Errorf("%w; raise fs.inotify.max_user_instances", err)
	}
	// The directory may itself be a link.
	if s.root, err = s.follow(above, filepath.Base(dir)); err != nil {
		return s, err
	}
	s.walk(s.root, "", nil)
	if err := s.failed[""]; err != nil {
		return s, err
	}
	return s, nil
}

// close ends the watch.
func (s *scan) close() {
	if s != nil && s.watcher != nil {
		_ = s.watcher.Close()
	}
}

// watch watches one directory. A watch that cannot be had is no reason not to
// read it.
func (s *scan) watch(dir string) {
	if s.watcher == nil {
		return
	}
	if err := s.watcher.Add(dir); errors.Is(err, unix.ENOSPC) {
		s.unwatched = fmt.Errorf("watch %s: the limit of watches is reached; raise fs.inotify.max_user_watches", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.unwatched = fmt.Errorf("watch %s: %w", dir, err)
	}
}

// walk reads the directory at dir, whose links are resolved, and all below. above are the
// directories on the way there.
func (s *scan) walk(dir, name string, above []os.FileInfo) {
	s.watch(dir)
	info, err := os.Stat(dir)
	if err == nil {
		err = s.trustDirectory(dir, info)
	}
	if err == nil && slices.ContainsFunc(above, func(a os.FileInfo) bool { return os.SameFile(a, info) }) {
		err = errors.New("links to a directory above itself")
	}
	var entries []os.DirEntry
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	if err != nil {
		s.failed[name] = err
		return
	}
	for _, e := range entries {
		blind := s.unwatched
		if name == "" {
			s.walked = 0
		}
		if s.walked <= maxDirectories {
			s.visit(dir, path.Join(name, e.Name()), e, append(slices.Clip(above), info))
		}
		if name == "" && s.walked > maxDirectories {
			s.refuse(e.Name(), fmt.Errorf("has more than %d directories: link only to directories with manifests", maxDirectories))
			s.unwatched = blind
		}
	}
}

// refuse makes a directory at the top one that cannot be read.
func (s *scan) refuse(top string, why error) {
	below := func(name string) bool { return strings.HasPrefix(name, top+"/") }
	maps.DeleteFunc(s.files, func(name string, _ found) bool { return below(name) })
	maps.DeleteFunc(s.skipped, func(name string, _ bool) bool { return below(name) })
	maps.DeleteFunc(s.failed, func(name string, _ error) bool { return below(name) })
	s.failed[top] = why
}

// visit handles one entry of the directory dir.
func (s *scan) visit(dir, name string, e os.DirEntry, above []os.FileInfo) {
	if strings.HasPrefix(e.Name(), ".") {
		return
	}
	if without, ok := strings.CutSuffix(name, skip); ok {
		s.skipped[without] = true
		return
	}
	isFile := slices.Contains(suffixes, path.Ext(name))
	if !isFile && e.Type().IsRegular() {
		return
	}
	target := filepath.Join(dir, e.Name())
	if e.Type()&fs.ModeSymlink != 0 {
		resolved, err := s.follow(dir, e.Name())
		if err != nil {
			s.failed[name] = err
			return
		}
		target = resolved
	}
	info, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Gone since the directory was read; there is an event for that.
	case err != nil:
		s.failed[name] = err
	case !utf8.ValidString(name):
		s.failed[strings.ToValidUTF8(name, "?")] = errors.New("its name is not UTF-8: rename it")
	case info.IsDir():
		s.walked++
		s.walk(target, name, above)
	case isFile && !info.Mode().IsRegular():
		s.failed[name] = errors.New("not a regular file")
	case isFile:
		s.files[name] = found{target, files.StampOf(info)}
	}
}

// follow resolves a link in dir, step by step. Each directory on the way is watched, so
// that a replaced link is noticed, and must be trustworthy, as must each link.
func (s *scan) follow(dir, name string) (string, error) {
	at, rest, links := dir, []string{name}, 0
	for len(rest) > 0 {
		step := rest[0]
		rest = rest[1:]
		if step == "" || step == "." {
			continue
		}
		if step == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, step)
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			s.watch(at) // it may appear
			return "", fmt.Errorf("links to %s, which does not exist", filepath.Join(append([]string{next}, rest...)...))
		}
		if err != nil {
			return "", err
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", errors.New("too many links")
			}
			if err := trustOwner(next, info); err != nil {
				return "", err
			}
			s.watch(at)
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case info.IsDir():
			if err := s.trustDirectory(next, info); err != nil {
				return "", err
			}
			at = next
		default:
			s.watch(at)
			at = next
		}
	}
	return at, nil
}

// trustDirectory requires that only root can put files into a directory. The mode of
// directories that are not reached by a link does not matter, since nobody else can enter
// the data directory.
func (s *scan) trustDirectory(dir string, info os.FileInfo) error {
	if err := trustOwner(dir, info); err != nil {
		return err
	}
	inside := dir == s.root || strings.HasPrefix(dir, s.root+"/")
	if !inside && info.Mode()&fs.ModeSticky == 0 {
		return trustMode(dir, info)
	}
	return nil
}

func trustOwner(name string, info os.FileInfo) error {
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, who could do anything in the cluster with it: run chown root", name, owner)
	}
	return nil
}

func trustMode(name string, info os.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is writable by others than root (mode %04o), who could do anything in the cluster with it: run chmod go-w", name, info.Mode().Perm())
	}
	return nil
}

// errBusy means that a program has the file open for writing.
var errBusy = errors.New("is being written")

// read returns the content of a file, and what it was when it was read.
func (f found) read() ([]byte, files.Stamp, error) {
	// A pipe that has replaced the file must not block.
	opened, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, files.Stamp{}, err
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return nil, files.Stamp{}, err
	}
	is := files.StampOf(info)
	switch {
	case !info.Mode().IsRegular():
		return nil, is, errors.New("not a regular file")
	case info.Size() > maxFile:
		return nil, is, fmt.Errorf("has %d MiB, and may have %d: split it", info.Size()>>20, maxFile>>20)
	}
	if err := errors.Join(trustOwner(f.path, info), trustMode(f.path, info)); err != nil {
		return nil, is, err
	}
	if time.Since(info.ModTime()) < longestPause && beingWritten(opened) {
		return nil, is, errBusy
	}
	data, err := io.ReadAll(opened)
	return data, is, err
}

// beingWritten asks the kernel for a lease on the file, which it grants only while nobody
// has the file open for writing. Half of a file may be valid, and the objects of the other
// half would be deleted.
func beingWritten(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var busy bool
	_ = raw.Control(func(fd uintptr) {
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
		if busy = errors.Is(err, unix.EAGAIN); err == nil {
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
		}
	})
	return busy
}
