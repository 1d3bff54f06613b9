package backup

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCopyTree(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	write := func(dir, name, text string, age time.Duration) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(from, "old", "old", time.Hour)
	write(from, "dir/busy", "busy", 0)
	write(from, "goes", "goes", time.Hour)
	if err := os.Symlink("old", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to, early); err != nil {
		t.Fatal(err)
	}
	if got := content(t, filepath.Join(to, "old")); got != "old" {
		t.Errorf("old: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(to, "dir", "busy")); err == nil {
		t.Error("a file that may be written to was copied early")
	}
	if err := os.Remove(filepath.Join(from, "goes")); err != nil {
		t.Fatal(err)
	}
	write(from, "dir/busy", "busier", 0)
	sparse := filepath.Join(from, "sparse")
	write(from, "sparse", "head", time.Hour)
	if err := os.Truncate(sparse, 64<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := copyTree(from, to, late); err != nil {
			t.Fatal(err)
		}
	}
	if got := content(t, filepath.Join(to, "dir", "busy")); got != "busier" {
		t.Errorf("busy: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(to, "goes")); err == nil {
		t.Error("what is gone was kept")
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); target != "old" {
		t.Errorf("link: %q, %v", target, err)
	}
	info, err := os.Stat(filepath.Join(to, "sparse"))
	if err != nil || info.Size() != 64<<20 || info.Mode() != 0o600 {
		t.Fatalf("sparse: %v, %v", info, err)
	}
	if room := SizeOf(filepath.Join(to, "sparse")); room > 1<<20 {
		t.Errorf("64 MiB with a hole take %d bytes", room)
	}
	if got := content(t, filepath.Join(to, "sparse"))[:5]; got != "head\x00" {
		t.Errorf("sparse begins with %q", got)
	}
}
