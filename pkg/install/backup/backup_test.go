package backup

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// Where nothing can be renamed a rollback copies, and may be cut off as well.
func TestCopyBackGoesOnWhereItWas(t *testing.T) {
	quietly(t)
	for name, cut := range map[string]func(t *testing.T, live, kept, dropped string){
		"at once": func(*testing.T, string, string, string) {},
		"setting aside": func(t *testing.T, _, _, dropped string) {
			put(t, filepath.Join(dropped+".part", "token"), "aft")
			put(t, filepath.Join(dropped+".part", "etcd", "nothing"), "nothing")
		},
		"removing": func(t *testing.T, live, kept, dropped string) {
			must(t, copyAside(live, dropped))
			must(t, os.Remove(filepath.Join(live, "new", "file")))
		},
		"copying": func(t *testing.T, live, kept, dropped string) {
			must(t, copyAside(live, dropped))
			must(t, prune(kept, live))
			put(t, filepath.Join(live, "token"), "bef")
		},
		"after copying": func(t *testing.T, live, kept, dropped string) {
			must(t, copyAside(live, dropped))
			must(t, prune(kept, live))
			must(t, copyTree(kept, live, back))
		},
		"removing what was kept": func(t *testing.T, live, kept, dropped string) {
			must(t, copyBack(live, kept, dropped))
			must(t, os.MkdirAll(filepath.Join(spent(kept), "etcd"), 0o700))
		},
		"other kinds of files": func(t *testing.T, live, kept, dropped string) {
			must(t, os.Remove(filepath.Join(live, "token")))
			put(t, filepath.Join(live, "token", "file"), "a directory now")
			must(t, os.RemoveAll(filepath.Join(live, "etcd")))
			put(t, filepath.Join(live, "etcd"), "a file now")
			must(t, os.Remove(filepath.Join(live, "link")))
			put(t, filepath.Join(live, "link"), "a file now")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			live, kept, dropped := filepath.Join(dir, "server"), filepath.Join(dir, "rollback", "data", "server"), filepath.Join(dir, "rollback", "dropped", "server")
			put(t, filepath.Join(kept, "token"), "before")
			put(t, filepath.Join(kept, "etcd", "db"), "before")
			must(t, os.Symlink("token", filepath.Join(kept, "link")))
			put(t, filepath.Join(live, "token"), "after")
			put(t, filepath.Join(live, "etcd", "db"), "after")
			put(t, filepath.Join(live, "new", "file"), "after")
			put(t, filepath.Join(live, "link"), "after")
			must(t, os.MkdirAll(filepath.Dir(dropped), 0o700))
			cut(t, live, kept, dropped)
			if _, err := os.Lstat(kept); err == nil {
				must(t, copyBack(live, kept, dropped))
			} else {
				must(t, restoreEntry(dir, "server"))
			}
			for path, want := range map[string]string{"token": "before", "etcd/db": "before", "link": "before", "new/file": ""} {
				if got := content(t, filepath.Join(live, path)); got != want {
					t.Errorf("%s holds %q, want %q", path, got, want)
				}
			}
			if target, err := os.Readlink(filepath.Join(live, "link")); target != "token" {
				t.Errorf("the link leads to %q, %v", target, err)
			}
			if got := content(t, filepath.Join(dropped, "new", "file")); got != "after" {
				t.Errorf("what the newer version had is not set aside: %q", got)
			}
			for _, path := range []string{kept, spent(kept), dropped + ".part"} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was left", path)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Files of the configuration keep their mode and their owner, and links stay links,
// however many lead to one file.
func TestConfigurationComesBackAsItWas(t *testing.T) {
	quietly(t)
	dir, kept := t.TempDir(), t.TempDir()
	site, cfg := filepath.Join(dir, "site"), &config.Config{ConfigFile: filepath.Join(dir, "etc", "config.yaml")}
	link, inner, file := cfg.ConfigFile, filepath.Join(site, "inner"), filepath.Join(site, "real.yaml")
	plain, dangling := filepath.Join(cfg.ConfigFile+".d", "10-mine.yaml"), filepath.Join(cfg.ConfigFile+".d", "20-gone.yaml")
	put(t, file, "before")
	put(t, plain, "before")
	must(t, os.Symlink("../site/inner", link))
	must(t, os.Symlink(file, inner))
	must(t, os.Symlink("nowhere", dangling))
	must(t, os.Chmod(file, 0o640))
	owner := os.Geteuid()
	if owner == 0 {
		owner = 65534
	}
	must(t, os.Chown(file, owner, -1))
	must(t, os.Chmod(plain, 0o640|os.ModeSetgid))

	k := Backup{}
	k.Files, k.Dirs = configuration(cfg)
	for _, path := range []string{link, inner, file, plain, dangling} {
		if !slices.Contains(k.Files, path) {
			t.Errorf("%s is not kept", path)
		}
	}
	mine := slices.DeleteFunc(slices.Clone(k.Files), func(path string) bool { return filepath.Dir(path) == "/etc/lite" })
	for _, path := range mine {
		must(t, copyBelow(filepath.Join(kept, keptFiles), path))
	}

	must(t, os.Remove(link))
	put(t, link, "after")
	must(t, os.Remove(file))
	put(t, file, "before") // another mode and owner, and nothing else
	must(t, os.Chmod(plain, 0o600))
	must(t, os.Remove(dangling))
	put(t, filepath.Join(cfg.ConfigFile+".d", "30-new.yaml"), "after")
	must(t, os.Symlink(file, filepath.Join(cfg.ConfigFile+".d", "40-new.yaml")))
	for range 2 { // it may be interrupted
		for _, path := range mine {
			must(t, restoreFile(kept, path))
		}
		must(t, k.setAside(kept))
	}

	for path, want := range map[string]string{link: "../site/inner", inner: file, dangling: "nowhere"} {
		if got, err := os.Readlink(path); got != want {
			t.Errorf("%s leads to %q, %v, want %q", path, got, err, want)
		}
	}
	if got := content(t, link); got != "before" {
		t.Errorf("config.yaml holds %q", got)
	}
	for path, want := range map[string]fs.FileMode{file: 0o640, plain: 0o640 | os.ModeSetgid} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s is %v, want %v", path, info.Mode(), want)
		}
	}
	var stat unix.Stat_t
	if must(t, unix.Stat(file, &stat)); int(stat.Uid) != owner {
		t.Errorf("its owner is %d, want %d", stat.Uid, owner)
	}
	found, err := os.ReadDir(cfg.ConfigFile + ".d")
	if err != nil || len(found) != 2 {
		t.Errorf("there are %v, %v", found, err)
	}
}

// The user's own files may be where nobody can write; lite's must come back.
func TestWhatMayStayAsItIs(t *testing.T) {
	for rel, want := range map[string]bool{"manifests": true, "manifests/a/b.yaml": true, "manifests-old": false, "etcd/member": false, "pki/ca.key": false, ".": false} {
		if isUsers(rel) != want {
			t.Errorf("%s: %v", rel, !want)
		}
	}
	quietly(t)
	for err, stays := range map[error]bool{unix.EROFS: true, unix.EPERM: true, unix.EBUSY: true, unix.ENOSPC: false, unix.EIO: false} {
		if got := leave("x", &fs.PathError{Op: "write", Path: "x", Err: err}); (got == nil) != stays {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// What is mounted in the data directory stays mounted, with the contents of before:
// but what users have mounted for themselves stays with the contents that it has.
func TestMountsComeBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	quietly(t)
	runtime.LockOSThread() // it ends with this test, and the mounts with it
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	dataDir, binary := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "lite")
	server := filepath.Join(dataDir, "server")
	put(t, binary, "old")
	put(t, filepath.Join(dataDir, "version"), "v0.1.0\n")
	put(t, filepath.Join(dataDir, "node-name"), "node\n")
	put(t, filepath.Join(server, "token"), "before")
	mount := func(name string) string {
		t.Helper()
		path := filepath.Join(server, name)
		must(t, os.MkdirAll(path, 0o700))
		must(t, unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m"))
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
		return path
	}
	disk, checkout := mount("etcd/member"), mount("manifests/checkout")
	put(t, filepath.Join(disk, "db"), "before")
	put(t, filepath.Join(checkout, "file"), "before")
	put(t, filepath.Join(server, "manifests", "own.yaml"), "before")
	must(t, CheckWhole(dataDir))
	m := &Maker{DataDir: dataDir, Backup: Backup{Role: config.Server, Binary: binary}}
	must(t, errors.Join(m.Begin(), m.Complete()))
	if _, err := os.Lstat(filepath.Join(keptDir(dataDir), keptEntries, "server", "manifests", "checkout", "file")); err == nil {
		t.Error("what a user has mounted is kept")
	}

	put(t, layout.Staged(binary), "new")
	must(t, ReplaceProgram(binary))
	put(t, filepath.Join(dataDir, "version"), "v0.2.0\n")
	put(t, filepath.Join(server, "token"), "after")
	put(t, filepath.Join(disk, "db"), "after")
	put(t, filepath.Join(disk, "new"), "after")
	put(t, filepath.Join(checkout, "file"), "since")
	put(t, filepath.Join(checkout, "new"), "since")
	put(t, filepath.Join(server, "manifests", "own.yaml"), "after")
	since := mount("mounted/since")
	put(t, filepath.Join(since, "file"), "since")
	must(t, Restore(dataDir))
	for path, want := range map[string]string{
		binary: "old", filepath.Join(dataDir, "version"): "v0.1.0\n", filepath.Join(dataDir, "node-name"): "node\n", filepath.Join(server, "token"): "before",
		filepath.Join(disk, "db"): "before", filepath.Join(disk, "new"): "", filepath.Join(server, "manifests", "own.yaml"): "before",
		filepath.Join(checkout, "file"): "since", filepath.Join(checkout, "new"): "since", filepath.Join(since, "file"): "since",
		filepath.Join(keptDir(dataDir), keptDropped, "server", "etcd", "member", "db"): "after",
	} {
		if got := content(t, path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	if mounts, err := mountsIn(server); err != nil || len(mounts) != 3 {
		t.Errorf("mounted are %v, %v", mounts, err)
	}
	// Nothing of it is removed with what is dropped, by the next upgrade or by hand.
	must(t, remove(keptDir(dataDir)))
	if err := remove(server); err == nil {
		t.Error("a tree with mounts in it was removed")
	}
}

// A datastore that is elsewhere would not be kept.
func TestWhole(t *testing.T) {
	dataDir := t.TempDir()
	put(t, filepath.Join(dataDir, "server", "token"), "before")
	if err := CheckWhole(dataDir); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(dataDir, "server", "etcd")); err != nil {
		t.Fatal(err)
	}
	if err := CheckWhole(dataDir); err == nil {
		t.Error("a link was taken for the datastore")
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return ""
	}
	must(t, err)
	return string(data)
}

func quietly(t *testing.T) {
	t.Helper()
	was := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(was) })
}
