package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"lite.io/lite/pkg/layout"
)

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

// Claim takes the lock of a data directory for a lite that starts, until it is
// closed or the process ends, however it ends.
func Claim(dataDir string) (*Hold, error) {
	hold, err := claim(dataDir, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := hold.sign(); err != nil {
		return nil, errors.Join(fmt.Errorf("claim data-dir: %w", err), hold.Close())
	}
	return hold, nil
}

// CheckClaim returns the error that Claim would return, and changes nothing.
func CheckClaim(dataDir string) error {
	hold, err := claim(dataDir, os.O_RDONLY)
	if errors.Is(err, errTaken) {
		return err
	}
	return hold.Close() // if it does not exist, Claim creates it or returns why not
}

// errTaken is that somebody else has a data directory.
var errTaken = errors.New("the data directory is in use")

// takenError is errTaken with a message for users.
type takenError struct{ error }

func (takenError) Is(target error) bool { return target == errTaken }

// claim waits a moment if it is unclear who has the lock, as tryHold does: a program that
// this process is starting also has it until it runs.
func claim(dataDir string, flags int) (*Hold, error) {
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(claimEvery) {
		hold, refused, err := takeLock(dataDir, flags)
		if err != nil {
			return nil, fmt.Errorf("claim data-dir: %w", err)
		}
		if hold != nil {
			return hold, nil
		}
		pid := pidIn(refused)
		if pid != 0 && hasLocked(pid, refused) || time.Now().After(deadline) {
			defer refused.Close()
			return nil, takenError{taken(refused)}
		}
		refused.Close()
	}
}

// claimEvery is how often a start tries again.
const claimEvery = 5 * time.Millisecond

// taken is the error for a lite that starts: it names who has the lock.
func taken(lock *os.File) error {
	pid, dir := pidIn(lock), filepath.Dir(lock.Name())
	switch name := nameOf(pid); {
	case pid == 0:
		return fmt.Errorf("lite is already running on %s (another process); stop it first or choose another --data-dir", dir)
	case slices.Contains([]string{"lite uninstall", "lite killall", "lite upgrade", "lite rollback"}, name):
		return fmt.Errorf("`%s` (pid %d) is using %s; wait until it ends", name, pid, dir)
	}
	return fmt.Errorf("lite is already running on %s (pid %d); stop it first or choose another --data-dir", dir, pid)
}

// takeLock takes the lock of a data directory. If another process has it, the file is
// returned for the caller to inspect and close.
func takeLock(dataDir string, flags int) (hold *Hold, refused *os.File, err error) {
	held, refused, err := layout.Data(dataDir).TryLock(flags)
	if held != nil {
		hold = &Hold{held}
	}
	return hold, refused, err
}

// sign records who has the lock, for those who do not get it.
func (h *Hold) sign() error {
	if err := h.file.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(h.file, "%d\n", os.Getpid())
	return err
}

// pidIn is the process that has written its ID into the lock, 0 if none has.
func pidIn(lock *os.File) int {
	text := make([]byte, 20)
	n, _ := lock.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return max(pid, 0)
}

// hasLocked reports whether a process has a lock on a file.
func hasLocked(pid int, lock *os.File) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", lock.Fd()))
	return err == nil && opened(pid, path, true)
}

// EndOpeners ends every lite but this one that has a file open.
func EndOpeners(ctx context.Context, path string) error {
	for _, pid := range openers(path, false) {
		process, err := os.FindProcess(pid)
		if err != nil || pid == os.Getpid() || !IsProgram(fmt.Sprintf("/proc/%d/exe", pid)) {
			continue
		}
		_ = process.Kill()
		if err := (&Process{PID: pid, process: process}).End(ctx); err != nil {
			return err
		}
	}
	return nil
}

// openers are the processes that have a file or directory open, those with the
// lowest number first; with locked only those that have it locked.
func openers(path string, locked bool) []int {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && opened(pid, path, locked) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// opened compares names: to open files of other processes could hang on a file server that
// does not answer.
func opened(pid int, path string, locked bool) bool {
	proc := fmt.Sprintf("/proc/%d", pid)
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return false
	}
	for _, e := range entries {
		is, err := os.Readlink(filepath.Join(proc, "fd", e.Name()))
		if err != nil || is != path {
			continue
		}
		if !locked {
			return true
		}
		info, err := os.ReadFile(filepath.Join(proc, "fdinfo", e.Name()))
		if err == nil && strings.Contains(string(info), "FLOCK") {
			return true
		}
	}
	return false
}

// nameOf is what a process was called by: its program, and what comes after if that is
// no flag. The rest may hold a token.
func nameOf(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	words := strings.Split(string(data), "\x00")
	if err != nil || words[0] == "" {
		return "a process"
	}
	name := filepath.Base(words[0])
	if len(words) > 1 && words[1] != "" && !strings.HasPrefix(words[1], "-") {
		name += " " + filepath.Base(words[1])
	}
	return name
}
