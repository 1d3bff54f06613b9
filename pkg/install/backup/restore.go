package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// RemoveImages removes image archives that were added while a Backup was made, and restores those of the same
// names that KeepImage has backed up, whether the Backup is complete or not.
func RemoveImages(dataDir string, names []string) error {
	aside := making(dataDir)
	if _, err := os.Lstat(aside); err != nil {
		aside = keptDir(dataDir)
	}
	return removeImages(dataDir, names, aside)
}

func removeImages(dataDir string, names []string, aside string) error {
	for _, name := range names {
		kept, to := filepath.Join(aside, keptImages, name), filepath.Join(layout.Data(dataDir).Agent().Images(), name)
		if _, err := os.Lstat(kept); err == nil {
			if err := linkOrCopy(kept, to); err != nil {
				return fmt.Errorf("restore the images %s: %w", name, err)
			}
		} else if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the images %s: %w", name, err)
		}
	}
	return nil
}

// Restore restores the node from a Backup. It can be called again whenever it was
// interrupted. Except for the program and changed configuration, which are small or existed
// before, it only renames where possible: that works on a full disk.
func Restore(dataDir string) error {
	dir := keptDir(dataDir)
	b, err := Read(dataDir)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("the backup in %s is incomplete, so nothing can be restored", dir)
	}
	if err := MakeRoom(dataDir); err != nil {
		return err
	}
	if err := b.decide(dataDir); err != nil {
		return fmt.Errorf("restore the datastore: %w", err)
	}
	for _, name := range b.Entries {
		if err := b.restoreEntry(dataDir, name); err != nil {
			return fmt.Errorf("restore %s: %w", filepath.Join(dataDir, name), err)
		}
	}
	if err := removeImages(dataDir, b.Images, dir); err != nil {
		return err
	}
	for _, path := range b.Files {
		if err := leave(path, restoreFile(dir, path)); err != nil {
			return fmt.Errorf("restore %s: %w", path, err)
		}
	}
	if err := b.setAside(dir); err != nil {
		return fmt.Errorf("restore the configuration: %w", err)
	}
	if err := linkOrCopy(filepath.Join(dir, keptBinary), layout.Staged(b.Binary)); err != nil {
		return fmt.Errorf("restore the program: %w", err)
	}
	return ReplaceProgram(b.Binary)
}

// MakeRoom frees the space that was reserved for a rollback on a full disk.
func MakeRoom(dataDir string) error {
	if err := os.Remove(filepath.Join(keptDir(dataDir), keptReserve)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("free space: %w", err)
	}
	return nil
}

// restoreEntry exchanges an entry with the one in the backup, which is gone once it is restored.
func restoreEntry(dataDir, name string) error {
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
		// Overlayfs may refuse to rename a directory, as do some file systems with quotas
		// or subvolumes.
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	// A renamed mount would be with what is dropped, and come back at the next boot, over
	// what was restored.
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

// spent is the name of an entry that was copied back, until it is removed. It has another
// name because a half of what was backed up must not be taken for the whole.
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

// copyAside keeps what is dropped if there is room: the rollback matters more.
func copyAside(live, dropped string) error {
	if _, err := os.Lstat(dropped); !errors.Is(err, fs.ErrNotExist) {
		return err // what is there now is not the newer version's
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
		slog.Warn("Cannot back up the data of the newer version", "path", live, "err", err)
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

// leave lets a rollback continue with a file of the user's that cannot be changed, because
// somebody has protected it.
func leave(path string, err error) error {
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		slog.Warn("Not restored, because it cannot be changed", "path", path, "err", err)
		return nil
	}
	return err
}

// restoreFile restores a file of the configuration, or a link to one.
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

// setAside moves files away that were added since: the old version may not understand them.
func (b *Backup) setAside(dir string) error {
	for _, d := range b.Dirs {
		found, _ := os.ReadDir(d)
		for _, entry := range found {
			path := filepath.Join(d, entry.Name())
			if t := entry.Type(); t != 0 && t != fs.ModeSymlink || slices.Contains(b.Files, path) {
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

// Spend records that the backup was used, so that it no longer counts as one.
func Spend(dataDir string) error {
	if err := os.Remove(filepath.Join(keptDir(dataDir), description)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record that the backup is restored: %w", err)
	}
	return file.SyncDir(keptDir(dataDir))
}
