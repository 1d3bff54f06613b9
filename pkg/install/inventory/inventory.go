// Package inventory reads and writes what was put on the machine when lite was installed. It is a file with one path
// per line, of a directory with a slash at its end. A path is listed before it is created, so that uninstall finds
// whatever a run that was killed has created. Each path is checked when it is read, since root may have edited the
// file: see [Path].
package inventory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Inventory is the lines of the file.
type Inventory []string

// Read returns nothing if there is no such file.
func Read(file string) (Inventory, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return line == "" }), nil
}

// Has reports whether a path was put there by lite.
func (i Inventory) Has(path string) bool { return slices.Contains(i, path) }

// Text is what the file holds.
func (i Inventory) Text() []byte {
	if len(i) == 0 {
		return nil
	}
	return []byte(strings.Join(i, "\n") + "\n")
}

// Path is what a line names. It is not ok if lite cannot have written the line: then nothing there is lite's.
func Path(line string) (path string, isDir, ok bool) {
	path, isDir = strings.CutSuffix(line, "/")
	return path, isDir, filepath.IsAbs(path) && filepath.Clean(path) == path
}
