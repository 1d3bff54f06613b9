package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// State is how far an upgrade has come. Whoever finds a journal knows from it
// what is on the disk, however the one before has ended.
type State string

const (
	// Prepared means that the old program is in place and the data is unchanged. lite may
	// be stopped, and a copy of its data may be incomplete.
	Prepared State = "prepared"
	// Swapped means that the backup is complete. The new program is in place, or is about
	// to be; its version shows which.
	Swapped State = "swapped"
	// Started means: the new version runs and is being watched.
	Started State = "started"
	// Healthy means: the new version has done what was asked of it. This is an end.
	Healthy State = "healthy"
	// Returning means: a rollback was asked for by hand, and nothing was touched yet.
	Returning State = "returning"
	// RollingBack means that lite is stopped, and the old program and data are being restored.
	RollingBack State = "rolling-back"
	// Restored means: both are back. The old version is about to be started.
	Restored State = "restored"
	// RolledBack means: the old version runs. This is an end.
	RolledBack State = "rolled-back"
)

// Journal is what has to be known of an upgrade, or of a rollback, when the
// process that makes it is no more.
type Journal struct {
	State  State       `json:"state"`
	From   string      `json:"from"` // the version that is kept, and gone back to
	To     string      `json:"to"`
	Role   config.Role `json:"role"`
	Binary string      `json:"binary"` // the file that is replaced
	// Guard is the link through which the service finds the program of the backup.
	Guard string `json:"guard,omitempty"`
	// Service means that the init system starts lite. Otherwise the running process
	// re-executes itself as the other program (Relaunch).
	Service bool      `json:"service"`
	Began   time.Time `json:"began"`
	// HealthTimeout is how long the new version may take to be healthy.
	HealthTimeout time.Duration `json:"healthTimeoutNanoseconds"`
	// Runtime is where the containers are asked for that have to survive.
	Runtime    string      `json:"runtime"`
	Containers []container `json:"containers,omitempty"`
	// Images is the archives that were unpacked.
	Images []string `json:"images,omitempty"`
	// Reason is why the upgrade was rolled back; "" if it was not.
	Reason string `json:"reason,omitempty"`
}

// Pending reports whether the upgrade is still to be brought to an end.
func (j *Journal) Pending() bool {
	return j != nil && j.State != Healthy && j.State != RolledBack
}

// ReadJournal returns the journal of a data directory, nil if there is none.
func ReadJournal(dataDir string) (*Journal, error) {
	path := layout.Data(dataDir).Journal()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of the upgrade: %w", err)
	}
	j := &Journal{}
	err = json.Unmarshal(data, j)
	if err == nil && (j.State == "" || j.From == "" || j.To == "" || !filepath.IsAbs(j.Binary)) { // such as null
		err = errors.New("the state, a version or the program is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of the upgrade %s: %w; it is written atomically, so the disk may be damaged: remove it if lite works", path, err)
	}
	if j.Guard == "" {
		j.Guard = layout.Default().Config.Guard()
	}
	return j, nil
}

// write puts the journal on the disk before it returns.
func (j *Journal) write(dataDir string) error {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("write the journal of the upgrade: %w", err)
	}
	if err := file.Write(layout.Data(dataDir).Journal(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the journal of the upgrade: %w", err)
	}
	return file.SyncDir(dataDir)
}

// enter notes that the upgrade has come to a state.
func (j *Journal) enter(dataDir string, s State) error {
	if s == RollingBack { // the disk may be full
		if err := backup.MakeRoom(dataDir); err != nil {
			return err
		}
	}
	j.State = s
	return j.write(dataDir)
}

// abandon removes the images of an upgrade that never began, and restores the previous backup in place of its
// own. cleanUp, which has to follow, does the rest.
func abandon(dataDir string, j *Journal) error {
	if len(j.Images) > 0 {
		if err := backup.RemoveImages(dataDir, j.Images); err != nil {
			return err
		}
		j.Images = nil
		if err := j.write(dataDir); err != nil {
			return err
		}
	}
	b, err := backup.Read(dataDir)
	if err != nil || b == nil || b.Versions.Version != j.From || b.Taken.Before(j.Began) {
		return nil
	}
	return backup.Withdraw(dataDir)
}

// cleanUp removes what an upgrade leaves that came to its end, or never began.
func cleanUp(dataDir string, j *Journal) error {
	errs := []error{backup.CleanUp(dataDir)}
	for _, path := range []string{layout.Staged(j.Binary), layout.Data(dataDir).Download(), j.Guard} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after the upgrade: %w", err)
	}
	return nil
}

// forget removes the journal of an upgrade that has changed nothing.
func forget(dataDir string) error {
	if err := os.Remove(layout.Data(dataDir).Journal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal of the upgrade: %w", err)
	}
	return file.SyncDir(dataDir)
}

// Driver is the lock of whoever continues the upgrade of a data directory. It ends with the
// process that has it.
type Driver struct {
	file *os.File
	// change keeps those away who change the installation otherwise; nil where lite
	// itself drives.
	change *service.Change
}

// Close lets others drive.
func (d *Driver) Close() error { return errors.Join(d.file.Close(), d.change.Close()) }

// Drive takes the right. If another process has it, its number is returned; 0 if
// that is not known.
func Drive(dataDir string) (d *Driver, other int, err error) {
	f, err := os.OpenFile(layout.Data(dataDir).Driver(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("lock the upgrade: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, 0, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		text := make([]byte, 20)
		n, _ := f.ReadAt(text, 0)
		other, _ = strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return nil, other, nil
	}
	// Only for those who are refused; the disk may be full.
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return &Driver{file: f}, 0, nil
}

// driven reports whether some process drives, without taking the right for
// longer than it takes to look.
func driven(dataDir string) bool {
	d, _, err := Drive(dataDir)
	if err != nil || d == nil {
		return true
	}
	d.Close()
	return false
}

// UnderWay reports whether another process is upgrading or rolling back. A lite that
// finishes one itself does not stop for that.
func UnderWay(dataDir string) bool {
	j, err := ReadJournal(dataDir)
	if err != nil || !j.Pending() {
		return false
	}
	d, other, err := Drive(dataDir)
	if d != nil {
		d.Close()
		return false
	}
	return err == nil && other != os.Getpid()
}

// starts counts how often somebody has tried to start the new version: a byte
// each, so that no two writers are in each other's way.
func addStart(dataDir, who string) (int64, error) {
	n, err := tryAddStart(dataDir, who)
	if errors.Is(err, unix.ENOSPC) { // not counted, a version that fills the disk would never go
		if err := backup.MakeRoom(dataDir); err != nil {
			return 0, err
		}
		n, err = tryAddStart(dataDir, who)
	}
	return n, err
}

func tryAddStart(dataDir, who string) (n int64, err error) {
	f, err := os.OpenFile(startsFile(dataDir, who), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Write([]byte{'.'}); err != nil {
		return 0, err
	}
	return countStarts(dataDir, who), nil
}

func countStarts(dataDir, who string) int64 {
	info, err := os.Stat(startsFile(dataDir, who))
	if err != nil {
		return 0
	}
	return info.Size()
}

func startsFile(dataDir, who string) string {
	return filepath.Join(layout.Data(dataDir).Kept(), "starts-"+who)
}
