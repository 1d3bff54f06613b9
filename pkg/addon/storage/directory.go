package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
)

// directory is the one that the volumes of a node lie in. Pods write below it
// what they like, so nothing here follows a symbolic link or leaves it.
type directory string

// ensure makes the directory if there is none, for root alone: what pods see of
// it is mounted for them. One that exists keeps its mode.
func (d directory) ensure() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("create the directory of volumes: %w", err)
	}
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Access(string(d), unix.W_OK); err != nil {
		return fmt.Errorf("write to the directory of volumes %s: %w", d, err)
	}
	above, err := os.Open(filepath.Dir(string(d)))
	if err != nil {
		return err
	}
	defer above.Close()
	return above.Sync() // it may be new, and must outlive a power cut
}

// open is os.OpenRoot, but not through a link: who changes where that leads
// would change which data is removed.
func (d directory) open() (*os.Root, error) {
	info, err := os.Lstat(string(d))
	if err != nil {
		return nil, fmt.Errorf("open the directory of volumes: %w", err)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil, fmt.Errorf("the directory of volumes %s is a symbolic link; set default-local-storage-path to its target", d)
	}
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, fmt.Errorf("open the directory of volumes: %w", err)
	}
	return same(root, info)
}

// same closes dir unless it is the directory of info.
func same(dir *os.Root, info fs.FileInfo) (*os.Root, error) {
	is, err := dir.Stat(".")
	if err == nil && !os.SameFile(is, info) {
		err = fmt.Errorf("%s was replaced while it was opened", dir.Name())
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// make makes the directory of a volume, so that it outlives a power cut, with
// the mode that everybody may write to: which user a pod has is not known.
func (d directory) make(name string) error {
	if err := d.ensure(); err != nil {
		return err
	}
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create the volume's directory: %w", err)
	}
	if info, err := root.Lstat(name); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s already exists and is not a directory; remove it", filepath.Join(string(d), name))
	}
	if err := root.Chmod(name, 0o777); err != nil { // mkdir is subject to the umask
		return err
	}
	self, err := root.Open(".")
	if err != nil {
		return err
	}
	defer self.Close()
	return self.Sync()
}

// remove deletes the entry name, with all that is below a directory; of a link only itself.
// It stops when ctx is done; calling it again continues. It removes nothing if something is
// mounted there.
func (d directory) remove(ctx context.Context, name string) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		if err := d.unmounted(name); err != nil {
			return err
		}
	}
	err = file.Remove(ctx, root, name, func(where string, err error) error {
		return fmt.Errorf("%s: %w", filepath.Join(string(d), where), err)
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("remove the data of a volume: %w", err)
	}
	return err
}

// unmounted is an error if something is mounted on or below the entry.
func (d directory) unmounted(name string) error {
	real, err := filepath.EvalSymlinks(string(d)) // what is above d may be a link
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(real, name)))
	if err != nil {
		return fmt.Errorf("find mounts below %s: %w", name, err)
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is mounted in the volume; unmount it: lite does not remove files behind a mount", mounts[0].Mountpoint)
	}
	return nil
}

// free is how many bytes the file system of the directory has, and how many are
// free for those who are not root.
func (d directory) free() (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(string(d), &s); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", d, err)
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
