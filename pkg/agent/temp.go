package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
)

// MakeTemp makes the directory where a node, and what it starts, has temporary files: mostly
// mounts of images that are looked into. The machine's directory may be full, not there or not to
// be written, and who watches it may remove what is in use. What one who was killed has left there
// is removed. What cannot be removed stays: it is in nobody's way.
func MakeTemp(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), file.Passable); err != nil {
		return fmt.Errorf("create the directory for temporary files: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create the directory for temporary files: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("restrict the directory for temporary files: %w", err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", dir, err)
	}
	for _, m := range slices.Backward(mounts) {
		if m.Mountpoint != dir {
			_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	return empty(dir)
}

func empty(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the directory for temporary files: %w", err)
	}
	defer root.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the directory for temporary files: %w", err)
	}
	for _, e := range entries {
		if err := file.Remove(context.Background(), root, e.Name(), func(string, error) error { return nil }); err != nil {
			return fmt.Errorf("empty the directory for temporary files: %w", err)
		}
	}
	return nil
}
