package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// leaveAttendant starts a process that outlives this one: if this one died while the
// service is stopped, nobody else would start it before the next boot. The start itself
// finds out what to do then.
func leaveAttendant(dataDir string) error {
	c := exec.Command("/proc/self/exe", "upgrade", "attend", dataDir)
	c.SysProcAttr = &unix.SysProcAttr{Setsid: true} // the end of a login is not its end
	if err := c.Start(); err != nil {
		return fmt.Errorf("start a process that starts lite if this command dies: %w", err)
	}
	go func() { _ = c.Wait() }()
	return nil
}

// Attend waits until nobody drives the upgrade, and starts the service if the upgrade has
// not finished.
func Attend(ctx context.Context, dataDir string) error {
	if err := awaitDriver(dataDir); err != nil {
		return err
	}
	j, err := ReadJournal(dataDir)
	if err != nil || !j.Pending() || !j.Service {
		return err
	}
	manager, err := service.Find()
	if err != nil {
		return fmt.Errorf("find the service: %w", err)
	}
	return manager.Start(ctx)
}

// awaitDriver returns when the process has ended that drives, if there is one.
func awaitDriver(dataDir string) error {
	f, err := os.Open(layout.Data(dataDir).Driver())
	if err != nil {
		return fmt.Errorf("wait for the upgrade: %w", err)
	}
	defer f.Close() // and so the next may drive
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH)
		if err == nil || !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
