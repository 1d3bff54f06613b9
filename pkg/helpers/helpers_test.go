package helpers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"

	"lite.io/lite/pkg/layout"
)

func TestUnpack(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "bundle")
	dir := mustUnpack(t, archive(t, "one"), parent)
	for path, mode := range map[string]fs.FileMode{
		filepath.Join(dir.Bin(), "runc"):         0o755,
		filepath.Join(dir.CNI(), "bridge"):       0o755,
		filepath.Join(dir.Images(), "pause.tar"): 0o644,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
	if got := read(t, filepath.Join(dir.Netfilter(), "nft", "nft")); got != "run one" {
		t.Errorf("the link leads to %q", got)
	}
	if got := read(t, filepath.Join(dir.Bin(), "runc")); got != "runc one" {
		t.Errorf("runc holds %q", got)
	}
}

func TestUnpackTwiceKeepsFiles(t *testing.T) {
	parent, files := t.TempDir(), archive(t, "one")
	runc := filepath.Join(mustUnpack(t, files, parent).Bin(), "runc")
	before, _ := os.Stat(runc)
	delete(files, archiveFile) // a second start must not need to read the archive
	mustUnpack(t, files, parent)
	after, err := os.Stat(runc)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the second call replaced runc (%v)", err)
	}
}

func TestUnpackHeals(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir layout.Helpers) error{
		"deleted file":   func(t *testing.T, d layout.Helpers) error { return os.Remove(filepath.Join(d.Bin(), "runc")) },
		"truncated file": func(t *testing.T, d layout.Helpers) error { return os.Truncate(filepath.Join(d.CNI(), "bridge"), 3) },
		"lost x bit":     func(t *testing.T, d layout.Helpers) error { return os.Chmod(filepath.Join(d.Bin(), "runc"), 0o644) },
		"no marker":      func(t *testing.T, d layout.Helpers) error { return os.Remove(filepath.Join(string(d), markerFile)) },
		"empty marker": func(t *testing.T, d layout.Helpers) error {
			return os.Truncate(filepath.Join(string(d), markerFile), 0)
		},
		"empty directory": func(t *testing.T, d layout.Helpers) error { return os.RemoveAll(d.Bin()) },
		"deleted link": func(t *testing.T, d layout.Helpers) error {
			return os.Remove(filepath.Join(d.Netfilter(), "nft", "nft"))
		},
		"link elsewhere": func(t *testing.T, d layout.Helpers) error {
			link := filepath.Join(d.Netfilter(), "nft", "nft")
			if err := os.Remove(link); err != nil {
				return err
			}
			return os.Symlink("../../bin/runc", link)
		},
		"file replaced by a link": func(t *testing.T, d layout.Helpers) error {
			runc := filepath.Join(d.Bin(), "runc")
			if err := os.Remove(runc); err != nil {
				return err
			}
			return os.Symlink("/bin/true", runc)
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent, files := t.TempDir(), archive(t, "one")
			dir := mustUnpack(t, files, parent)
			if err := damage(t, dir); err != nil {
				t.Fatal(err)
			}
			if whole(string(dir)) {
				t.Fatal("the damage went unnoticed")
			}
			mustUnpack(t, files, parent)
			if !whole(string(dir)) || read(t, filepath.Join(dir.Bin(), "runc")) != "runc one" {
				t.Error("not healed")
			}
			wantEntries(t, parent, lockFile, filepath.Base(string(dir)))
		})
	}
}

func TestUnpackRemovesLeftovers(t *testing.T) {
	parent := t.TempDir()
	if err := os.MkdirAll(filepath.Join(parent, tempPrefix+"123", "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := mustUnpack(t, archive(t, "one"), parent)
	wantEntries(t, parent, lockFile, filepath.Base(string(dir)))
}

func TestUnpackKeepsOtherVersions(t *testing.T) {
	parent := t.TempDir()
	one := mustUnpack(t, archive(t, "one"), parent)
	two := mustUnpack(t, archive(t, "two"), parent)
	if one == two {
		t.Fatal("two versions share a directory")
	}
	if !whole(string(one)) || !whole(string(two)) {
		t.Error("a version is gone")
	}
}

func TestUnpackAtOnce(t *testing.T) {
	parent, files := t.TempDir(), archive(t, "one")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := unpackInto(files, parent); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestUnpackRefuses(t *testing.T) {
	evil := func(h tar.Header) fstest.MapFS { return pack(t, []tar.Header{h}, "") }
	cut := archive(t, "one")
	cut[archiveFile].Data = cut[archiveFile].Data[:len(cut[archiveFile].Data)/2]
	stale := archive(t, "one")
	stale[sumFile] = archive(t, "two")[sumFile]
	for name, c := range map[string]struct {
		files fs.FS
		want  string
	}{
		"nothing built":   {fstest.MapFS{".gitignore": {}}, "make build"},
		"cut archive":     {cut, "unexpected EOF"},
		"stale checksum":  {stale, "make clean build"},
		"path outside":    {evil(tar.Header{Typeflag: tar.TypeReg, Name: "../evil", Mode: 0o755}), "neither a plain file"},
		"link to a path":  {evil(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin", Linkname: "/"}), "neither a plain file"},
		"link upwards":    {evil(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/nft", Linkname: "../../nft"}), "neither a plain file"},
		"absolute target": {evil(tar.Header{Typeflag: tar.TypeReg, Name: "/evil", Mode: 0o755}), "neither a plain file"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "bundle")
			_, err := unpackInto(c.files, parent)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(parent, "*")); len(left) > 0 && filepath.Base(left[0]) != lockFile {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestEmbedded unpacks what this very build embeds.
func TestEmbedded(t *testing.T) {
	if _, err := fs.Stat(data, embedded+"/"+archiveFile); err != nil {
		t.Skip("no bundle was built: run `make build`")
	}
	dir, err := Unpack(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		dir.Bin() + "/runc", dir.Bin() + "/containerd-shim-runc-v2", dir.Bin() + "/crictl",
		dir.CNI() + "/bridge", dir.CNI() + "/host-local", dir.CNI() + "/portmap", dir.CNI() + "/loopback",
		dir.CNI() + "/bandwidth", dir.CNI() + "/firewall", dir.Images() + "/pause.tar",
	} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func archive(t *testing.T, version string) fstest.MapFS {
	return pack(t, []tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "bin/runc", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "cni/bridge", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "images/pause.tar", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "netfilter/run", Mode: 0o755},
		{Typeflag: tar.TypeSymlink, Name: "netfilter/nft/nft", Linkname: "../run", Mode: 0o777},
	}, version)
}

// pack makes an archive whose regular files hold their own base name and the version.
func pack(t *testing.T, headers []tar.Header, version string) fstest.MapFS {
	t.Helper()
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed, zstd.WithWindowSize(1<<25))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = filepath.Base(h.Name) + " " + version
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		archiveFile: {Data: packed.Bytes()},
		sumFile:     {Data: fmt.Appendf(nil, "%x\n", sha256.Sum256(packed.Bytes()))},
	}
}

func mustUnpack(t *testing.T, files fs.FS, parent string) layout.Helpers {
	t.Helper()
	dir, err := unpackInto(files, parent)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantEntries(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
