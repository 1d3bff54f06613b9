package file

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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
		return mountInfo(f)
	}
	return s.Mnt_id, nil
}

// mountInfo reads what MountOf returns from /proc.
func mountInfo(f *os.File) (uint64, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.ParseUint(strings.TrimSpace(id), 10, 64)
		}
	}
	return 0, fmt.Errorf("the kernel does not show which mount %s is in", f.Name())
}
