package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStamp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	at := time.Unix(1700000000, 0)
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	stamp := func() Stamp {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return StampOf(info)
	}
	put(path, "one")
	first := stamp()
	if first == (Stamp{}) || first != stamp() {
		t.Errorf("the same file: %v, %v", first, stamp())
	}
	put(path+".new", "two") // of the same size and time
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if first == stamp() {
		t.Error("another file in its place has the same stamp")
	}
	second := stamp()
	put(path, "longer")
	if second == stamp() {
		t.Error("a longer file has the same stamp")
	}
}
