package airgap

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/install/release"
)

// program is the beginning of an ELF file for an architecture, and some more.
func program(machine uint16) []byte {
	p := make([]byte, 4000)
	copy(p, "\x7fELF")
	binary.LittleEndian.PutUint16(p[18:], machine)
	return p
}

// imageArchive is what docker would save.
func imageArchive(t *testing.T, name, arch string) []byte {
	t.Helper()
	return pack(t, map[string]string{
		"layer.tar":     "layer of " + name,
		"config.json":   fmt.Sprintf(`{"os":"linux","architecture":%q}`, arch),
		"manifest.json": fmt.Sprintf(`[{"Config":"config.json","RepoTags":[%q],"Layers":["layer.tar"]}]`, name),
	})
}

func pack(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func silent(string, int64) {}

func request(t *testing.T) Request {
	return Request{
		Arch: "amd64", Installer: []byte("#!/bin/sh\n"), Binary: put(t, "lite", program(62)), Progress: silent,
		Files: []string{put(t, "app.tar", imageArchive(t, "lite.test/app:1", "amd64"))},
		Export: func(w io.Writer) error {
			_, err := w.Write(imageArchive(t, "lite.test/node:1", "amd64"))
			return err
		},
	}
}

func create(t *testing.T, r Request) ([]byte, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "bundle.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Create(t.Context(), f, r); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data, nil
}

func TestCreate(t *testing.T) {
	r := request(t)
	r.Files = append(r.Files, r.Files[0]) // named twice
	data, err := create(t, r)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Verify(bytes.NewReader(data), silent)
	if err != nil {
		t.Fatal(err)
	}
	var names, images []string
	for _, f := range files {
		names, images = append(names, f.Name), append(images, f.Images...)
	}
	if len(names) != 4 || names[0] != release.Installer || names[1] != "lite-linux-amd64.gz" ||
		!strings.HasPrefix(names[2], "images/node-1-") || !strings.HasPrefix(names[3], "images/app-") {
		t.Errorf("got %v", names)
	}
	if fmt.Sprint(images) != "[lite.test/node:1 lite.test/app:1]" {
		t.Errorf("got %v", images)
	}

	// The machine that gets it may have busybox alone, or any other tar.
	path := put(t, "bundle.tar", data)
	for _, unpack := range []string{"tar -xf ", "busybox tar -xf "} {
		c := exec.Command("sh", "-ec", unpack+path+` && sha256sum -c SHA256SUMS && test -x install.sh &&
			test "$(find . -type f | wc -l)" = 5 && gunzip -c lite-linux-amd64.gz | head -c 4 | grep -q ELF`)
		c.Dir = t.TempDir()
		if out, err := c.CombinedOutput(); err != nil || bytes.Contains(out, []byte("time stamp")) {
			t.Errorf("%s: %v\n%s", unpack, err, out)
		}
	}
}

func TestCreateMakesTheSameBytes(t *testing.T) {
	one, err := create(t, request(t))
	if err != nil {
		t.Fatal(err)
	}
	two, err := create(t, request(t))
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two bundles of the same differ, %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *Request)
		want   string
	}{
		"no program":           {func(t *testing.T, r *Request) { r.Binary = "/nowhere" }, "/nowhere: no such file"},
		"a text":               {func(t *testing.T, r *Request) { r.Binary = put(t, "x", []byte("#!/bin/sh")) }, "not a program for Linux"},
		"another architecture": {func(t *testing.T, r *Request) { r.Binary = put(t, "x", program(183)) }, "an architecture other than amd64"},
		"images of another architecture": {func(t *testing.T, r *Request) {
			r.Files = []string{put(t, "arm.tar", imageArchive(t, "lite.test/arm:1", "arm64"))}
		}, "arm.tar: image lite.test/arm:1 in it is for linux/arm64"},
		"no images": {func(t *testing.T, r *Request) { r.Files = []string{"/etc/passwd"} }, "/etc/passwd: it is not an image archive"},
		"a failed export": {func(t *testing.T, r *Request) {
			r.Export = func(io.Writer) error { return fmt.Errorf("content is missing") }
		}, "export images: content is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t)
			c.change(t, &r)
			if _, err := create(t, r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	whole, err := create(t, request(t))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		data := bytes.Clone(whole)
		data[at] ^= 1
		return data
	}
	layer := bytes.Index(whole, []byte("layer of lite.test/app:1"))
	unpacked := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(whole)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		content, _ := io.ReadAll(r)
		unpacked[h.Name] = string(content)
	}
	but := func(change func(map[string]string)) []byte {
		files := maps.Clone(unpacked)
		change(files)
		return pack(t, files)
	}
	if _, err := Verify(bytes.NewReader(but(func(map[string]string) {})), silent); err != nil {
		t.Errorf("in another order: %v", err)
	}
	if _, err := Verify(bytes.NewReader(but(func(f map[string]string) { f["SHA256SUMS.sig"] = "x" })), silent); err != nil {
		t.Errorf("signed: %v", err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":    {nil, "no SHA256SUMS"},
		"a text":     {bytes.Repeat([]byte("hello\n"), 500), "not a bundle"},
		"cut":        {whole[:len(whole)/2], "it is incomplete"},
		"cut at end": {whole[:bytes.Index(whole, []byte("SHA256SUMS"))], "no SHA256SUMS"},
		"a layer":    {flip(layer), "is damaged"},
		"a bomb":     {but(func(f map[string]string) { f["images/x.tar"] = string(imagesOf(t, 30_000)) }), "images/x.tar in it: it contains more than 10000 images"},
		"installer":  {flip(513), "install.sh in it is damaged"},
		"no program": {but(func(f map[string]string) { delete(f, "lite-linux-amd64.gz") }), "lite-linux-amd64.gz is missing"},
		"one more":   {but(func(f map[string]string) { f["images/x.tar"] = string(imageArchive(t, "lite.test/x:1", "amd64")) }), "images/x.tar in it is not in SHA256SUMS"},
		"hidden":     {but(func(f map[string]string) { f["images/.x.tar"] = "x" }), "images/.x.tar in it: no node would import it"},
		"below":      {but(func(f map[string]string) { f["images/a/x.tar"] = "x" }), "images/a/x.tar in it: no node would import it"},
		"no archive": {but(func(f map[string]string) { f["images/readme.txt"] = "x" }), "images/readme.txt in it: no node would import it"},
		"a stranger": {but(func(f map[string]string) { f["etc/passwd"] = "root" }), "etc/passwd in it: it does not belong"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(bytes.NewReader(c.data), silent); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// imagesOf is an archive that has one image under many names.
func imagesOf(t *testing.T, number int) []byte {
	names := `"a:1"` + strings.Repeat(`,"a:1"`, number-1)
	return pack(t, map[string]string{"manifest.json": `[{"Config":"c.json","RepoTags":[` + names + `],"Layers":[]}]`, "c.json": "{}"})
}

// The disk under a bundle may be that of the datastore.
func TestBundleLeavesRoomForTheDatastore(t *testing.T) {
	r := request(t)
	r.Disk = unpack.Disk{Dir: t.TempDir(), Stat: func(_ string, to *unix.Statfs_t) error {
		to.Bsize, to.Blocks, to.Bavail = 1, 1<<30, 100<<20
		return nil
	}}
	r.Installer = make([]byte, 2<<20)
	if _, err := create(t, r); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the bundle needs more than") {
		t.Errorf("got %v", err)
	}
}
