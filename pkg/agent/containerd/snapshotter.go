package containerd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The snapshotters, best first.
const (
	overlayfs     = "overlayfs"
	fuseOverlayfs = "fuse-overlayfs"
	native        = "native"
)

// probe finds the best snapshotter that works in dir by trying, not by asking
// for the file system's name: whether layers can be stacked depends on the
// file system (not on ZFS before 2.2 or on NFS), the kernel and where we run.
// The reason is why it is not overlayfs.
func probe(dir string) (snapshotter string, reason error) {
	overlayErr := TryOverlay(dir)
	if overlayErr == nil {
		return overlayfs, nil
	}
	_, fuseErr := exec.LookPath("fuse-overlayfs")
	if fuseErr == nil {
		if _, fuseErr = os.Stat("/dev/fuse"); fuseErr == nil {
			return fuseOverlayfs, overlayErr
		}
	}
	return native, errors.Join(overlayErr, fuseErr)
}

// TryOverlay mounts two layers in dir and reads a file of the lower one through
// both. It leaves nothing behind.
func TryOverlay(dir string) error {
	tmp, err := os.MkdirTemp(dir, ".overlay-probe-")
	if err != nil {
		return fmt.Errorf("try overlayfs: %w", err)
	}
	defer os.RemoveAll(tmp)

	path := func(name string) string { return filepath.Join(tmp, name) }
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(path(name), 0o700); err != nil {
			return fmt.Errorf("try overlayfs: %w", err)
		}
	}
	if err := os.WriteFile(path("lower/file"), nil, 0o600); err != nil {
		return fmt.Errorf("try overlayfs: %w", err)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path("lower"), path("upper"), path("work"))
	if err := unix.Mount("overlay", path("merged"), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlayfs on %s: %w", dir, err)
	}
	defer func() { _ = unix.Unmount(path("merged"), unix.MNT_DETACH) }()
	if _, err := os.Stat(path("merged/file")); err != nil {
		return fmt.Errorf("read through overlayfs on %s: %w", dir, err)
	}
	return nil
}
