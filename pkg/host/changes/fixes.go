package changes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// Fix is something that `lite check --fix` has done. Undo takes it back, as a
// line for a shell, and does nothing if that has been done already.
type Fix struct {
	Did  string `json:"did"`
	Undo string `json:"undo"`
}

// NoteFix writes a Fix down, once, in the directory of configuration; call it
// before it is done.
func NoteFix(configDir layout.Config, f Fix) error {
	all, err := Fixes(configDir)
	if err != nil {
		return err
	}
	if slices.Contains(all, f) {
		return nil
	}
	// The directory may hold secrets later; the modes are those of the installer.
	if err := os.MkdirAll(string(configDir), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", configDir, err)
	}
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	lines.SetEscapeHTML(false)
	for _, one := range append(all, f) {
		if err := lines.Encode(one); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Base(configDir.Fixes()), err)
		}
	}
	return file.Write(configDir.Fixes(), text.Bytes(), 0o600)
}

// Fixes is what was written down, the first first.
func Fixes(configDir layout.Config) (all []Fix, err error) {
	path := configDir.Fixes()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for lines := json.NewDecoder(bytes.NewReader(data)); lines.More(); {
		var f Fix
		if err := lines.Decode(&f); err != nil {
			return nil, fmt.Errorf("read %s: %w; undo by hand what it lists, and remove it", path, err)
		}
		all = append(all, f)
	}
	return all, nil
}
