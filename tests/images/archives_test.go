package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"lite.io/lite/tests/harness/cluster"
)

// image is busybox with a label, so that it is an image of its own.
func image(t *testing.T, label string) v1.Image {
	t.Helper()
	return changed(t, func(f *v1.ConfigFile) { f.Config.Labels = map[string]string{"test": label} })
}

func changed(t *testing.T, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	i, err := tarball.ImageFromPath(cluster.ImageTarball(t, "busybox"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	change(f)
	if i, err = mutate.ConfigFile(i, f); err != nil {
		t.Fatal(err)
	}
	return i
}

// withZeros adds a layer with a file of zeros, which hardly counts while it is
// compressed.
func withZeros(t *testing.T, i v1.Image, size int64) v1.Image {
	return withFile(t, i, size, func() io.Reader { return zeros{} })
}

// withNoise adds a layer that cannot be compressed.
func withNoise(t *testing.T, i v1.Image, size int64) v1.Image {
	return withFile(t, i, size, func() io.Reader { return rand.NewChaCha8([32]byte{}) })
}

func withFile(t *testing.T, i v1.Image, size int64, content func() io.Reader) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			tw := tar.NewWriter(w)
			err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Size: size, Mode: 0o644})
			if err == nil {
				_, err = io.Copy(tw, io.LimitReader(content(), size))
			}
			w.CloseWithError(errors.Join(err, tw.Close()))
		}()
		return r, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if i, err = mutate.AppendLayers(i, layer); err != nil {
		t.Fatal(err)
	}
	return i
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// save writes images as a docker-archive, compressed as the file's name says.
func save(t *testing.T, path string, images map[string]v1.Image) {
	t.Helper()
	tags := map[name.Tag]v1.Image{}
	for n, i := range images {
		tag, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = i
	}
	var b bytes.Buffer
	if err := tarball.MultiWrite(tags, &b); err != nil {
		t.Fatal(err)
	}
	write(t, path, b.Bytes())
}

// artifact is no image: it has a file of another kind in the place of layers, as a
// chart that Helm has pushed.
func artifact(t *testing.T, config, layer types.MediaType) v1.Image {
	t.Helper()
	i, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer([]byte("values: {}"), layer))
	if err != nil {
		t.Fatal(err)
	}
	// The configuration of such a thing has no files either.
	f, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.RootFS.DiffIDs = "", "", nil
	if i, err = mutate.ConfigFile(i, f); err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(i, config)
}

// saveLayout writes an image as an OCI layout.
func saveLayout(t *testing.T, path, name string, i v1.Image) {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(i, layout.WithAnnotations(map[string]string{"io.containerd.image.name": name})); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, b.Bytes())
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var w io.WriteCloser = f
	switch {
	case strings.HasSuffix(path, "gz"):
		w = gzip.NewWriter(f)
	case strings.HasSuffix(path, "zst"):
		if w, err = zstd.NewWriter(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w != io.WriteCloser(f) {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// other is the architecture that this machine is not of.
var other = map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
