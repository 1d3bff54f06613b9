package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd is an [exec.Cmd] whose process runs in a host, as a child of the test:
// its process ID is the machine's, and signals reach it.
type Cmd struct {
	*exec.Cmd
	host  *Host
	clock time.Duration // added to the time that the process reads
}

// Command returns a command to run in the host. Its name is looked up there and
// its environment is that of a fresh root login. If ctx ends, it is killed.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = "/"
	c.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8",
	}
	c.WaitDelay = 5 * time.Second // for children that keep the pipes open
	return &Cmd{Cmd: c, host: h}
}

// Start is as in [exec.Cmd], within the host.
func (c *Cmd) Start() error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	return onOwnThread(func() error {
		done, err := c.host.cgroups.join(c.SysProcAttr)
		if err != nil {
			return err
		}
		defer done()
		proc, err := os.OpenRoot("/proc") // the machine's
		if err != nil {
			return err
		}
		defer proc.Close()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(c.host.pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET|
			unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP); err != nil {
			return err
		}
		c.Path, c.Err = lookPath(c.Args[0])
		c.SysProcAttr.Ptrace = c.clock != 0
		if err := c.Cmd.Start(); err != nil || c.clock == 0 {
			return err
		}
		if err := skew(proc, c.Process.Pid, c.clock); err != nil {
			_ = c.Process.Kill()
			return fmt.Errorf("give %s another time: %w", c.Args[0], err)
		}
		return nil
	})
}

// Run is as in [exec.Cmd], within the host.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is as in [exec.Cmd], within the host. Standard error is in the
// [exec.ExitError] unless the caller has directed it elsewhere.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput is as in [exec.Cmd], within the host.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	err := c.Run()
	return both.Bytes(), err
}

// Output runs a command in the host and returns what it prints; if it fails,
// so does the test.
func (h *Host) Output(t testing.TB, name string, args ...string) string {
	t.Helper()
	return output(t, h.Command(t.Context(), name, args...))
}

func output(t testing.TB, c *Cmd) string {
	t.Helper()
	stdout, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(c.Args, " "), err, stdout, stderrOf(err))
	}
	return string(stdout)
}

// stderrOf returns what a failed command said.
func stderrOf(err error) string {
	if exit, ok := err.(*exec.ExitError); ok {
		return string(exit.Stderr)
	}
	return ""
}

// lookPath finds a program of a host; the calling thread is in its mount
// namespace. The directories are those of Command, not of the test's own PATH.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return exec.LookPath(name)
	}
	var err error
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		var path string
		if path, err = exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", err
}
