package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// deviceDirs is where containerd finds descriptions of devices (CDI), unless a drop-in
// names others.
var deviceDirs = []string{"/etc/cdi", "/var/run/cdi"}

// largestDevices is far above what describes the devices of a machine: containerd reads
// each file as a whole.
const largestDevices = 16 << 20

// CheckDevices finds descriptions of devices, on the machine whose files are below root,
// that containerd would wait for when it starts, or fill the memory with. It logs what it
// cannot parse, and continues (2.4).
func CheckDevices(root string) error {
	var errs []error
	for _, dir := range deviceDirs {
		entries, _ := os.ReadDir(filepath.Join(root, dir)) // there need be none
		for _, e := range entries {
			if e.IsDir() || !slices.Contains([]string{".json", ".yaml"}, filepath.Ext(e.Name())) {
				continue
			}
			if err := checkDevices(filepath.Join(root, dir, e.Name())); err != nil {
				errs = append(errs, fmt.Errorf("CDI specification %s: %w; remove it, or rename it", filepath.Join(dir, e.Name()), err))
			}
		}
	}
	return errors.Join(errs...)
}

func checkDevices(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil || info.IsDir():
		return nil // containerd reports it
	case !info.Mode().IsRegular():
		return fmt.Errorf("is %s and not a file: containerd would wait for it", kindOf(info.Mode()))
	case info.Size() > largestDevices:
		return fmt.Errorf("has %d MiB, and containerd would read all of them", info.Size()>>20)
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
