package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Change is the lock for changes of what is installed on this machine. install.sh, upgrade,
// rollback, uninstall, killall, and commands that write into the directory of configuration
// take it. It ends with the process that has it.
//
// It is flock(2) on that directory itself, which represents the installation, and for commands that work on
// a data directory also on that, for a lite that is not installed. A process that was started with the
// locked directory open, as by install.sh, inherits the lock.
type Change struct {
	dirs      []*os.File
	inherited []int // files that this process was started with
}

// Private keeps what this process starts from having the right too: the service, for one, would have it for as long as
// it runs.
func (c *Change) Private() {
	for _, fd := range c.inherited {
		unix.CloseOnExec(fd)
	}
}

// Close lets others change it.
func (c *Change) Close() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, d := range c.dirs {
		errs = append(errs, d.Close())
	}
	c.dirs = nil
	return errors.Join(errs...)
}

// changeWait is how long to wait for another change that is about to end. An upgrade takes
// longer, and is not waited for.
const changeWait = 10 * time.Second

// BeginChange locks the directories that exist, always in the same order: that of
// configuration first. report gets whom it waits for.
func BeginChange(ctx context.Context, report func(string), dirs ...string) (*Change, error) {
	c := &Change{}
	for _, dir := range dirs {
		if fd, ok := inherited(dir); ok {
			c.inherited = append(c.inherited, fd)
			continue
		}
		d, err := lockDir(ctx, report, dir, changeWait)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if d != nil {
			c.dirs = append(c.dirs, d)
		}
	}
	return c, nil
}

func lockDir(ctx context.Context, report func(string), dir string, wait time.Duration) (*os.File, error) {
	deadline, reported := time.Now().Add(wait), false
	for {
		d, err := tryLockDir(dir)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return d, err
		}
		who := "another process"
		if pids := openers(dir, true); len(pids) > 0 {
			who = fmt.Sprintf("%s (pid %d)", nameOf(pids[0]), pids[0])
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is changing the installation (it has locked %s); wait until it ends, or stop it, and try again", who, dir)
		}
		if !reported {
			report("Waiting for " + who + ", which is changing the installation")
			reported = true
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryLockDir returns nil if there is no such directory.
func tryLockDir(dir string) (*os.File, error) {
	for {
		d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		// The former owner may have removed the directory, and somebody may have created
		// another.
		was, errWas := d.Stat()
		is, err := os.Stat(dir)
		if err == nil && errWas == nil && os.SameFile(was, is) {
			return d, nil
		}
		d.Close()
	}
}

// inherited is the descriptor of the directory if this process was started with it open and
// locked. Descriptors that it opens itself are closed in programs that it starts.
func inherited(dir string) (fd int, ok bool) {
	want, err := os.Stat(dir)
	if err != nil {
		return 0, false
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		is, err := os.Stat(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && os.SameFile(is, want) && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return fd, true
		}
	}
	return 0, false
}
