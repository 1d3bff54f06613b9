package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// Claim makes this process the only one that works in a data directory, until
// the claim is closed or the process ends, however it ends.
func Claim(dataDir, version string) (io.Closer, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("create data-dir: %w", err)
	}
	hold, err := service.Claim(dataDir)
	if err != nil {
		return nil, err
	}
	if err := recordVersion(dataDir, version); err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	return hold, nil
}

// recordVersion remembers who used the data last. A build without a version has
// nothing to say that a later start could compare.
func recordVersion(dataDir, version string) error {
	if _, err := utilversion.ParseSemantic(version); err != nil {
		return nil
	}
	if err := file.Write(layout.Data(dataDir).Version(), []byte(version+"\n"), 0o600); err != nil {
		return fmt.Errorf("record the version: %w", err)
	}
	return nil
}

// CheckClaim says what Claim would refuse, without touching anything: that
// another process works in the directory, or that a newer lite has.
func CheckClaim(dataDir, version string) error {
	if err := service.CheckClaim(dataDir); err != nil {
		return err
	}
	return CheckVersion(dataDir, version)
}

// CheckVersion refuses data of a newer lite, whether one runs or not.
func CheckVersion(dataDir, version string) error {
	data, err := os.ReadFile(layout.Data(dataDir).Version())
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
		return fmt.Errorf("%s contains %q, which is not a version; restore it from a backup", layout.Data(dataDir).Version(), theirs)
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
