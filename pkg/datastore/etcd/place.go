package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// remedy is what helps against a store that cannot be opened.
func remedy(dir string) string {
	return "restore a snapshot or a copy of " + dir + ", or move it away to start an empty cluster"
}

// Directories is those in which a member keeps its data, the one of the member first.
func Directories(dir string) []string {
	return []string{dir, memberDir(dir), walDir(dir), filepath.Dir(databaseFile(dir))}
}

// inPlace finds what etcd would fall over when it has begun to change things, or in
// a goroutine of its own: something else in the place of a directory, a link that
// leads to a disk that is not mounted, and what cannot be written. What is not
// there is made.
func inPlace(dir string) error {
	for _, d := range Directories(dir) {
		if _, err := os.Lstat(d); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		info, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("the directory %s does not exist: %w; nothing was changed: mount what it leads to, %s", d, err, remedy(dir))
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is a file, and must be a directory; nothing was changed: %s", d, remedy(dir))
		}
		if err := writable(d); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(walDir(dir), "*.wal"))
	if err != nil {
		return fmt.Errorf("find the write-ahead log: %w", err)
	}
	for _, f := range append(files, databaseFile(dir)) {
		if err := writable(f); err != nil {
			return err
		}
	}
	return nil
}

// writable asks the kernel, which knows mounts and attributes as well as modes.
func writable(path string) error {
	if err := unix.Access(path, unix.W_OK); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s is not writable: %w; nothing was changed: check how it is mounted (findmnt -T %s), its mode and its attributes (lsattr)", path, err, path)
	}
	return nil
}
