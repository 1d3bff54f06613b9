package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestImage(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!"), 0o600); err != nil {
		t.Fatal(err)
	}
	digests := map[v1.Hash]bool{}
	for _, out := range []string{filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")} {
		layer, err := pack([]string{"/tmp:1777"}, []string{"/bin/ls=program"}, []string{program + "=/bin/program"})
		if err != nil {
			t.Fatal(err)
		}
		config := v1.Config{Entrypoint: []string{"/bin/program"}, Env: []string{"A=1"}}
		if err := write(out, "arm64", []v1.Layer{layer}, config, []string{"lite.test/box:1", "lite.test/box:2,V=2"}); err != nil {
			t.Fatal(err)
		}
		tag, _ := name.NewTag("lite.test/box:2")
		image, err := tarball.ImageFromPath(out, &tag)
		if err != nil {
			t.Fatal(err)
		}
		read, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if env := read.Config.Env; len(env) != 2 || env[0] != "A=1" || env[1] != "V=2" {
			t.Errorf("the environment is %v", env)
		}
		if read.Architecture != "arm64" {
			t.Errorf("the architecture is %s", read.Architecture)
		}
		digest, err := image.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		digests[digest] = true
	}
	if len(digests) != 1 {
		t.Errorf("the same input gave different images: %v", digests)
	}
}

// What is said to be in the image lies above what the base has.
func TestBase(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base.tar")
	f, err := os.Create(base)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := errors.Join(add(w, tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd", Mode: 0o644}, []byte("root")), w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	own, err := pack([]string{"/tmp:1777"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := stack(base, own)
	if err != nil || len(layers) != 2 || layers[1] != own {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if header, err := tar.NewReader(content).Next(); err != nil || header.Name != "etc/passwd" {
		t.Errorf("the base has %+v, %v", header, err)
	}
	if layers, err := stack("", own); err != nil || len(layers) != 1 {
		t.Errorf("without a base: %d layers, %v", len(layers), err)
	}
	if _, err := stack(filepath.Join(dir, "none.tar"), own); err == nil {
		t.Error("a base that is not there is no error")
	}
}

func TestPack(t *testing.T) {
	layer, err := pack([]string{"/tmp:1777"}, []string{"/bin/ls=program"}, []string{"/dev/null=/bin/program:4711"})
	if err != nil {
		t.Fatal(err)
	}
	content, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	want := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "bin/program", Mode: 0o4711},
		{Typeflag: tar.TypeSymlink, Name: "bin/ls", Linkname: "program", Mode: 0o777},
	}
	r := tar.NewReader(content)
	for _, w := range want {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != w.Typeflag || h.Name != w.Name || h.Linkname != w.Linkname || h.Mode != w.Mode || h.ModTime.Unix() != 0 {
			t.Errorf("got %+v, want %+v", h, w)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("more than was asked for: %v", err)
	}
}

func TestPackRefuses(t *testing.T) {
	for _, file := range []string{"/dev/null", "/dev/null=bin/x", "/dev/null=/x:9", "/no/such/file=/x"} {
		if _, err := pack(nil, nil, []string{file}); err == nil {
			t.Errorf("%q was accepted", file)
		}
	}
}
