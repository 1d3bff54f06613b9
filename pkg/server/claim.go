package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/file"
)

// Claim makes this process the only one that works in a data directory, until
// the claim is closed or the process ends, however it ends.
func Claim(dataDir, version string) (io.Closer, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make data-dir: %w", err)
	}
	f, err := os.OpenFile(lockFile(dataDir), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claim data-dir: %w", err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := record(f, dataDir, version); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// record writes down who has the lock, and who used the data last.
func record(lock *os.File, dataDir, version string) error {
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("claim data-dir: %w", err)
	}
	if _, err := fmt.Fprintf(lock, "%d\n", os.Getpid()); err != nil {
		return fmt.Errorf("claim data-dir: %w", err)
	}
	return recordVersion(dataDir, version)
}

// recordVersion remembers who used the data last. A build without a version has
// nothing to say that a later start could compare.
func recordVersion(dataDir, version string) error {
	if _, err := utilversion.ParseSemantic(version); err != nil {
		return nil
	}
	if err := file.Write(versionFile(dataDir), []byte(version+"\n"), 0o600); err != nil {
		return fmt.Errorf("record the version: %w", err)
	}
	return nil
}

// CheckClaim says what Claim would refuse, without touching anything: that
// another process works in the directory, or that a newer lite has.
func CheckClaim(dataDir, version string) error {
	f, err := os.Open(lockFile(dataDir))
	if err == nil {
		defer f.Close()
		if err := lock(f); err != nil {
			return err
		}
	}
	return CheckVersion(dataDir, version)
}

// CheckVersion refuses data of a newer lite, whether one runs or not.
func CheckVersion(dataDir, version string) error {
	data, err := os.ReadFile(versionFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the version of data-dir: %w", err)
	}
	return checkVersion(dataDir, strings.TrimSpace(string(data)), version)
}

// checkVersion refuses data that a newer minor version may have changed the
// form of.
func checkVersion(dataDir, theirs, ours string) error {
	was, err := utilversion.ParseSemantic(theirs)
	if err != nil {
		return fmt.Errorf("%s holds %q, which is no version; restore it from a backup", versionFile(dataDir), theirs)
	}
	now, err := utilversion.ParseSemantic(ours)
	if err != nil {
		return nil // a build without a version, on its developer's machine
	}
	if was.Major() > now.Major() || was.Major() == now.Major() && was.Minor() > now.Minor() {
		return fmt.Errorf("data-dir %s was last used by lite %s, this is %s; use that version or a newer one", dataDir, theirs, ours)
	}
	return nil
}

// lock takes the lock of a data directory or names who has it.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	holder := "another process"
	data := make([]byte, 20)
	if n, _ := f.ReadAt(data, 0); n > 0 {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data[:n]))); err == nil {
			holder = fmt.Sprintf("pid %d", pid)
		}
	}
	return fmt.Errorf("lite is already running on %s (%s); stop it first or choose another --data-dir", filepath.Dir(f.Name()), holder)
}

func lockFile(dataDir string) string    { return filepath.Join(dataDir, "lite.lock") }
func versionFile(dataDir string) string { return filepath.Join(dataDir, "version") }
