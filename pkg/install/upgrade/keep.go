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

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
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
	// Images is the archives that were unpacked for the newer version.
	Images []string `json:"images,omitempty"`
}

// Names in the directory of what is kept.
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

// readKept returns what is kept, nil if that is nothing or not complete.
func readKept(dataDir string) (*Kept, error) {
	path := filepath.Join(keptDir(dataDir), description)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the upgrade has kept: %w", err)
	}
	k := &Kept{}
	if err := json.Unmarshal(data, k); err != nil {
		return nil, fmt.Errorf("read what the upgrade has kept: %s: %w", path, err)
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

// entries are those of the names that make the node what it is that there are.
func entries(dataDir string, role config.Role) []string {
	return slices.DeleteFunc(layout.Data(dataDir).Identity(role == config.Server), func(name string) bool {
		_, err := os.Lstat(filepath.Join(dataDir, name))
		return err != nil
	})
}

// largestFile bounds what is taken for a file of the configuration.
const largestFile = 1 << 20

// mostLinks is how many links from one to the next are followed, as the kernel does.
const mostLinks = 40

// configuration finds the files that say how the node is to be, and the links that
// lead to them. What belongs to the installation is none of them: its inventory, the
// key of releases and the guard; and the kubeconfig is made at each start.
func configuration(cfg *config.Config) (files, dirs []string) {
	others := []string{cfg.WriteKubeconfig, standard.Config.Installed(), standard.Config.ReleaseKey(), standard.Config.Guard()}
	add := func(path string) {
		for range mostLinks {
			info, err := os.Lstat(path)
			if err != nil || slices.Contains(others, path) || slices.Contains(files, path) {
				return
			}
			if info.Mode().IsRegular() && info.Size() <= largestFile {
				files = append(files, path)
			}
			if info.Mode().Type() != fs.ModeSymlink {
				return
			}
			files = append(files, path)
			if path, err = follows(path); err != nil {
				return
			}
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
	for _, dir := range append([]string{string(standard.Config)}, dirs...) {
		found, _ := os.ReadDir(dir)
		for _, entry := range found {
			add(filepath.Join(dir, entry.Name()))
		}
	}
	return files, dirs
}

// follows is where a link leads to, one step.
func follows(link string) (string, error) {
	target, err := os.Readlink(link)
	if err != nil || filepath.IsAbs(target) {
		return target, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(link)) // what .. is there
	return filepath.Join(dir, target), err
}

// begin keeps what can be kept while lite runs.
func (k *keeper) begin() error {
	dir := making(k.dataDir)
	if err := remove(dir); err != nil {
		return fmt.Errorf("remove what an interrupted upgrade has left: %w", err)
	}
	agent := string(layout.Data("").Agent()) // some entries are in it
	for _, path := range []string{dir, filepath.Join(dir, keptEntries), filepath.Join(dir, keptEntries, agent), filepath.Join(dir, keptFiles), filepath.Join(dir, keptImages),
		filepath.Join(dir, keptDropped), filepath.Join(dir, keptDropped, agent)} {
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
		server := string(layout.Data(k.dataDir).Server())
		if err := copyTree(server, filepath.Join(dir, keptEntries, filepath.Base(server)), early); err != nil {
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
		if err := copyTree(filepath.Join(k.dataDir, name), filepath.Join(dir, keptEntries, name), late); err != nil {
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
	if err := remove(former(k.dataDir)); err != nil {
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
	if len(j.Images) > 0 {
		aside := making(dataDir)
		if _, err := os.Lstat(aside); err != nil {
			aside = keptDir(dataDir)
		}
		if err := dropImages(j.Images, imageDir(dataDir), filepath.Join(aside, keptImages)); err != nil {
			return err
		}
		j.Images = nil
		if err := j.write(dataDir); err != nil {
			return err
		}
	}
	k, err := readKept(dataDir)
	if err != nil || k == nil || k.Versions.Version != j.From || k.Taken.Before(j.Began) {
		return nil
	}
	if err := spend(dataDir); err != nil {
		return err
	}
	if _, err := os.Lstat(former(dataDir)); err != nil {
		return nil
	}
	if err := remove(keptDir(dataDir)); err != nil {
		return fmt.Errorf("put back what was kept before: %w", err)
	}
	return nil
}

// cleanUp removes what an upgrade leaves that came to its end, or never began.
func cleanUp(dataDir string, j *Journal) error {
	if _, err := os.Lstat(keptDir(dataDir)); errors.Is(err, fs.ErrNotExist) {
		// It ended between the two renames of exchange.
		if err := os.Rename(former(dataDir), keptDir(dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	errs := []error{remove(making(dataDir)), remove(former(dataDir))}
	for _, path := range []string{layout.Staged(j.Binary), layout.Data(dataDir).Download(), j.Guard} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what the upgrade has left: %w", err)
	}
	return nil
}

// swap puts the program that waits in the place of the one that is there.
func swap(binary string) error {
	if err := os.Rename(layout.Staged(binary), binary); err != nil {
		return fmt.Errorf("replace the program: %w", err)
	}
	return file.SyncDir(filepath.Dir(binary))
}

// restore makes the node again what was kept. Whatever moment it is interrupted
// at, it can be called again. But for the program and changed configuration,
// which are small or were there before, it only renames where that can be done:
// that works on a full disk.
func restore(dataDir string) error {
	dir := keptDir(dataDir)
	k, err := readKept(dataDir)
	if err != nil {
		return err
	}
	if k == nil {
		return fmt.Errorf("%s is not complete, so nothing can be put back", dir)
	}
	if err := makeRoom(dataDir); err != nil {
		return err
	}
	for _, name := range k.Entries {
		if err := putBack(dataDir, name); err != nil {
			return fmt.Errorf("put %s back: %w", filepath.Join(dataDir, name), err)
		}
	}
	server := layout.Data("").Server()
	if slices.Contains(k.Entries, string(server)) {
		store := server.Etcd()
		// Going back matters more than the other nodes' view of it, which heals
		// when they are restarted.
		if err := etcd.Advance(filepath.Join(dataDir, store), filepath.Join(dir, keptDropped, store)); err != nil {
			slog.Warn("Other nodes may not notice all that was put back until they are restarted", "err", err)
		}
	}
	if err := dropImages(k.Images, imageDir(dataDir), filepath.Join(dir, keptImages)); err != nil {
		return err
	}
	for _, path := range k.Files {
		if err := leave(path, restoreFile(dir, path)); err != nil {
			return fmt.Errorf("put %s back: %w", path, err)
		}
	}
	if err := k.setAside(dir); err != nil {
		return fmt.Errorf("put the configuration back: %w", err)
	}
	if err := linkOrCopy(filepath.Join(dir, keptBinary), layout.Staged(k.Binary)); err != nil {
		return fmt.Errorf("put the program back: %w", err)
	}
	return swap(k.Binary)
}

// makeRoom gives up what was set aside for a rollback on a full disk.
func makeRoom(dataDir string) error {
	if err := os.Remove(filepath.Join(keptDir(dataDir), keptReserve)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make room: %w", err)
	}
	return nil
}

// putBack exchanges an entry with the kept one. What is kept is gone once it is
// back.
func putBack(dataDir, name string) error {
	live := filepath.Join(dataDir, name)
	kept := filepath.Join(keptDir(dataDir), keptEntries, name)
	dropped := filepath.Join(keptDir(dataDir), keptDropped, name)
	if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(spent(kept))
	}
	mounts, err := mountsIn(live)
	if err != nil {
		return err
	}
	if len(mounts) == 0 {
		err := swapEntry(live, kept, dropped)
		// An overlay may refuse to rename a directory, and so do some file systems
		// with quotas or volumes of their own.
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	// Renamed, a mount would be with what is dropped, and come back at the next boot,
	// over what was put back.
	return copyBack(live, kept, dropped)
}

func swapEntry(live, kept, dropped string) error {
	if _, err := os.Lstat(dropped); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(live, dropped); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := remove(live); err != nil {
		return err
	}
	if err := os.Rename(kept, live); err != nil {
		return err
	}
	return errors.Join(file.SyncDir(filepath.Dir(live)), file.SyncDir(filepath.Dir(dropped)))
}

// spent is where a kept entry is that was copied back, until it is removed. A name
// of its own, as the half of what was kept must not be taken for the whole.
func spent(kept string) string { return kept + ".spent" }

// copyBack is swapEntry where nothing can be renamed.
func copyBack(live, kept, dropped string) error {
	if err := copyAside(live, dropped); err != nil {
		return err
	}
	// First, as there may be no room.
	if err := prune(kept, live); err != nil {
		return err
	}
	if err := copyTree(kept, live, back); err != nil {
		return err
	}
	if err := errors.Join(syncTree(live), file.SyncDir(filepath.Dir(live))); err != nil {
		return err
	}
	if err := os.Rename(kept, spent(kept)); err != nil {
		return err
	}
	return errors.Join(file.SyncDir(filepath.Dir(kept)), os.RemoveAll(spent(kept)))
}

// copyAside keeps what is dropped, if there is room: to go back matters more.
func copyAside(live, dropped string) error {
	if _, err := os.Lstat(dropped); !errors.Is(err, fs.ErrNotExist) {
		return err // what is there now is not what the newer version had
	}
	if _, err := os.Lstat(live); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	part := dropped + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	err := copyTree(live, part, late)
	if err == nil {
		err = syncTree(part)
	}
	if err != nil {
		slog.Warn("What the newer version had is not kept", "path", live, "err", err)
		if err := os.RemoveAll(part); err != nil {
			return err
		}
		if err := os.Mkdir(part, 0o700); err != nil {
			return err
		}
	}
	if err := os.Rename(part, dropped); err != nil {
		return err
	}
	return file.SyncDir(filepath.Dir(dropped))
}

// leave lets a rollback go on where somebody has seen to it that a file of the user's
// stays as it is.
func leave(path string, err error) error {
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		slog.Warn("Left as it is, as it cannot be changed", "path", path, "err", err)
		return nil
	}
	return err
}

// restoreFile makes a file of the configuration, or a link to one, what it was.
func restoreFile(dir, path string) error {
	kept := below(filepath.Join(dir, keptFiles), path)
	info, err := os.Lstat(kept)
	if err != nil {
		return err
	}
	if same, err := alike(kept, path); err != nil || same {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		if err := copyBelow(filepath.Join(dir, keptDropped, keptFiles), path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// Files with a dot before their name are not read.
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".rollback")
	if err := copyEntry(kept, part, info); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return file.SyncDir(filepath.Dir(path))
}

// setAside takes away files that came since: the old version may not know what
// they say.
func (k *Kept) setAside(dir string) error {
	for _, d := range k.Dirs {
		found, _ := os.ReadDir(d)
		for _, entry := range found {
			path := filepath.Join(d, entry.Name())
			if t := entry.Type(); t != 0 && t != fs.ModeSymlink || slices.Contains(k.Files, path) {
				continue
			}
			if err := copyBelow(filepath.Join(dir, keptDropped, keptFiles), path); err != nil {
				return err
			}
			if err := leave(path, os.Remove(path)); err != nil {
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
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	to := below(dir, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return copyEntry(path, to, info)
}
