package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk gives the host a disk of its own at /var/lib, of a number of MiB, so that it
// can get full, and so that [Host.Reboot] loses what has not been synced to it, as a
// power cut does. Without it nothing that was written is lost.
func Disk(mib int64) HostOption {
	return func(o *hostOptions) { o.disk = mib << 20 }
}

// disk is a file that a loop device makes a disk of. The device is the host's for as
// long as the host lives: two of one file would be two disks that overwrite each other.
type disk struct {
	file   string
	device *os.File
}

// newDisk makes one and a file system on it.
func newDisk(file string, size int64) (*disk, error) {
	image, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	if err := image.Truncate(size); err != nil {
		return nil, err
	}
	// Without the reserve for root, who is the only one to write here.
	mkfs := exec.Command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", file)
	if out, err := mkfs.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	d := &disk{file: file}
	// Another test may take the free device first.
	err = retry(10*time.Second, func() (err error) {
		d.device, err = attach(image)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a disk of %s: %w", file, err)
	}
	return d, nil
}

// attach makes a device of a file. It goes by itself when the last who holds it is gone.
func attach(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free loop device: %w", err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
		Fd:   uint32(image.Fd()),
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
	})
	if err != nil {
		device.Close()
		return nil, fmt.Errorf("attach to %s: %w", device.Name(), err)
	}
	return device, nil
}

// cut makes the file system at a path forget what it has not written yet, and refuse
// whatever comes.
func (d *disk) cut(mounted string) error {
	dir, err := os.Open(mounted)
	if err != nil {
		return err
	}
	defer dir.Close()
	const shutdown = 0x8004587d // FS_IOC_SHUTDOWN of linux/fs.h
	flags := uint32(2)          // NOLOGFLUSH: nor is the journal written
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("shut down the file system of %s: %w", d.device.Name(), errno)
	}
	return nil
}

// await waits until nobody has the disk mounted any more. Who would mount it before
// that got the file system that was cut off.
func (d *disk) await() error {
	return retry(20*time.Second, func() error {
		exclusive, err := unix.Open(d.device.Name(), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s is mounted still: %w", d.device.Name(), err)
		}
		return unix.Close(exclusive)
	})
}

func (d *disk) close() error {
	return errors.Join(d.device.Close(), os.Remove(d.file))
}

// FillDisk takes all room on the disk that holds /var/lib, which must be the host's own.
func (h *Host) FillDisk(t testing.TB) {
	t.Helper()
	if h.disk == nil {
		t.Fatalf("%s has no disk of its own to fill", h.Name)
	}
	// What is only promised to a file is not written to the machine's disk.
	h.Output(t, "sh", "-c", `
		free() { df --output=avail -B1 /var/lib | tail -n 1; }
		n=0
		while [ "$(free)" -gt 65536 ] && [ $n -lt 40 ]; do
			n=$((n + 1))
			fallocate -l $(($(free) / 2 + 4096)) `+filler+`.$n || true
		done
		cat /dev/zero >`+filler+` 2>/dev/null; true`)
}

// filler is the first part of the names of the files that FillDisk makes.
const filler = "/var/lib/filler"

// FreeDisk undoes FillDisk.
func (h *Host) FreeDisk(t testing.TB) {
	t.Helper()
	files, err := filepath.Glob(h.Path(filler + "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
