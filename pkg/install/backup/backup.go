// Package backup backs up what makes a node what it is (program, configuration, datastore and identity) and
// restores it. An upgrade makes a Backup before it begins, and a rollback restores it. Begin copies what can be
// copied while lite runs, Complete the rest when it has stopped; the previous Backup stays until the new one is
// complete. Each step can be repeated whenever it was interrupted.
package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// Backup is all that is needed to restore the node. It is one directory, which is complete
// once it contains this description.
type Backup struct {
	Versions version.Info `json:"versions"`
	Role     config.Role  `json:"role"`
	Binary   string       `json:"binary"` // where the program belongs
	Taken    time.Time    `json:"taken"`
	// Entries are names in the data directory.
	Entries []string `json:"entries"`
	// Files are paths of the configuration. Dirs are directories in which every file is
	// read, so that extra files matter, too.
	Files []string `json:"files"`
	Dirs  []string `json:"dirs"`
	// Images is the archives that were unpacked for the newer version.
	Images []string `json:"images,omitempty"`
	// Next is the newer version.
	Next version.Info `json:"next"`
	// Store is what Restore does with the directory of a server; "" until it has begun.
	Store Store `json:"store,omitempty"`
}

// Names in the directory of a backup.
const (
	keptBinary  = "lite"
	keptEntries = "data"
	keptFiles   = "files"
	keptImages  = "images"  // archives that were replaced by others of the same names
	keptDropped = "dropped" // what the newer version has made of the entries
	keptReserve = "reserve" // room for what a rollback has to write on a full disk
	description = "kept.json"
)

// reserve is far more than a journal takes.
const reserve = 1 << 20

func keptDir(dataDir string) string { return layout.Data(dataDir).Kept() }

func making(dataDir string) string { return layout.Data(dataDir).Keeping() }

func former(dataDir string) string { return layout.Data(dataDir).KeptBefore() }

// Program is the lite in the backup.
func Program(dataDir string) string { return filepath.Join(keptDir(dataDir), keptBinary) }

// Dropped is where Restore leaves what the newer version has made of the node.
func Dropped(dataDir string) string { return filepath.Join(keptDir(dataDir), keptDropped) }

// Read returns the backup, nil if there is none or it is incomplete.
func Read(dataDir string) (*Backup, error) {
	path := filepath.Join(keptDir(dataDir), description)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the backup of the upgrade: %w", err)
	}
	b := &Backup{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("read the backup of the upgrade: %s: %w", path, err)
	}
	return b, nil
}

// Maker makes a Backup of a data directory.
type Maker struct {
	DataDir string
	Backup  Backup
}

// New makes a Maker for the node of a configuration, whose program is in binary and becomes another version.
func New(cfg *config.Config, binary string, next version.Info) *Maker {
	m := &Maker{DataDir: cfg.DataDir, Backup: Backup{Versions: version.Get(), Next: next, Role: cfg.Role, Binary: binary}}
	m.Backup.Files, m.Backup.Dirs = configuration(cfg)
	return m
}

// entries are the existing entries that make the node what it is.
func entries(dataDir string, role config.Role) []string {
	return slices.DeleteFunc(layout.Data(dataDir).Identity(role == config.Server), func(name string) bool {
		_, err := os.Lstat(filepath.Join(dataDir, name))
		return err != nil
	})
}

// Size is how much room a Backup takes, in bytes, without the program and archives of images.
func Size(dataDir string, role config.Role) (total int64) {
	for _, name := range entries(dataDir, role) {
		total += SizeOf(filepath.Join(dataDir, name))
	}
	return total + reserve
}

// CheckWhole refuses a data directory with a part behind a link: only the link would be
// backed up, and the new version changes its target. A mount is fine: its content is backed
// up and restored.
func CheckWhole(dataDir string) error {
	at := layout.Data(dataDir)
	for _, path := range append([]string{string(at.Agent()), string(at.Server())}, datastore.Directories(at.Server())...) {
		info, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("inspect %s: %w", path, err)
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is a link, and its target could not be restored if the new version fails; stop lite, replace it with a directory and mount the target there (mount --bind)", path)
		}
	}
	return nil
}

// Begin copies what can be copied while lite runs.
func (m *Maker) Begin() error {
	dir := making(m.DataDir)
	if err := remove(dir); err != nil {
		return fmt.Errorf("clean up after an interrupted upgrade: %w", err)
	}
	agent := string(layout.Data("").Agent()) // some entries are in it
	for _, path := range []string{dir, filepath.Join(dir, keptEntries), filepath.Join(dir, keptEntries, agent),
		filepath.Join(dir, keptFiles), filepath.Join(dir, keptImages),
		filepath.Join(dir, keptDropped), filepath.Join(dir, keptDropped, agent)} {
		if err := os.Mkdir(path, 0o700); err != nil {
			return fmt.Errorf("back up the old version: %w", err)
		}
	}
	if err := file.Write(filepath.Join(dir, keptReserve), bytes.Repeat([]byte{0xff}, reserve), 0o600); err != nil {
		return fmt.Errorf("back up the old version: %w", err)
	}
	if err := linkOrCopy(m.Backup.Binary, filepath.Join(dir, keptBinary)); err != nil {
		return fmt.Errorf("back up the old program: %w", err)
	}
	for _, path := range m.Backup.Files {
		if err := copyBelow(filepath.Join(dir, keptFiles), path); err != nil {
			return fmt.Errorf("back up the configuration: %w", err)
		}
	}
	if m.Backup.Role == config.Server {
		server := string(layout.Data(m.DataDir).Server())
		if err := copyTree(server, filepath.Join(dir, keptEntries, filepath.Base(server)), early); err != nil {
			return fmt.Errorf("back up the datastore: %w", err)
		}
	}
	return nil
}

// Complete copies the rest. The caller makes sure that no lite runs.
func (m *Maker) Complete() error {
	dir := making(m.DataDir)
	m.Backup.Entries = entries(m.DataDir, m.Backup.Role)
	for _, name := range m.Backup.Entries {
		if err := copyTree(filepath.Join(m.DataDir, name), filepath.Join(dir, keptEntries, name), late); err != nil {
			return fmt.Errorf("back up %s: %w", filepath.Join(m.DataDir, name), err)
		}
	}
	if err := syncTree(dir); err != nil {
		return fmt.Errorf("back up the old version: %w", err)
	}
	m.Backup.Taken = time.Now().UTC()
	if err := m.Backup.write(dir); err != nil {
		return fmt.Errorf("back up the old version: %w", err)
	}
	if err := errors.Join(file.SyncDir(dir), m.exchange()); err != nil {
		return fmt.Errorf("back up the old version: %w", err)
	}
	return nil
}

func (b *Backup) write(dir string) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return file.Write(filepath.Join(dir, description), append(data, '\n'), 0o600)
}

// exchange replaces the previous backup with the new one.
func (m *Maker) exchange() error {
	if err := remove(former(m.DataDir)); err != nil {
		return err
	}
	if err := os.Rename(keptDir(m.DataDir), former(m.DataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(making(m.DataDir), keptDir(m.DataDir)); err != nil {
		return err
	}
	return file.SyncDir(m.DataDir)
}

// KeepImage backs up an image archive that one of the same name is about to replace.
func (m *Maker) KeepImage(name, path string) error {
	return linkOrCopy(path, filepath.Join(making(m.DataDir), keptImages, name))
}

// Withdraw restores the previous backup in place of an unused one: that is of the running version, and rolling
// back to it would only lose later changes. CleanUp, which has to follow, does the rest.
func Withdraw(dataDir string) error {
	if err := Spend(dataDir); err != nil {
		return err
	}
	if _, err := os.Lstat(former(dataDir)); err != nil {
		return nil
	}
	if err := remove(keptDir(dataDir)); err != nil {
		return fmt.Errorf("restore the previous backup: %w", err)
	}
	return nil
}

// CleanUp finishes an interrupted exchange, and removes incomplete backups.
func CleanUp(dataDir string) error {
	if _, err := os.Lstat(keptDir(dataDir)); errors.Is(err, fs.ErrNotExist) {
		// It was interrupted between the two renames of exchange.
		if err := os.Rename(former(dataDir), keptDir(dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(remove(making(dataDir)), remove(former(dataDir)))
}

// ReplaceProgram replaces the installed program with the staged one.
func ReplaceProgram(binary string) error {
	if err := os.Rename(layout.Staged(binary), binary); err != nil {
		return fmt.Errorf("replace the program: %w", err)
	}
	return file.SyncDir(filepath.Dir(binary))
}
