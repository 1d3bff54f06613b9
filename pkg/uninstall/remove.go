package uninstall

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
)

// maxDepth is how many directories are open at once. A pod can nest them without
// end.
const maxDepth = 64

// remove deletes what is called path, and all below it if it is a directory. It
// follows no link and enters no mount: of a link it removes the link, and what
// is mounted stays with the directories that lead to it.
func (w *work) remove(path string) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		w.Fail(err)
		return
	}
	defer dir.Close()
	r := &removal{work: w, top: dir, path: filepath.Dir(path)}
	if r.mount, err = file.MountOf(dir); err != nil {
		w.Fail(err)
		return
	}
	r.entry(dir, nil, filepath.Base(path))
	if r.failures > maxFailures {
		w.Fail(fmt.Errorf("%d more files below %s could not be removed", r.failures-maxFailures, path))
	}
}

// maxFailures is how many files are named that cannot be removed.
const maxFailures = 3

type removal struct {
	*work
	top      *os.Root
	path     string
	mount    uint64
	failures int
}

func (r *removal) fail(err error) {
	if r.failures++; r.failures <= maxFailures {
		r.Fail(err)
	}
}

// entry removes what is called name in dir, which is at the given place below
// the top, and reports whether it is gone.
func (r *removal) entry(dir *os.Root, place []string, name string) bool {
	err := dir.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return true
	}
	place = append(place[:len(place):len(place)], name)
	where := filepath.Join(r.path, path.Join(place...))
	info, lerr := dir.Lstat(name)
	if errors.Is(err, unix.EBUSY) && lerr == nil {
		r.Leave("%s: something of others is mounted there", where)
		return false
	}
	if lerr != nil || !info.IsDir() || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		r.fail(err)
		return false
	}
	if len(place) > maxDepth {
		if err := r.top.Rename(path.Join(place...), path.Join(place[0], ".lite-removing-"+rand.Text())); err != nil {
			r.fail(err)
		}
		return true // it comes up again further up
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		r.fail(err)
		return false
	}
	defer sub.Close()
	if is, err := sub.Stat("."); err != nil || !os.SameFile(is, info) {
		r.fail(fmt.Errorf("%s was replaced while it was removed", where))
		return false
	}
	mount, err := file.MountOf(sub)
	if err != nil {
		r.fail(err)
		return false
	}
	if mount != r.mount {
		r.Leave("%s: something of others is mounted there", where)
		return false
	}
	if !r.empty(sub, place) {
		return false
	}
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.fail(err)
		return false
	}
	return true
}

// empty removes all in dir, and reports whether it is empty then.
func (r *removal) empty(dir *os.Root, place []string) bool {
	stay := map[string]bool{}
	for {
		f, err := dir.Open(".")
		if err != nil {
			r.fail(err)
			return false
		}
		all, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			r.fail(err)
			return false
		}
		tried := false
		for _, name := range all {
			if stay[name] {
				continue
			}
			tried = true
			if !r.entry(dir, place, name) {
				stay[name] = true
			}
		}
		if !tried {
			return len(stay) == 0
		}
	}
}
