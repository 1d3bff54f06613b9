package service

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// program is what a build of lite says that it is, whatever its file is called.
const program = "lite.io/lite/cmd/lite"

// pollEvery is how often a lock is tried again.
const pollEvery = 50 * time.Millisecond

// Hold keeps every lite away from a data directory: it has the lock that a
// running lite has.
type Hold struct{ file *os.File }

// Close lets others have the data directory.
func (h *Hold) Close() error {
	if h == nil {
		return nil
	}
	return h.file.Close()
}

// TryHold takes the lock of a data directory. If a process has it, that is
// returned instead; both are nil if there is no such directory.
func TryHold(dataDir string) (*Hold, *Process, error) {
	path := filepath.Join(dataDir, "lite.lock")
	if _, err := os.Stat(dataDir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the lock of the data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		h := &Hold{f}
		// Who is refused the lock is told the process that has it.
		if err := f.Truncate(0); err != nil {
			return h, nil, nil // the disk may be read-only
		}
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
		return h, nil, nil
	}
	defer f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil, fmt.Errorf("lock %s: %w", path, err)
	}
	p, err := holder(f)
	return nil, p, err
}

// Process is a lite that runs, whoever has started it.
type Process struct {
	PID     int
	process *os.Process // stands for this one, not for a later one of its number
}

// holder finds the process that has the lock, and makes sure that it is lite:
// the number in the file could be of a process that came after.
func holder(lock *os.File) (*Process, error) {
	text := make([]byte, 20)
	n, _ := lock.ReadAt(text, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return nil, fmt.Errorf("%s is locked by a process that it does not name; try again in a moment", lock.Name())
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("look at process %d: %w", pid, err)
	}
	if !hasLocked(pid, lock) {
		return nil, fmt.Errorf("%s is locked by another process than %d, which it names; find it with `fuser -v %s`, end it and try again", lock.Name(), pid, lock.Name())
	}
	info, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || info.Path != program {
		return nil, fmt.Errorf("process %d has locked %s and is not lite; end it and try again", pid, lock.Name())
	}
	return &Process{PID: pid, process: process}, nil
}

// hasLocked reports whether a process has a lock on a file.
func hasLocked(pid int, lock *os.File) bool {
	want, err := lock.Stat()
	if err != nil {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if is, err := os.Stat(filepath.Join(dir, e.Name())); err != nil || !os.SameFile(is, want) {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err == nil && strings.Contains(string(info), "FLOCK") {
			return true
		}
	}
	return false
}

// Stop ends lite as an init system would: it asks, and after StopTimeout it
// forces. Pods run on. The data directory is held from then on.
func (p *Process) Stop(ctx context.Context, dataDir string) (*Hold, error) {
	if err := p.process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("ask lite (pid %d) to stop: %w", p.PID, err)
	}
	force := time.NewTimer(StopTimeout)
	defer force.Stop()
	end := time.NewTimer(StopTimeout + killTimeout)
	defer end.Stop()
	for {
		hold, other, err := TryHold(dataDir)
		// While it ends, its files and its program are not to be had.
		if err == nil && other == nil {
			return hold, nil
		}
		if other != nil && other.PID != p.PID {
			return nil, fmt.Errorf("another lite (pid %d) has started; stop what starts it and try again", other.PID)
		}
		select {
		case <-force.C:
			if err := p.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return nil, fmt.Errorf("kill lite (pid %d): %w", p.PID, err)
			}
		case <-end.C:
			return nil, fmt.Errorf("lite (pid %d) does not end, though it was killed; it may wait for a disk that does not answer", p.PID)
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// killTimeout is how long a killed process may take to end.
const killTimeout = 10 * time.Second
