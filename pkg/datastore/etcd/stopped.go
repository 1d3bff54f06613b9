package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CountMembers is how many members the cluster of a member has, as its database says. The member must not run.
func CountMembers(dir string) (n int, err error) {
	all, err := lastMembers(databaseFile(dir))
	return len(all), err
}

// SetAside moves away what a stopped member has, so that it gets the data of the others when it starts, under another
// identity: one that came back with older data would deny what it has acknowledged. It may be repeated.
func SetAside(dir, to string) error {
	from := memberDir(dir)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := moveTo(from, to)
	// On a file system of its own, they stay on that.
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
		err = moveTo(from, filepath.Join(dir, "dropped"))
	}
	if err != nil {
		return fmt.Errorf("set the data of this member aside: %w", err)
	}
	return nil
}

func moveTo(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}
