package inventory

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "installed")
	if i, err := Read(file); err != nil || len(i) != 0 || i.Text() != nil {
		t.Errorf("no file: %q, %v", i, err)
	}
	const text = "/usr/local/bin/lite\n/opt/lite/\n"
	if err := os.WriteFile(file, []byte("\n"+text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := Read(file)
	if err != nil || !slices.Equal(i, Inventory{"/usr/local/bin/lite", "/opt/lite/"}) || string(i.Text()) != text {
		t.Errorf("%q, %v", i, err)
	}
	if !i.Has("/usr/local/bin/lite") || i.Has("/opt/lite") || i.Has("") {
		t.Error("it has other paths than those of its lines")
	}
	if _, err := Read(filepath.Dir(file)); err == nil {
		t.Error("a directory was read")
	}
}

func TestPath(t *testing.T) {
	for line, want := range map[string]struct {
		path      string
		isDir, ok bool
	}{
		"/a/b":   {"/a/b", false, true},
		"/a/b/":  {"/a/b", true, true},
		"a":      {"a", false, false},
		"/a/../": {"/a/..", true, false},
		"/a//b":  {"/a//b", false, false},
		"/":      {"", true, false},
		"../../": {"../..", true, false},
	} {
		path, isDir, ok := Path(line)
		if path != want.path || isDir != want.isDir || ok != want.ok {
			t.Errorf("%q: %q, %v, %v", line, path, isDir, ok)
		}
	}
}
