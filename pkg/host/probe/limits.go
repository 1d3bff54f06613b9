package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// MinimumFreeDisk is how many bytes must be free for lite to start.
const MinimumFreeDisk = 100 << 20

// Free is how many bytes are free where a path is, or would be.
func Free(path string) (uint64, error) {
	for _, err := os.Stat(path); err != nil && path != filepath.Dir(path); _, err = os.Stat(path) {
		path = filepath.Dir(path)
	}
	var room unix.Statfs_t
	if err := unix.Statfs(path, &room); err != nil {
		return 0, fmt.Errorf("get the free space on %s: %w", path, err)
	}
	return room.Bavail * uint64(room.Bsize), nil
}

// CheckDisk refuses to start on a disk that is all but full: a datastore that runs out of
// room in the middle of a write is harder to repair than one that was not opened.
func CheckDisk(dataDir string) error {
	free, err := Free(dataDir)
	if err != nil {
		return err
	}
	if free < MinimumFreeDisk {
		return fmt.Errorf("data-dir %s: only %d MiB are free and %d MiB are needed to start; free some space or choose another --data-dir", dataDir, free>>20, MinimumFreeDisk>>20)
	}
	return nil
}

// CheckWatches makes sure that root may still open as many inotify instances. Without them,
// the kubelet ends the process and containerd never becomes ready, both without a reason.
func CheckWatches(watches int) error {
	for range watches {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			return errors.New("root has hardly any inotify instances left, and a node needs " + strconv.Itoa(watches) +
				": raise the limit with `sysctl -w fs.inotify.max_user_instances=1024`, and in /etc/sysctl.d for the next boot")
		}
		if err != nil {
			return fmt.Errorf("open an inotify instance: %w", err)
		}
		defer unix.Close(fd)
	}
	return nil
}
