// Package helpers holds the programs that lite runs, compressed inside the lite binary.
//
// Those that run once per pod are programs of their own because they are started often: the lite binary itself takes
// 70 ms and tens of MB to start, these take 3 ms. Those that write packet filter rules are there for machines that have
// none. scripts/build/bundle makes the archive.
package helpers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

const (
	archiveFile = "bundle.tar.zst"
	sumFile     = archiveFile + ".sha256"  // of the archive, so that a start need not read the archive
	embedded    = "data/" + runtime.GOARCH // one directory per architecture, so that builds for two do not mix
	tempPrefix  = ".unpack-"
	lockFile    = ".lock"
)

// At returns the directory that Unpack(dataDir) will return, without touching anything.
func At(dataDir string) (layout.Helpers, error) {
	files, err := fs.Sub(data, embedded)
	if err != nil {
		return "", err
	}
	digest, err := checksum(files)
	return layout.Data(dataDir).Helpers(digest), err
}

// Unpack makes the helpers usable under dataDir/bundle/<sha256 of the archive> and returns that directory. What is there
// and whole is left alone, what is damaged is replaced. Directories of other versions stay, because shims that outlived
// an upgrade still run from them.
func Unpack(dataDir string) (layout.Helpers, error) {
	files, err := fs.Sub(data, embedded)
	if err != nil {
		return "", err
	}
	return unpackInto(files, layout.Data(dataDir).Bundles())
}

func unpackInto(files fs.FS, parent string) (layout.Helpers, error) {
	digest, err := checksum(files)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("unpack helper programs: %w", err)
	}
	unlock, err := lock(filepath.Join(parent, lockFile))
	if err != nil {
		return "", fmt.Errorf("unpack helper programs: %w", err)
	}
	defer unlock()
	if err := removeTemp(parent); err != nil {
		return "", fmt.Errorf("remove what was half unpacked: %w", err)
	}
	dir := filepath.Join(parent, digest)
	if whole(dir) {
		return layout.Helpers(dir), nil
	}
	temp, err := os.MkdirTemp(parent, tempPrefix)
	if err != nil {
		return "", fmt.Errorf("unpack helper programs: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := extract(files, digest, temp); err != nil {
		return "", fmt.Errorf("unpack helper programs into %s: %w", temp, err)
	}
	if err := replace(temp, dir); err != nil {
		return "", fmt.Errorf("unpack helper programs into %s: %w", dir, err)
	}
	return layout.Helpers(dir), nil
}

// checksum is the SHA-256 of the archive, in hexadecimal.
func checksum(files fs.FS) (string, error) {
	sum, err := fs.ReadFile(files, sumFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("this binary was built without its helper programs: run `make build`")
	}
	if err != nil {
		return "", fmt.Errorf("read the checksum of the helper programs: %w", err)
	}
	return strings.TrimSpace(string(sum)), nil
}

// lock keeps a second process from taking a directory that is being filled for a leftover.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func removeTemp(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace puts temp in dir's place. A damaged dir is moved away rather than written to: a program that runs from it goes
// on unharmed. If the machine stops between the two renames, the next start unpacks again.
func replace(temp, dir string) error {
	broken := temp + "-broken"
	err := os.Rename(dir, broken)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer os.RemoveAll(broken)
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return file.SyncDir(filepath.Dir(dir))
}
