package etcd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The database has its blocks before somebody else fills the disk.
func TestReserve(t *testing.T) {
	database := filepath.Join(t.TempDir(), "db")
	content := bytes.Repeat([]byte("page"), 1<<18)
	if err := os.WriteFile(database, content, 0o600); err != nil {
		t.Fatal(err)
	}
	// bbolt leaves a hole.
	if err := os.Truncate(database, 16<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 { // at each start
		err := reserve(database)
		if errors.Is(err, syscall.EOPNOTSUPP) {
			t.Fatal("this file system cannot show it; set TMPDIR to a directory on a disk")
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(database)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := info.Sys().(*syscall.Stat_t); !ok || s.Blocks*512 < 16<<20+reserved || s.Blocks*512 > 20<<20+reserved {
			t.Errorf("it has %d MiB", s.Blocks*512>>20)
		}
		if info.Size() != 16<<20 {
			t.Errorf("it has become %d bytes long", info.Size())
		}
	}
	got, err := os.ReadFile(database)
	if err != nil || !bytes.Equal(got[:len(content)], content) {
		t.Errorf("what was in it has changed: %v", err)
	}
	// It grows into them.
	if err := os.Truncate(database, 32<<20); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(database); err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 < 16<<20+reserved {
		t.Errorf("longer, it has lost them: %v", err)
	}
	if err := reserve(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
