package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Part is a large file that a person has asked for. Until it is whole it is beside
// its place, with the suffix .part: who finds that after a power cut knows what it
// is, and the next try writes it again. It works on file systems that are not
// Linux's own, as that of a memory stick.
type Part struct {
	*os.File
	path string
}

// NewPart begins a file. It is an error if another process writes the same one, and
// if in its place there is something else than a file: root could replace /dev/null,
// or the link /dev/stdout.
func NewPart(path string, mode fs.FileMode) (*Part, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s exists and is not a file; choose another name", path)
	}
	f, err := openPart(path+".part", mode)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process is writing %s; wait for it, or stop it", f.Name())
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	return &Part{f, path}, nil
}

// openPart makes the file, or takes what an earlier try has left. What somebody else
// has put there it does not take: the directory may be one in which everybody
// writes, such as /tmp.
func openPart(name string, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if !errors.Is(err, fs.ErrExist) {
		return f, err // on a memory stick it may be a user's, whoever makes it
	}
	if f, err = os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, mode); err != nil {
		return nil, fmt.Errorf("%w; remove it", err)
	}
	var is unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &is); err != nil || int(is.Uid) != os.Geteuid() {
		f.Close()
		return nil, fmt.Errorf("%s belongs to somebody else, who could read what lite writes; remove it", name)
	}
	return f, nil
}

// Finish puts the file in its place, in that of an older one as well. It is on the
// disk by then.
func (p *Part) Finish() error {
	if err := p.Sync(); err != nil {
		return err
	}
	if err := os.Rename(p.Name(), p.path); err != nil {
		return err
	}
	path := p.path
	p.path = ""
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, unix.EINVAL) { // not every file system can
		err = nil
	}
	return errors.Join(err, dir.Close(), p.Close())
}

// Discard removes the file, unless it is finished.
func (p *Part) Discard() {
	if p.path != "" {
		_ = os.Remove(p.Name())
		p.path = ""
		p.Close()
	}
}
