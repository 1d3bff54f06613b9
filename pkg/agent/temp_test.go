package agent

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMakeTemp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "tmp")
	for range 2 { // the second time there is something in it
		if err := MakeTemp(dir); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("got %v, %v", info, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Fatalf("in it are %v, %v", entries, err)
		}
		for _, path := range []string{"file", "directory/file", "containerd-mount1/left"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o500); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, path), nil, 0o400); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// What a killed process has mounted there is an image's: it is unmounted, and stays as it is.
func TestMakeTempUnmounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	image, dir := t.TempDir(), filepath.Join(t.TempDir(), "tmp")
	mounted := filepath.Join(dir, "ovl-idmapped1")
	for _, d := range []string{mounted, filepath.Join(image, "layer")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(image, mounted, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	if err := MakeTemp(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mounted); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(image, "layer")); err != nil {
		t.Errorf("what was mounted there is not as it was: %v", err)
	}
}

// Something else in its place is reported.
func TestMakeTempBesideAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tmp")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeTemp(dir); err == nil {
		t.Error("a file is no directory")
	}
}
