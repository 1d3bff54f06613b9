package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Init is what a machine boots.
type Init string

// The init systems that there are machines with.
const (
	// Systemd is Debian 12's, as PID 1.
	Systemd Init = "systemd"
	// OpenRC is Debian 12's, with the harness as PID 1.
	OpenRC Init = "openrc"
)

// Machine is a host with a Debian of its own, which has little more than an init
// system, and a disk: what is written stays when it reboots. lite is not on it.
type Machine struct {
	*Host
	Init Init
}

// NewMachine boots a machine. It ends with the test; if the test has failed by
// then, its journal is kept.
func NewMachine(t testing.TB, init Init, options ...HostOption) *Machine {
	t.Helper()
	needRoot(t)
	root := filepath.Join(builtRoots(t), string(init))
	options = append(options, func(o *hostOptions) {
		o.root = root
		if init == Systemd {
			// In a container its arguments stand for those of the kernel. They matter
			// only where the machine has cgroups of version 1.
			o.program = []string{"/lib/systemd/systemd", "systemd.legacy_systemd_cgroup_controller=1"}
		}
	})
	m := &Machine{Host: NewHost(t, options...), Init: init}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.Run("journalctl --no-pager -n 80 2>/dev/null || tail -n 80 /var/log/lite.log")
			t.Logf("%s logged last:\n%s", m.Name, out)
		}
	})
	m.awaitBoot(t)
	return m
}

// builtRoots returns the directory of the machines' root file systems, which are
// built when they are needed first.
func builtRoots(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(repository(), "dist", "roots")
	script := filepath.Join(repository(), "tests", "harness", "cluster", "roots")
	if out, err := exec.Command(script, dir).CombinedOutput(); err != nil {
		t.Fatalf("build the machines' root file systems: %v\n%s", err, out)
	}
	return dir
}

// awaitBoot waits until the init system has started all that it starts by itself.
func (m *Machine) awaitBoot(t testing.TB) {
	t.Helper()
	command := "systemctl is-system-running --wait || systemctl is-system-running | grep -q degraded"
	if m.Init == OpenRC {
		command = "openrc sysinit && openrc boot && openrc default"
	}
	var out string
	var err error
	Eventually(t, time.Minute, func() error {
		if out, err = m.Run(command); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// Run runs a shell script in the machine, as root, and returns what it prints.
func (m *Machine) Run(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	out, err := m.Command(ctx, "sh", "-c", script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Sh is Run for a script that must succeed.
func (m *Machine) Sh(t testing.TB, format string, args ...any) string {
	t.Helper()
	script := fmt.Sprintf(format, args...)
	out, err := m.Run(script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// Eventually repeats a script until it succeeds.
func (m *Machine) Eventually(t testing.TB, timeout time.Duration, format string, args ...any) string {
	t.Helper()
	script := fmt.Sprintf(format, args...)
	var out string
	Eventually(t, timeout, func() (err error) {
		if out, err = m.Run(script); err != nil {
			return fmt.Errorf("%s: %w\n%s", script, err, tail(out, 30))
		}
		return nil
	})
	return out
}

// Push puts a file of this machine into that one.
func (m *Machine) Push(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("install", "-D", from, m.Path(to)).CombinedOutput(); err != nil {
		t.Fatalf("put %s to %s: %v\n%s", from, to, err, out)
	}
}

// PushLite puts the lite that was built into the machine.
func (m *Machine) PushLite(t testing.TB, to string) { m.Push(t, Binary(t), to) }

// PushImages puts the test images where lite imports them from.
func (m *Machine) PushImages(t testing.TB) {
	for _, name := range []string{"agnhost", "busybox"} {
		m.Push(t, ImageTarball(t, name), imagesDir+"/"+name+".tar")
	}
}

// Restart shuts the machine down in order and boots it again. [Host.Reboot] cuts
// its power instead.
func (m *Machine) Restart(t testing.TB) {
	t.Helper()
	if m.Init != Systemd {
		m.Sh(t, "openrc shutdown")
		m.Host.Reboot(t)
		m.awaitBoot(t)
		return
	}
	_, _ = m.Run("systemctl reboot")
	if err := m.awaitEnd(2 * time.Minute); err != nil {
		t.Fatalf("shut %s down: %v", m.Name, err)
	}
	m.bootAgain(t)
	m.awaitBoot(t)
}

// Reboot cuts the machine's power and boots it again.
func (m *Machine) Reboot(t testing.TB) {
	t.Helper()
	m.Host.Reboot(t)
	m.awaitBoot(t)
}

// awaitEnd waits until PID 1 has ended.
func (m *Machine) awaitEnd(timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(m.pidfd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(timeout); ; {
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		if n == 1 {
			return nil
		}
		if err != unix.EINTR && (err != nil || time.Now().After(deadline)) {
			return fmt.Errorf("its PID 1 runs on after %s", timeout)
		}
	}
}
