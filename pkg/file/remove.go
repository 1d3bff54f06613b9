package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// ErrMounted is that something is mounted where something is to be removed.
var ErrMounted = errors.New("something is mounted there; unmount it")

// Remove removes what is called name in dir, and all below it if it is a directory. It
// follows no link and enters no mount: of a link it removes the link, and what is
// mounted stays with the directories that lead to it. What cannot be removed is told to
// stays, by its path in dir: if that returns an error, that is the end, otherwise the
// rest is removed. It also ends when ctx is done; calling it again goes on.
func Remove(ctx context.Context, dir *os.Root, name string, stays func(where string, err error) error) error {
	r := &removal{ctx: ctx, top: dir, stays: stays}
	var err error
	if r.mount, err = MountOf(dir); err != nil {
		return err
	}
	_, err = r.entry(dir, nil, name)
	return err
}

type removal struct {
	ctx   context.Context
	top   *os.Root
	mount uint64
	stays func(where string, err error) error
}

const (
	// maxDepth is how many directories are open at once. A pod can nest them
	// without end.
	maxDepth = 64
	// batch is how many names are read at once.
	batch = 512
)

// entry removes what is called name in dir, which is at the given place below the top,
// and reports whether it is gone.
func (r *removal) entry(dir *os.Root, place []string, name string) (gone bool, err error) {
	place = append(place[:len(place):len(place)], name)
	where := path.Join(place...)
	err = dir.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if errors.Is(err, unix.EBUSY) { // checking it could take forever
		return false, r.stays(where, ErrMounted)
	}
	info, lerr := dir.Lstat(name)
	if lerr != nil || !info.IsDir() || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return false, r.stays(where, err)
	}
	if len(place) > maxDepth {
		// It comes up again further up.
		if err := r.top.Rename(where, path.Join(place[0], layout.TemporaryPrefix+"removing-"+rand.Text())); err != nil {
			return false, r.stays(where, err)
		}
		return true, nil
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return false, r.stays(where, err)
	}
	defer sub.Close()
	if is, err := sub.Stat("."); err != nil || !os.SameFile(is, info) {
		return false, r.stays(where, fmt.Errorf("%s was replaced while it was removed", where))
	}
	if mount, err := MountOf(sub); err != nil {
		return false, r.stays(where, err)
	} else if mount != r.mount {
		return false, r.stays(where, ErrMounted)
	}
	if empty, err := r.empty(sub, place); err != nil || !empty {
		return false, err
	}
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, r.stays(where, err)
	}
	return true, nil
}

// empty removes all in dir, and reports whether it is empty then. What a directory
// lists while it changes is not defined, so it is listed until there is nothing new.
func (r *removal) empty(dir *os.Root, place []string) (empty bool, err error) {
	stay := map[string]bool{}
	for tried := true; tried; {
		if tried, err = r.sweep(dir, place, stay); err != nil {
			return false, err
		}
	}
	return len(stay) == 0, nil
}

// sweep removes what dir lists, and notes what stays. It reports whether there was
// anything else.
func (r *removal) sweep(dir *os.Root, place []string, stay map[string]bool) (tried bool, err error) {
	f, err := dir.Open(".")
	if err != nil {
		return false, r.stays(path.Join(place...), err)
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			if stay[name] {
				continue
			}
			tried = true
			if r.ctx.Err() != nil {
				return false, r.ctx.Err()
			}
			gone, err := r.entry(dir, place, name)
			if err != nil {
				return false, err
			}
			if !gone {
				stay[name] = true
			}
		}
		if errors.Is(err, io.EOF) {
			return tried, nil
		}
		if err != nil {
			return false, r.stays(path.Join(place...), err)
		}
	}
}
