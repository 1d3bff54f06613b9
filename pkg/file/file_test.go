package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteReplacesAndSetsTheMode(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(t.TempDir(), "file")
	for _, test := range []struct {
		content string
		mode    os.FileMode
	}{{"first", 0o600}, {"second", 0o644}} {
		if err := Write(path, []byte(test.content), test.mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != test.content {
			t.Errorf("got %q, %v", got, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != test.mode {
			t.Errorf("got %v, %v", info.Mode(), err)
		}
	}
}

// The file that is not complete yet must be nowhere but beside its target, even
// where the system's directory for temporary files is as good a place to rename
// from.
func TestWriteStagesBesideTheFile(t *testing.T) {
	root := t.TempDir()
	other := filepath.Join(root, "tmp")
	if err := os.Mkdir(other, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", other)
	before, err := os.Stat(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(root, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(other)
	if err != nil {
		t.Fatal(err)
	}
	if !after.ModTime().Equal(before.ModTime()) {
		t.Error("something was made in TMPDIR")
	}
	if left, _ := os.ReadDir(root); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

// A kernel before 5.8 shows only there which mount it is; part of a file system that is
// mounted elsewhere in it has the same device.
func TestMountOfOlderKernel(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/proc", "/"} {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f, err := root.Open(".")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want, err := MountOf(root)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := mountInfo(f); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", dir, got, err, want)
		}
	}
}

func TestReadRegularReadsNothingElse(t *testing.T) {
	dir := t.TempDir()
	regular, fifo := filepath.Join(dir, "regular"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(regular, []byte("text"), 0o600), unix.Mkfifo(fifo, 0o600), os.Symlink(regular, regular+"-link"), os.Symlink(fifo, fifo+"-link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		regular: nil, regular + "-link": nil, fifo: ErrIrregular, fifo + "-link": ErrIrregular, dir: ErrIrregular, "/dev/zero": ErrIrregular, regular + "-none": fs.ErrNotExist,
	} {
		data, err := ReadRegular(path)
		if !errors.Is(err, want) || (string(data) == "text") != (want == nil) {
			t.Errorf("%s: got %q, %v, want %v", path, data, err, want)
		}
	}
}
