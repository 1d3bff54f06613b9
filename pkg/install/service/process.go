package service

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// program is the main package in the build information of lite, whatever its file is
// called.
const program = "lite.io/lite/cmd/lite"

// IsProgram reports whether a file is a build of lite.
func IsProgram(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && info.Path == program
}

// pollEvery is how often a lock is tried again.
const pollEvery = 50 * time.Millisecond

// TryHold takes the lock of a data directory. If a process has it, that is
// returned instead; both are nil if there is no such directory.
func TryHold(dataDir string) (*Hold, *Process, error) {
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(pollEvery) {
		hold, p, err := tryHold(dataDir)
		if !errors.Is(err, errUnknown) || time.Now().After(deadline) {
			return hold, p, err
		}
	}
}

// settleTimeout is how long it may be unclear who has the lock: a lite that was just killed
// may have been starting a program, which has the lock until it runs; one that has just
// started has not written its process ID yet.
const settleTimeout = 2 * time.Second

// errUnknown means that the process in the lock file is not the one that has the lock.
var errUnknown = errors.New("find it with `fuser -v`, stop it and try again")

func tryHold(dataDir string) (*Hold, *Process, error) {
	if _, err := os.Stat(dataDir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	hold, refused, err := takeLock(dataDir, os.O_RDWR|os.O_CREATE)
	if refused != nil {
		defer refused.Close()
		p, err := holder(refused)
		return nil, p, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("hold the data directory: %w", err)
	}
	_ = hold.sign() // the disk may be full
	return hold, nil, nil
}

// Process is a lite that runs, whoever has started it.
type Process struct {
	PID     int
	process *os.Process // refers to this one, not to a later one with its ID
}

// holder finds the process that has the lock, and makes sure that it is lite:
// the number in the file could be of a process that came after.
func holder(lock *os.File) (*Process, error) {
	pid := pidIn(lock)
	if pid == 0 {
		return nil, fmt.Errorf("%s is locked by a process that it does not name: %w", lock.Name(), errUnknown)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("inspect process %d: %w", pid, err)
	}
	if !hasLocked(pid, lock) {
		_ = process.Release()
		return nil, fmt.Errorf("%s is locked by another process than %d, which it names: %w", lock.Name(), pid, errUnknown)
	}
	if !IsProgram(fmt.Sprintf("/proc/%d/exe", pid)) {
		_ = process.Release()
		return nil, fmt.Errorf("process %d has locked %s and is not lite; stop it and try again", pid, lock.Name())
	}
	return &Process{PID: pid, process: process}, nil
}

// Stop ends lite as an init system would: it sends SIGTERM, and after stopTimeout SIGKILL.
// Pods keep running. The data directory is locked from then on.
func (p *Process) Stop(ctx context.Context, dataDir string) (*Hold, error) {
	if err := p.process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("tell lite (pid %d) to stop: %w", p.PID, err)
	}
	force := time.NewTimer(stopTimeout)
	defer force.Stop()
	end := time.NewTimer(stopTimeout + killTimeout)
	defer end.Stop()
	for {
		hold, other, err := tryHold(dataDir)
		// While it ends, its files and its program are not accessible.
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
			return nil, fmt.Errorf("lite (pid %d) was killed but does not end; it may be waiting for a disk that does not answer", p.PID)
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// End waits for the end of a lite whose data directory is free. One that waits for an
// upgrade, to restart after it, does not end on its own.
func (p *Process) End(ctx context.Context) error {
	force := time.NewTimer(endTimeout)
	defer force.Stop()
	end := time.NewTimer(endTimeout + killTimeout)
	defer end.Stop()
	for {
		if p.ended() {
			return nil
		}
		select {
		case <-force.C:
			_ = p.process.Kill()
		case <-end.C:
			return fmt.Errorf("lite (pid %d) was killed but does not end", p.PID)
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ended reports whether a process has closed all that it had open, buried or not.
func (p *Process) ended() bool {
	ended := false
	err := p.process.WithHandle(func(pidfd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		ended = err == nil && n > 0
	})
	if err != nil { // a kernel before 5.4
		ended = errors.Is(p.process.Signal(unix.Signal(0)), os.ErrProcessDone)
	}
	return ended
}

// endTimeout is how long a lite may take to end once it has stopped.
const endTimeout = 2 * time.Second

// killTimeout is how long a killed process may take to end.
const killTimeout = 10 * time.Second
