package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// setGuard makes a link to the old program, there while a new one is tried: the service
// runs `upgrade resume` by it before each start, for a new program that cannot
// even do that. Its place does not depend on where the data is.
func setGuard(dataDir, guard string) error {
	if err := os.MkdirAll(filepath.Dir(guard), 0o700); err != nil {
		return fmt.Errorf("create a link to the old program: %w", err)
	}
	if err := os.Remove(guard); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create a link to the old program: %w", err)
	}
	if err := os.Symlink(backup.Program(dataDir), guard); err != nil {
		return fmt.Errorf("create a link to the old program: %w", err)
	}
	return file.SyncDir(filepath.Dir(guard))
}

// Settle is the first thing that a starting lite does with its data directory:
// it brings an upgrade that was interrupted into a state in which lite can run.
// If the program on the disk is another one now, its path is returned, and the
// caller becomes that.
func Settle(dataDir string) (program string, err error) {
	j, err := ReadJournal(dataDir)
	if err != nil || !j.Pending() {
		return "", err
	}
	hold, other, err := service.TryHold(dataDir)
	if err != nil || other != nil {
		return "", nil // a lite runs; whoever starts another one reports that
	}
	defer hold.Close()
	d, pid, err := Drive(dataDir)
	if err != nil {
		return "", err
	}
	if d == nil {
		if j.State != Swapped && j.State != Started && j.State != Restored {
			return "", fmt.Errorf("an upgrade is under way (pid %d), which starts lite by itself; wait for its end", pid)
		}
		return "", nil
	}
	defer d.Close()
	if j, err = ReadJournal(dataDir); err != nil || !j.Pending() {
		return "", err
	}
	return settle(dataDir, j, version.Version(), "new")
}

// settle continues an upgrade that nobody drives, while no lite runs. self is the calling
// version, who is what its starts are counted as.
func settle(dataDir string, j *Journal, self, who string) (program string, err error) {
	switch j.State {
	case Returning:
		slog.Warn("A rollback was interrupted before it had changed anything", "from", j.To, "to", j.From)
		return "", errors.Join(cleanUp(dataDir, j), forget(dataDir))
	case Prepared:
		slog.Warn("An upgrade was interrupted before it had changed anything", "from", j.From, "to", j.To)
		return "", errors.Join(abandon(dataDir, j), cleanUp(dataDir, j), forget(dataDir))
	case Swapped, Started:
		replaced, err := isReplaced(dataDir, j)
		if err != nil {
			return "", err
		}
		if !replaced {
			slog.Warn("An upgrade was interrupted before it had replaced the program", "from", j.From, "to", j.To)
			return "", errors.Join(abandon(dataDir, j), cleanUp(dataDir, j), forget(dataDir))
		}
		if who == "new" && self != j.To {
			slog.Warn("An upgrade was interrupted, and this is neither of its versions: somebody has installed another one since then", "from", j.From, "to", j.To)
			return "", errors.Join(cleanUp(dataDir, j), forget(dataDir))
		}
		n, err := addStart(dataDir, who)
		if err != nil {
			return "", fmt.Errorf("count the starts of the new version: %w", err)
		}
		if n <= maxStarts {
			return "", nil
		}
		j.Reason = fmt.Sprintf("lite %s was started %d times and was not healthy", j.To, maxStarts)
		slog.Error("Rolling back", "from", j.To, "to", j.From, "because", j.Reason)
		if err := j.enter(dataDir, RollingBack); err != nil {
			return "", err
		}
		fallthrough
	case RollingBack:
		if err := errors.Join(backup.Restore(dataDir), j.enter(dataDir, Restored)); err != nil {
			return "", err
		}
		return j.Binary, nil
	case Restored:
		if self != j.From && !isSelf(j.Binary) {
			return j.Binary, nil
		}
		if self != j.From {
			slog.Warn("An upgrade was rolled back, and this is neither of its versions: somebody has installed another one since then", "from", j.To, "to", j.From)
			return "", errors.Join(backup.Spend(dataDir), cleanUp(dataDir, j), forget(dataDir))
		}
		slog.Warn("An upgrade was rolled back", "from", j.To, "to", j.From, "because", j.Reason)
		return "", finish(dataDir, j)
	}
	return "", fmt.Errorf("the journal of the upgrade is in the state %q, which this version does not know; use lite %s or %s", j.State, j.To, j.From)
}

// isSelf reports whether a file is the program of this process.
func isSelf(program string) bool {
	self, err := os.Stat("/proc/self/exe")
	is, errIs := os.Stat(program)
	return err == nil && errIs == nil && os.SameFile(self, is)
}

// isReplaced reports whether the program that is installed is another one than
// the one that was kept.
func isReplaced(dataDir string, j *Journal) (bool, error) {
	if _, err := os.Lstat(layout.Staged(j.Binary)); err == nil {
		return false, nil // it waits still
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("inspect the program: %w", err)
	}
	return true, nil
}

// Resume is what the service asks of the old program before each start: whether
// the new one has failed so often that it is the old one's turn again.
func Resume(self string) error {
	dir := filepath.Dir(self)
	if filepath.Base(dir) != filepath.Base(layout.Data("").Kept()) {
		return errors.New("upgrade resume: the service runs this from the program that an upgrade has backed up; there is nothing to resume by hand: start lite")
	}
	dataDir := filepath.Dir(dir)
	j, err := ReadJournal(dataDir)
	if err != nil || !j.Pending() || j.State == Prepared || j.State == Returning || j.State == Restored {
		return err
	}
	hold, other, err := service.TryHold(dataDir)
	if err != nil || other != nil {
		return err
	}
	defer hold.Close()
	d, _, err := Drive(dataDir)
	if err != nil || d == nil {
		return err // somebody watches
	}
	defer d.Close()
	if j, err = ReadJournal(dataDir); err != nil || !j.Pending() {
		return err
	}
	_, err = settle(dataDir, j, version.Version(), "service")
	return err
}

// Watch brings the upgrade that this start is part of to its end, when the
// command that began it is no more. It returns an error if this version has to
// go: the old one is put back at the next start. It returns nil when there is
// nothing more to watch.
func Watch(ctx context.Context, cfg *config.Config) error {
	for {
		j, err := ReadJournal(cfg.DataDir)
		if err != nil || !j.Pending() || j.To != version.Version() || j.State != Swapped && j.State != Started {
			return nil
		}
		d, _, err := Drive(cfg.DataDir)
		if err != nil {
			slog.Warn("Cannot complete the upgrade", "err", err)
			return nil
		}
		if d != nil {
			defer d.Close()
			return watch(ctx, cfg)
		}
		if !kube.Sleep(ctx, time.Second) {
			return nil
		}
	}
}

func watch(ctx context.Context, cfg *config.Config) error {
	j, err := ReadJournal(cfg.DataDir)
	if err != nil || !j.Pending() {
		return nil
	}
	slog.Info("Nobody is watching the upgrade, so this version does", "from", j.From, "to", j.To, "timeout", j.HealthTimeout)
	if err := j.enter(cfg.DataDir, Started); err != nil {
		slog.Warn("Cannot complete the upgrade", "err", err)
		return nil
	}
	_, err = newGate(cfg.DataDir, j, kubeconfigOf(cfg)).await(ctx)
	switch {
	case errors.Is(err, errUndecided):
		return nil
	case err == nil:
		if err := errors.Join(j.enter(cfg.DataDir, Healthy), cleanUp(cfg.DataDir, j)); err != nil {
			slog.Warn("Cannot complete the upgrade", "err", err)
			return nil
		}
		if t, err := newTurn(kubeconfigOf(cfg), cfg.NodeName); err == nil && cfg.Role == config.Server {
			_ = t.end(ctx) // it ends by itself
		}
		slog.Info("The upgrade is complete", "from", j.From, "to", j.To)
		return nil
	}
	j.Reason = err.Error()
	if err := j.enter(cfg.DataDir, RollingBack); err != nil {
		slog.Warn("Cannot roll back the upgrade", "err", err)
		return nil
	}
	return fmt.Errorf("the upgrade is rolled back: %w", err)
}

// relaunchEvery is how often is looked whether the program may be started again.
const relaunchEvery = 100 * time.Millisecond

// End is why a lite ends.
type End int

// The ends.
const (
	Asked  End = iota // somebody has stopped it
	Paused            // an upgrade has stopped it, or a rollback
	Failed            // by its own failure
	Again             // it restarts in place
)

// Relaunch is the last thing that lite does, after it has released its data directory. If
// no init system keeps it running and an upgrade has stopped it, it waits until the program
// is replaced and re-executes itself as that, which keeps the process ID, the terminal and
// whatever watches it. It returns if lite has to end.
func Relaunch(dataDir string, end End, environment []string) error {
	j, err := ReadJournal(dataDir)
	if err != nil || !j.Pending() || j.Service {
		return err
	}
	if end == Asked {
		return nil // a person wants it to end, or killall
	}
	entered := j.State
	if runs := entered == Swapped || entered == Started || entered == Restored; runs && end == Again {
		return nil // who watches the upgrade waits for it as for any start
	} else if runs && !driven(dataDir) {
		// The start counts; after some of them the old version comes back.
		return Reexec(j.Binary, environment)
	}
	slog.Info("Waiting for the upgrade to start lite again", "state", entered)
	// uninstall and killall find waiting processes by this file.
	lock, err := os.Open(layout.Data(dataDir).Driver())
	if err != nil {
		return fmt.Errorf("wait for the upgrade: %w", err)
	}
	defer lock.Close()
	for {
		now, err := ReadJournal(dataDir)
		if err != nil {
			return err
		}
		if startable(entered, now) || !driven(dataDir) {
			if hold, other, err := service.TryHold(dataDir); err == nil && other == nil {
				if err := hold.Close(); err != nil {
					return err
				}
				return Reexec(j.Binary, environment)
			}
		}
		time.Sleep(relaunchEvery)
	}
}

// startable reports whether an upgrade has reached the point where lite starts, for a
// process that stopped when it was in the state entered.
func startable(entered State, now *Journal) bool {
	if !now.Pending() || now.State == Restored {
		return true
	}
	return entered == Prepared && (now.State == Swapped || now.State == Started)
}

// Reexec replaces the program of this process, with the same arguments and the given
// environment. It returns only if that fails.
func Reexec(program string, environment []string) error {
	if err := unix.Exec(program, os.Args, environment); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}
