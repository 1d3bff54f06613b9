package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheckDevices puts onto a machine what containerd reads for descriptions of devices.
func TestCheckDevices(t *testing.T) {
	file := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	link := func(to string) func(string) error { return func(path string) error { return os.Symlink(to, path) } }
	pipe := func(path string) error { return unix.Mkfifo(path, 0o600) }
	for name, test := range map[string]struct {
		path string
		make func(string) error
		want string
	}{
		"one that is right":      {"/etc/cdi/a.yaml", file("cdiVersion: 0.6.0\nkind: a.test/a\ndevices: []\n"), ""},
		"garbage":                {"/etc/cdi/a.yaml", file("\x00{{{"), ""}, // containerd reports it
		"a pipe":                 {"/etc/cdi/a.yaml", pipe, "CDI specification /etc/cdi/a.yaml: is a named pipe and not a file: containerd would wait for it; remove it"},
		"a pipe in the other":    {"/var/run/cdi/a.json", pipe, "/var/run/cdi/a.json: is a named pipe"},
		"a pipe that is no such": {"/etc/cdi/a.conf", pipe, ""},
		"a link to a device":     {"/etc/cdi/a.json", link("/dev/zero"), "/etc/cdi/a.json: is a device and not a file"},
		"a link to nothing":      {"/etc/cdi/a.json", link("nowhere"), ""},
		"a loop":                 {"/etc/cdi/a.json", link("a.json"), ""},
		"a directory":            {"/etc/cdi/a.yaml", func(path string) error { return os.Mkdir(path, 0o700) }, ""},
		"a link to a directory":  {"/etc/cdi/a.yaml", link("/"), ""},
		"far too large": {"/etc/cdi/a.yaml", func(path string) error {
			return errors.Join(file("")(path), os.Truncate(path, 1<<40))
		}, "/etc/cdi/a.yaml: has 1048576 MiB"},
	} {
		root := t.TempDir()
		path := filepath.Join(root, test.path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), test.make(path)); err != nil {
			t.Fatal(err)
		}
		err := CheckDevices(root)
		if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := CheckDevices(t.TempDir()); err != nil {
		t.Errorf("without any: %v", err)
	}
}
