// Package file writes files so that a crash leaves the old one or the new one, reads
// those of users, and removes trees without following a link or entering a mount.
package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Passable is the mode of a directory that others may pass through, to what is open
// to them below, without seeing what is there. All else below has to be closed itself.
const Passable fs.FileMode = 0o711

// Write replaces the file at path: what is new is synced to the disk under
// another name in the same directory, then renamed. Its mode is mode, whatever
// that of the old file and the umask. Left to itself, renameio would choose the
// system's directory for temporary files where that is on the same file system:
// secrets have no business there, and who watches the directory may miss a file
// that is moved in from elsewhere (containerd 2.4 does).
func Write(path string, data []byte, mode fs.FileMode) error {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// ErrIrregular is that something else is where a file should be.
var ErrIrregular = errors.New("is not a regular file")

// ReadRegular reads a file that a user names, or what a link leads to. Reading a FIFO
// would wait for somebody to write, deaf to signals, and a device might never end.
func ReadRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrIrregular
	}
	return os.ReadFile(path)
}
