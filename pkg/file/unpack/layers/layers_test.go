package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/layout"
)

// disk is one of 600 MiB with so many MiB free, less what is in a directory by now.
func disk(dir string, free int64) unpack.Disk {
	d := unpack.ForImages(dir)
	d.Stat = func(_ string, to *unix.Statfs_t) error {
		var used, files int64
		_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil
			}
			files++
			if info, err := e.Info(); err == nil {
				used += info.Size()
			}
			return nil
		})
		to.Bsize, to.Blocks, to.Files = 4096, 600<<20/4096, 2_000
		to.Bavail, to.Ffree = uint64(max(0, free<<20-used)/4096), uint64(max(0, 2_000-files))
		return nil
	}
	return d
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// file is a tar with a file of zeros.
func file(t *testing.T, to io.Writer, size int64) {
	t.Helper()
	w := tar.NewWriter(to)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: size, Mode: 0o644})
	_, copied := io.CopyN(w, zeros{}, size)
	if err := errors.Join(err, copied, w.Close()); err != nil {
		t.Fatal(err)
	}
}

func gzipped(t *testing.T, size int64) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	file(t, z, size)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstandard(t *testing.T, size int64) []byte {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	file(t, z, size)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sparse is a tar of three blocks with a file of a terabyte: nothing but a hole, as
// GNU's tar has them in PAX.
func sparse(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: "hole", Size: 512, Mode: 0o644, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"LITE.x": "x"},
	})
	if err == nil {
		_, err = io.WriteString(w, "1\n"+fmt.Sprint(1<<40)+"\n0\n"+strings.Repeat("\x00", 512-len("1\n1099511627776\n0\n")))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	// The writer refuses these keys.
	record := func(k, v string) string {
		for n := len(k) + len(v) + 3; ; n++ {
			if r := fmt.Sprintf("%d %s=%s\n", n, k, v); len(r) == n {
				return r
			}
		}
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "hole") + record("GNU.sparse.realsize", fmt.Sprint(1<<40))
	data := b.Bytes()
	copy(data[512:1024], make([]byte, 512))
	copy(data[512:], records)
	copy(data[124:136], fmt.Sprintf("%011o\x00", len(records)))
	sum(data[:512])
	return data
}

// sum writes the checksum of a header of a tar.
func sum(header []byte) {
	copy(header[148:156], "        ")
	n := 0
	for _, c := range header {
		n += int(c)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", n))
}

// files is a tar of many empty files.
func files(t *testing.T, number int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n := range number {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(n), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpackInto does what containerd does with a layer, on a disk that is small.
func unpackInto(t *testing.T, ctx context.Context, data []byte, mediaType string, free int64) (ocispec.Descriptor, error) {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(t.Context(), store, "layer", bytes.NewReader(data), desc); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Overlay's upper directory, which containerd writes to without mounting.
	mounts := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"upperdir=" + dir, "lowerdir=" + t.TempDir()}}}
	return Applier(apply.NewFileSystemApplier(store), disk(dir, free)).Apply(ctx, desc, mounts)
}

func TestLayersThatWantTheWholeDisk(t *testing.T) {
	for name, c := range map[string]struct {
		data      []byte
		mediaType string
	}{
		"2 GiB of zeros, gzip":  {gzipped(t, 2<<30), ocispec.MediaTypeImageLayerGzip},
		"2 GiB of zeros, zstd":  {zstandard(t, 2<<30), ocispec.MediaTypeImageLayerZstd},
		"said to be docker's":   {gzipped(t, 1<<30), images.MediaTypeDockerSchema2Layer},
		"a hole of a terabyte":  {sparse(t), ocispec.MediaTypeImageLayer},
		"more files than there": {files(t, 3_000), ocispec.MediaTypeImageLayer},
	} {
		applied, err := unpackInto(t, t.Context(), c.data, c.mediaType, 160)
		if full := (*unpack.Full)(nil); !errors.As(err, &full) {
			t.Errorf("%s, %d bytes: got %+v, %v", name, len(c.data), applied, err)
		} else if digest := digest.FromBytes(c.data); !strings.Contains(err.Error(), "unpacking the layer "+digest.String()+" needs more") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHonestLayersAreUnpacked(t *testing.T) {
	for name, data := range map[string][]byte{"gzip": gzipped(t, 8<<20), "zstd": zstandard(t, 8<<20)} {
		if applied, err := unpackInto(t, t.Context(), data, ocispec.MediaTypeImageLayer+"+"+name, 160); err != nil || applied.Size < 8<<20 {
			t.Errorf("%s: %+v, %v", name, applied, err)
		}
	}
	ctx := leases.WithLease(t.Context(), layout.BuiltInLease+"1")
	if _, err := unpackInto(t, ctx, gzipped(t, 1<<20), ocispec.MediaTypeImageLayerGzip, 20); err != nil {
		t.Errorf("what comes with lite: %v", err)
	}
}

func TestImageOfThousandsOfLayers(t *testing.T) {
	applied := 0
	a := Applier(counting(func() { applied++ }), disk(t.TempDir(), 600))
	for _, below := range []int{1, 499, 500, 9_000} {
		mounts := []mount.Mount{{Type: "overlay", Options: []string{"upperdir=/u", "lowerdir=/l" + strings.Repeat(":/l", below-1)}}}
		_, err := a.Apply(t.Context(), ocispec.Descriptor{}, mounts)
		if good := below < 500; good != (err == nil) || err != nil && !strings.Contains(err.Error(), "more than the 500 layers") {
			t.Errorf("on %d layers: %v", below, err)
		}
	}
	if applied != 2 {
		t.Errorf("%d layers were unpacked", applied)
	}
}

type counting func()

func (c counting) Apply(context.Context, ocispec.Descriptor, []mount.Mount, ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	c()
	return ocispec.Descriptor{}, nil
}

func newStore(t *testing.T, free int64) content.Store {
	t.Helper()
	dir := t.TempDir()
	s, err := local.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return Store(s, disk(dir, free))
}

func TestStoreKeepsTheReserve(t *testing.T) {
	s := newStore(t, 140)
	write := func(ctx context.Context, ref string, size, claimed int64) error {
		return content.WriteBlob(ctx, s, ref, io.LimitReader(zeros{}, size), ocispec.Descriptor{Size: claimed})
	}
	if err := write(t.Context(), "one", 1<<20, 1<<20); err != nil {
		t.Error(err)
	}
	// By what it claims, before a byte of it is written.
	err := write(t.Context(), "7/k8s.io/tar-blobs/sha256/two", 100<<20, 100<<20)
	if err == nil || !strings.Contains(err.Error(), "blobs/sha256/two needs at least 104.9 MB") || strings.Contains(err.Error(), "tar-") {
		t.Errorf("got %v", err)
	}
	// By what it is.
	if err := write(t.Context(), "three", 100<<20, 0); !errors.As(err, new(*unpack.Full)) {
		t.Errorf("got %v", err)
	}
	if err := write(leases.WithLease(t.Context(), layout.BuiltInLease+"1"), "four", 30<<20, 30<<20); err != nil {
		t.Errorf("what comes with lite: %v", err)
	}
}

func TestHugeDocumentsAreNotRead(t *testing.T) {
	s := newStore(t, 600)
	put := func(data string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(data), Size: int64(len(data))}
		if err := content.WriteBlob(t.Context(), s, d.Digest.String(), strings.NewReader(data), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, data := range map[string]string{
		"5 MiB":            `{"schemaVersion":2,"x":"` + strings.Repeat("x", 5<<20) + `"}`,
		"many descriptors": `{"layers":[` + strings.Repeat("{},", 300_000) + "{}]}",
	} {
		d := put(data)
		if _, err := content.ReadBlob(t.Context(), s, d); !errors.As(err, new(unpack.TooMuch)) || !strings.Contains(err.Error(), d.Digest.String()) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := images.Children(t.Context(), s, d); err == nil {
			t.Errorf("%s: its children are asked for", name)
		}
		d.MediaType = "application/x" // its type is a claim too
		if _, err := content.ReadBlob(t.Context(), s, d); err == nil {
			t.Errorf("%s, of another type, is read", name)
		}
		// As a layer it is what it likes.
		r, err := s.ReaderAt(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, content.NewReader(r)); n != d.Size || err != nil {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		r.Close()
	}
	if _, err := content.ReadBlob(t.Context(), s, put(`{"layers":[{},{}]}`)); err != nil {
		t.Error(err)
	}
}

// A frame determines the memory of a decompressor.
func TestProcessorBoundsMemory(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(512<<20))
	if err != nil {
		t.Fatal(err)
	}
	file(t, z, 1<<20)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for mediaType, want := range map[string]bool{
		ocispec.MediaTypeImageLayerZstd: true, images.MediaTypeDockerSchema2LayerGzip: true, images.MediaTypeDockerSchema2Layer: true,
		ocispec.MediaTypeImageLayer: false, ocispec.MediaTypeImageConfig: false,
	} {
		init, ok := Processor(t.Context(), mediaType)
		if ok != want {
			t.Errorf("%s: %t", mediaType, ok)
		}
		if !ok {
			continue
		}
		p, err := init(t.Context(), diff.NewProcessorChain(mediaType, bytes.NewReader(b.Bytes())), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, p); !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			t.Errorf("%s: %v", mediaType, err)
		}
		p.Close()
	}
}
