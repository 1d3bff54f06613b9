package setup

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/inventory"
)

// installed is the inventory, while a run changes it.
type installed struct {
	path, copy string
	before     inventory.Inventory // as it was before this run
	now        inventory.Inventory
}

// open reads the inventory, and keeps a copy of what it is before this run, unless install.sh has.
func (i *installed) open(path, copy string) (err error) {
	i.path, i.copy = path, copy
	if i.now, err = inventory.Read(path); err != nil {
		return err
	}
	if _, err := os.Lstat(copy); errors.Is(err, fs.ErrNotExist) {
		err := os.Link(path, copy) // with its time; it is never written into
		if errors.Is(err, fs.ErrNotExist) {
			err = os.WriteFile(copy, nil, 0o600)
		}
		if err != nil {
			return err
		}
	}
	i.before, err = inventory.Read(copy)
	return err
}

// add adds paths, on the disk, before they are made.
func (i *installed) add(paths []string) error {
	var missing []string
	for _, path := range paths {
		if !i.now.Has(path) && !slices.Contains(missing, path) {
			missing = append(missing, path)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	all := append(slices.Clone(i.now), missing...)
	if err := writeNew(i.path, all.Text(), 0o600); err != nil {
		return err
	}
	i.now = all
	return replace(i.path+newSuffix, i.path)
}

// obsolete is what an earlier run has made and this one does not want, what is in a directory before it.
func (i *installed) obsolete(wanted []string) []string {
	all := slices.DeleteFunc(slices.Clone(i.now), func(path string) bool { return slices.Contains(wanted, path) })
	slices.Sort(all)
	slices.Reverse(all)
	return all
}

// settle replaces the inventory with the prepared one, unless both are the same.
func (i *installed) settle(prepared string, wanted []string) error {
	if slices.Equal(i.now, wanted) {
		return nil
	}
	i.now = wanted
	return replace(prepared, i.path)
}

// restore makes it what it was.
func (i *installed) restore() error {
	was, err := os.ReadFile(i.copy)
	if err != nil {
		return err // it was not opened
	}
	if is, err := os.ReadFile(i.path); err == nil && bytes.Equal(is, was) {
		return nil
	}
	return os.Rename(i.copy, i.path)
}

// close removes an empty inventory.
func (i *installed) close() error {
	if i.path == "" {
		return nil
	}
	err := os.Remove(i.path + newSuffix)
	if info, errStat := os.Stat(i.path); errStat == nil && info.Size() == 0 {
		err = errors.Join(err, os.Remove(i.path))
	}
	return err
}

// newSuffix is the suffix of a file until it replaces an older one.
const newSuffix = ".new"

// writeNew writes the new content of a path beside it, and syncs it. An existing file of that name, which may be a
// link, is replaced, not written to.
func writeNew(path string, data []byte, mode fs.FileMode) error {
	path += newSuffix
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// replace renames a synced file, so that after a power cut one of the two exists.
func replace(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return file.SyncDir(filepath.Dir(to))
}

// ignoreMissing leaves out of an error that something is not there.
func ignoreMissing(err error) error {
	var joined interface{ Unwrap() []error }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &joined):
		var rest []error
		for _, e := range joined.Unwrap() {
			rest = append(rest, ignoreMissing(e))
		}
		return errors.Join(rest...)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil
	}
	return err
}
