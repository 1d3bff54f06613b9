package service

import (
	"os"
	"path/filepath"
	"testing"

	"lite.io/lite/pkg/layout"
)

func TestTheUnitOfAnEarlierInstallerIsClosed(t *testing.T) {
	const path = "/etc/systemd/system/lite.service"
	for name, test := range map[string]struct {
		installed string // "" = there is no such list
		mode      os.FileMode
		want      os.FileMode
	}{
		"open":            {"/usr/local/bin/lite\n" + path + "\n", 0o644, 0o600},
		"writable":        {path + "\n", 0o664, 0o600},
		"closed":          {path + "\n", 0o600, 0o600},
		"of somebody":     {"/usr/local/bin/lite\n" + path + ".d/mine.conf\n", 0o644, 0o644},
		"not installed":   {"", 0o644, 0o644},
		"there is no one": {path + "\n", 0, 0},
	} {
		root := t.TempDir()
		unit, list := filepath.Join(root, path), filepath.Join(root, "etc/lite/installed")
		for _, dir := range []string{filepath.Dir(unit), filepath.Dir(list)} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if test.installed != "" {
			if err := os.WriteFile(list, []byte(test.installed), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if test.mode != 0 {
			if err := os.WriteFile(unit, []byte("[Unit]\n"), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(unit, test.mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := machineAt(root, nil).closeUnit(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(unit); test.want != 0 && (err != nil || info.Mode().Perm() != test.want) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// A link leads to a file that is not the installer's.
func TestAUnitThatIsALinkStays(t *testing.T) {
	root := t.TempDir()
	unit, other := filepath.Join(root, layout.Default().Host.SystemdUnit), filepath.Join(root, "other")
	for path, content := range map[string]string{other: "", filepath.Join(root, "etc/lite/installed"): layout.Default().Host.SystemdUnit + "\n", filepath.Join(filepath.Dir(unit), "x"): ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, unit); err != nil {
		t.Fatal(err)
	}
	if err := machineAt(root, nil).closeUnit(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
}
