package upgrade

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/version"
)

// Kept is what an upgrade keeps aside: all that is needed to be again what the
// node was. It is on the disk in one directory, complete once this description
// of it is there.
type Kept struct {
	Versions version.Info `json:"versions"`
	Role     config.Role  `json:"role"`
	Binary   string       `json:"binary"` // where the program belongs
	Taken    time.Time    `json:"taken"`
	// Entries are names in the data directory.
	Entries []string `json:"entries"`
	// Files are paths of the configuration; Dirs are directories in which every
	// file is read, so that one too many matters too.
	Files []string `json:"files"`
	Dirs  []string `json:"dirs"`
}

// Names in the directory of what is kept.
const (
	keptBinary  = "lite"
	keptEntries = "data"
	keptFiles   = "files"
	keptDropped = "dropped" // what the newer version has made of the entries
	keptReserve = "reserve" // room for what a rollback has to write on a full disk
	description = "kept.json"
)

// reserve is far more than a journal takes.
const reserve = 1 << 20

func keptDir(dataDir string) string { return filepath.Join(dataDir, "rollback") }

// making is where it is made, so that what the upgrade before has kept stays
// until this is complete.
func making(dataDir string) string { return keptDir(dataDir) + ".new" }

// former is where what was kept before is for the moment of the exchange.
func former(dataDir string) string { return keptDir(dataDir) + ".old" }

// ReadKept returns what is kept, nil if that is nothing or not complete.
func ReadKept(dataDir string) (*Kept, error) { return readKept(keptDir(dataDir)) }

func readKept(dir string) (*Kept, error) {
	data, err := os.ReadFile(filepath.Join(dir, description))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the upgrade has kept: %w", err)
	}
	k := &Kept{}
	if err := json.Unmarshal(data, k); err != nil {
		return nil, fmt.Errorf("read what the upgrade has kept: %s: %w", filepath.Join(dir, description), err)
	}
	return k, nil
}

// keeper makes a Kept.
type keeper struct {
	dataDir string
	kept    Kept
}

func newKeeper(cfg *config.Config, binary string) *keeper {
	k := &keeper{dataDir: cfg.DataDir, kept: Kept{Versions: version.Get(), Role: cfg.Role, Binary: binary}}
	k.kept.Files, k.kept.Dirs = configuration(cfg)
	return k
}

// entries are the names in the data directory that make the node what it is. Of
// what an agent has they are what its own start reads and writes; its key and
// its certificate are renewed by the kubelet and stay as they are.
func entries(dataDir string, role config.Role) []string {
	names := []string{"node-name", "version"}
	if role == config.Server {
		names = append(names, "server")
	}
	for _, name := range []string{"cluster.json", "ca.crt", "joined.conf", "kubelet.conf", "servers.json", "overlay.key"} {
		names = append(names, filepath.Join("agent", name))
	}
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Lstat(filepath.Join(dataDir, name))
		return err != nil
	})
}

// largestFile bounds what is taken for a file of the configuration.
const largestFile = 1 << 20

// configuration finds the files that say how the node is to be. The inventory of
// the installation is none of them, and the kubeconfig is made at each start.
func configuration(cfg *config.Config) (files, dirs []string) {
	const etc = "/etc/lite"
	add := func(path string) {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Size() <= largestFile && path != cfg.WriteKubeconfig &&
			path != filepath.Join(etc, "installed") && !slices.Contains(files, path) {
			files = append(files, path)
		}
	}
	absolute, err := filepath.Abs(cfg.ConfigFile)
	if err == nil {
		dirs = append(dirs, absolute+".d")
		add(absolute)
	}
	add(cfg.PrivateRegistry)
	if cfg.AuditPolicyFile != "" {
		add(cfg.AuditPolicyFile)
	}
	for _, dir := range append([]string{etc}, dirs...) {
		found, _ := os.ReadDir(dir)
		for _, entry := range found {
			add(filepath.Join(dir, entry.Name()))
		}
	}
	return files, dirs
}

// begin keeps what can be kept while lite runs.
func (k *keeper) begin() error {
	dir := making(k.dataDir)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove what an interrupted upgrade has left: %w", err)
	}
	for _, path := range []string{dir, filepath.Join(dir, keptEntries), filepath.Join(dir, keptEntries, "agent"), filepath.Join(dir, keptFiles),
		filepath.Join(dir, keptDropped), filepath.Join(dir, keptDropped, "agent")} {
		if err := os.Mkdir(path, 0o700); err != nil {
			return fmt.Errorf("keep the old version: %w", err)
		}
	}
	if err := file.Write(filepath.Join(dir, keptReserve), bytes.Repeat([]byte{0xff}, reserve), 0o600); err != nil {
		return fmt.Errorf("keep the old version: %w", err)
	}
	if err := linkOrCopy(k.kept.Binary, filepath.Join(dir, keptBinary)); err != nil {
		return fmt.Errorf("keep the old program: %w", err)
	}
	for _, path := range k.kept.Files {
		if err := copyBelow(filepath.Join(dir, keptFiles), path); err != nil {
			return fmt.Errorf("keep the configuration: %w", err)
		}
	}
	if k.kept.Role == config.Server {
		if err := copyTree(filepath.Join(k.dataDir, "server"), filepath.Join(dir, keptEntries, "server"), true); err != nil {
			return fmt.Errorf("keep the datastore: %w", err)
		}
	}
	return nil
}

// complete keeps the rest. The caller sees to it that no lite runs.
func (k *keeper) complete() error {
	dir := making(k.dataDir)
	k.kept.Entries = entries(k.dataDir, k.kept.Role)
	for _, name := range k.kept.Entries {
		if err := copyTree(filepath.Join(k.dataDir, name), filepath.Join(dir, keptEntries, name), false); err != nil {
			return fmt.Errorf("keep %s: %w", filepath.Join(k.dataDir, name), err)
		}
	}
	if err := syncTree(dir); err != nil {
		return fmt.Errorf("keep the old version: %w", err)
	}
	k.kept.Taken = time.Now().UTC()
	data, err := json.MarshalIndent(k.kept, "", "  ")
	if err != nil {
		return fmt.Errorf("keep the old version: %w", err)
	}
	if err := file.Write(filepath.Join(dir, description), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the old version: %w", err)
	}
	if err := errors.Join(file.SyncDir(dir), k.exchange()); err != nil {
		return fmt.Errorf("keep the old version: %w", err)
	}
	return nil
}

// exchange puts what was made in the place of what was kept before.
func (k *keeper) exchange() error {
	if err := os.RemoveAll(former(k.dataDir)); err != nil {
		return err
	}
	if err := os.Rename(keptDir(k.dataDir), former(k.dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(making(k.dataDir), keptDir(k.dataDir)); err != nil {
		return err
	}
	return file.SyncDir(k.dataDir)
}

// takeBack puts what was kept before in the place of what an upgrade has kept that
// never began: that is of the version that runs, and going back to it would only
// lose what was changed since. cleanUp, which has to follow, does the rest.
func takeBack(dataDir string, j *Journal) error {
	k, err := ReadKept(dataDir)
	if err != nil || k == nil || k.Versions.Version != j.From || k.Taken.Before(j.Began) {
		return nil
	}
	if err := spend(dataDir); err != nil {
		return err
	}
	if _, err := os.Lstat(former(dataDir)); err != nil {
		return nil
	}
	if err := os.RemoveAll(keptDir(dataDir)); err != nil {
		return fmt.Errorf("put back what was kept before: %w", err)
	}
	return nil
}

// cleanUp removes what an upgrade leaves that came to its end, or never began.
func cleanUp(dataDir, binary string) error {
	if _, err := os.Lstat(keptDir(dataDir)); errors.Is(err, fs.ErrNotExist) {
		// It ended between the two renames of exchange.
		if err := os.Rename(former(dataDir), keptDir(dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	errs := []error{os.RemoveAll(making(dataDir)), os.RemoveAll(former(dataDir))}
	for _, path := range []string{staged(binary), filepath.Join(dataDir, "upgrade.download"), guard} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what the upgrade has left: %w", err)
	}
	return nil
}

// staged is where a program waits beside the one that it is to replace.
func staged(binary string) string {
	return filepath.Join(filepath.Dir(binary), "."+filepath.Base(binary)+".upgrade")
}

// swap puts the program that waits in the place of the one that is there.
func swap(binary string) error {
	if err := os.Rename(staged(binary), binary); err != nil {
		return fmt.Errorf("replace the program: %w", err)
	}
	return file.SyncDir(filepath.Dir(binary))
}

// restore makes the node again what was kept. Whatever moment it is interrupted
// at, it can be called again. But for the program and changed configuration,
// which are small or were there before, it only renames: that works on a full
// disk.
func restore(dataDir string) error {
	dir := keptDir(dataDir)
	k, err := ReadKept(dataDir)
	if err != nil {
		return err
	}
	if k == nil {
		return fmt.Errorf("%s is not complete, so nothing can be put back", dir)
	}
	if err := os.Remove(filepath.Join(dir, keptReserve)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make room: %w", err)
	}
	for _, name := range k.Entries {
		if err := putBack(dataDir, name); err != nil {
			return fmt.Errorf("put %s back: %w", filepath.Join(dataDir, name), err)
		}
	}
	if slices.Contains(k.Entries, "server") {
		const store = "server/etcd"
		// Going back matters more than the other nodes' view of it, which heals
		// when they are restarted.
		if err := etcd.Advance(filepath.Join(dataDir, store), filepath.Join(dir, keptDropped, store)); err != nil {
			slog.Warn("Other nodes may not notice all that was put back until they are restarted", "err", err)
		}
	}
	for _, path := range k.Files {
		if err := restoreFile(dir, path); err != nil {
			return fmt.Errorf("put %s back: %w", path, err)
		}
	}
	if err := k.setAside(dir); err != nil {
		return fmt.Errorf("put the configuration back: %w", err)
	}
	if err := linkOrCopy(filepath.Join(dir, keptBinary), staged(k.Binary)); err != nil {
		return fmt.Errorf("put the program back: %w", err)
	}
	return swap(k.Binary)
}

// putBack exchanges an entry with the kept one. What is kept is gone once it is
// back.
func putBack(dataDir, name string) error {
	live := filepath.Join(dataDir, name)
	kept := filepath.Join(keptDir(dataDir), keptEntries, name)
	dropped := filepath.Join(keptDir(dataDir), keptDropped, name)
	if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(dropped); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(live, dropped); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := os.RemoveAll(live); err != nil {
		return err
	}
	if err := os.Rename(kept, live); err != nil {
		return err
	}
	return errors.Join(file.SyncDir(filepath.Dir(live)), file.SyncDir(filepath.Dir(dropped)))
}

// restoreFile writes a file of the configuration as it was, if it has changed.
func restoreFile(dir, path string) error {
	kept := below(filepath.Join(dir, keptFiles), path)
	want, err := os.ReadFile(kept)
	if err != nil {
		return err
	}
	info, err := os.Stat(kept)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(path)
	if err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err == nil {
		if err := copyBelow(filepath.Join(dir, keptDropped, keptFiles), path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return file.Write(path, want, info.Mode().Perm())
}

// setAside takes away files that came since: the old version may not know what
// they say.
func (k *Kept) setAside(dir string) error {
	for _, d := range k.Dirs {
		found, _ := os.ReadDir(d)
		for _, entry := range found {
			path := filepath.Join(d, entry.Name())
			if !entry.Type().IsRegular() || slices.Contains(k.Files, path) {
				continue
			}
			if err := copyBelow(filepath.Join(dir, keptDropped, keptFiles), path); err != nil {
				return err
			}
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// spend notes that what was kept is in use again, so that it is kept no more.
func spend(dataDir string) error {
	if err := os.Remove(filepath.Join(keptDir(dataDir), description)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that what was kept is back: %w", err)
	}
	return file.SyncDir(keptDir(dataDir))
}

// below is where a file of the machine is kept below a directory.
func below(dir, path string) string {
	return filepath.Join(dir, strings.TrimPrefix(path, "/"))
}

func copyBelow(dir, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	to := below(dir, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return copyFile(path, to, info)
}
