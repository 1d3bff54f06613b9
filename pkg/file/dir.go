package file

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SyncDir returns when the names in a directory are on the disk.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MountOf identifies the mount that a directory is in, which is more than the
// file system: part of one may be mounted elsewhere in it.
func MountOf(dir *os.Root) (uint64, error) {
	f, err := dir.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var s unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &s); err != nil {
		return 0, fmt.Errorf("statx %s: %w", dir.Name(), err)
	}
	if s.Mask&unix.STATX_MNT_ID == 0 { // before Linux 5.8
		return unix.Mkdev(s.Dev_major, s.Dev_minor), nil
	}
	return s.Mnt_id, nil
}
