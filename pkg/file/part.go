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
// is, and the next try writes it anew. It works on file systems that are not
// Linux's own, as that of a memory stick.
type Part struct {
	*os.File
	path string
}

// NewPart begins a file. It is an error if another process writes the same one.
func NewPart(path string, mode fs.FileMode) (*Part, error) {
	f, err := os.OpenFile(path+".part", os.O_RDWR|os.O_CREATE, mode)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is being written by another process; wait for it, or end it", f.Name())
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	return &Part{f, path}, nil
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
