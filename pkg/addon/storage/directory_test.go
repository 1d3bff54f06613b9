package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
)

// write makes files, each with its own path as content.
func write(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestMakeHasTheModeWhateverTheUmask(t *testing.T) {
	old := unix.Umask(0o077)
	t.Cleanup(func() { unix.Umask(old) })
	d := directory(filepath.Join(t.TempDir(), "above", "storage"))
	for range 2 { // as after a crash
		if err := d.make("pvc-1"); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]fs.FileMode{string(d): 0o700, string(d) + "/pvc-1": 0o777} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestMakeLeavesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	root, outside := directory(filepath.Join(dir, "storage")), filepath.Join(dir, "outside")
	if err := root.ensure(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, string(root)+"/pvc-link"); err != nil {
		t.Fatal(err)
	}
	write(t, string(root)+"/pvc-file")
	for _, name := range []string{"pvc-link", "pvc-file"} {
		if err := root.make(name); err == nil || !strings.Contains(err.Error(), "is not a directory; remove it") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the mode of what a link leads to: %v, %v", info.Mode(), err)
	}
	if err := root.make("../outside2"); err == nil || exists(t, outside+"2") {
		t.Errorf("a name that leads out: %v", err)
	}
}

func TestRootIsNoLink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/real/pvc-1/file")
	if err := os.Symlink("real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	d := directory(dir + "/link")
	for what, err := range map[string]error{"ensure": d.ensure(), "make": d.make("pvc-2"), "remove": d.remove(t.Context(), "pvc-1")} {
		if err == nil || !strings.Contains(err.Error(), "is a symbolic link; set default-local-storage-path to its target") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !exists(t, dir+"/real/pvc-1/file") || exists(t, dir+"/real/pvc-2") {
		t.Error("what the link leads to was touched")
	}
	// A link above it is the user's way to place the whole data directory.
	if err := os.Symlink(dir, dir+"/above"); err != nil {
		t.Fatal(err)
	}
	if err := directory(dir+"/above/real").remove(t.Context(), "pvc-1"); err != nil || exists(t, dir+"/real/pvc-1") {
		t.Errorf("below a link: %v", err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	d, outside := directory(dir+"/storage"), dir+"/outside"
	for name, set := range map[string]func(t *testing.T, path string){
		"nothing":         func(*testing.T, string) {},
		"empty directory": func(t *testing.T, path string) { mkdir(t, path) },
		"file":            func(t *testing.T, path string) { write(t, path) },
		"link":            func(t *testing.T, path string) { link(t, outside, path) },
		"link to a volume": func(t *testing.T, path string) {
			link(t, "pvc-other", path)
		},
		"links within": func(t *testing.T, path string) {
			write(t, path+"/file")
			link(t, outside, path+"/a")
			link(t, "../../outside", path+"/b")
			link(t, "../pvc-other", path+"/c")
			link(t, "file", path+"/d")
			link(t, "e", path+"/e")
		},
		"hard link": func(t *testing.T, path string) {
			mkdir(t, path)
			if err := os.Link(outside+"/file", path+"/file"); err != nil {
				t.Fatal(err)
			}
		},
		"more than a batch": func(t *testing.T, path string) {
			mkdir(t, path)
			for i := range 1500 { // more than are read at once
				if err := os.WriteFile(path+"/"+strings.Repeat("x", 1+i%200)+string(rune('a'+i/200)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"deep": func(t *testing.T, path string) {
			write(t, path+strings.Repeat("/d", 100)+"/file", path+strings.Repeat("/d", 1000)+"/file", path+"/e/f/g/file")
		},
		"no permissions": func(t *testing.T, path string) {
			write(t, path+"/a/file")
			if err := os.Chmod(path+"/a", 0); err != nil {
				t.Fatal(err)
			}
		},
		"socket and pipe": func(t *testing.T, path string) {
			mkdir(t, path)
			if err := unix.Mkfifo(path+"/pipe", 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, outside+"/file", string(d)+"/pvc-other/file")
			set(t, string(d)+"/pvc-1")
			if err := d.remove(t.Context(), "pvc-1"); err != nil {
				t.Fatal(err)
			}
			if exists(t, string(d)+"/pvc-1") {
				t.Error("it is still there")
			}
			for _, path := range []string{outside + "/file", string(d) + "/pvc-other/file"} {
				if content, err := os.ReadFile(path); err != nil || string(content) != path {
					t.Errorf("%s: %q, %v", path, content, err)
				}
			}
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveRefusesNamesThatLeadOut(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/outside/file", dir+"/storage/pvc-1/file")
	for _, name := range []string{"../outside", "pvc-1/../../outside", dir + "/outside", ".", ""} {
		if err := directory(dir+"/storage").remove(t.Context(), name); err == nil && name != "" {
			t.Errorf("%q is removed", name)
		}
	}
	if !exists(t, dir+"/outside/file") {
		t.Error("what is outside is gone")
	}
}

// Without the directory of volumes it is not known whether data is gone: perhaps
// its disk is.
func TestRemoveWantsTheRoot(t *testing.T) {
	if err := directory(t.TempDir()+"/storage").remove(t.Context(), "pvc-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRemoveStopsAndGoesOn(t *testing.T) {
	d := directory(t.TempDir())
	write(t, string(d)+"/pvc-1/a/file", string(d)+"/pvc-1/b/file")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := d.remove(ctx, "pvc-1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if !exists(t, string(d)+"/pvc-1/a/file") {
		t.Error("it went on though it was to stop")
	}
	if err := d.remove(t.Context(), "pvc-1"); err != nil || exists(t, string(d)+"/pvc-1") {
		t.Errorf("got %v", err)
	}
}

func TestRemoveDoesNotCrossMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	for _, at := range []string{"", "/a/b"} {
		dir := t.TempDir()
		d, outside := directory(dir+"/storage"), dir+"/outside"
		write(t, outside+"/file", string(d)+"/pvc-1/file")
		target := string(d) + "/pvc-1" + at
		mkdir(t, target)
		if err := unix.Mount(outside, target, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("bind mounts are not possible here: %v", err)
		}
		unmount := func() { _ = unix.Unmount(target, unix.MNT_DETACH) }
		t.Cleanup(unmount)
		if err := d.remove(t.Context(), "pvc-1"); err == nil || !strings.Contains(err.Error(), target+" is mounted in the volume; unmount it") {
			t.Errorf("%q: %v", at, err)
		}
		// Mounted after the check: the same file system elsewhere in it.
		if at != "" {
			root, err := d.open()
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			stop := func(_ string, err error) error { return err }
			if err := file.Remove(t.Context(), root, "pvc-1", stop); !errors.Is(err, file.ErrMounted) {
				t.Errorf("a mount is crossed: %v", err)
			}
		}
		if !exists(t, outside+"/file") {
			t.Errorf("%q: what was mounted is gone", at)
		}
		unmount()
		if err := d.remove(t.Context(), "pvc-1"); err != nil || exists(t, string(d)+"/pvc-1") {
			t.Errorf("%q: %v", at, err)
		}
	}
}
