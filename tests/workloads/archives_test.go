package workloads

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"lite.io/lite/tests/harness/cluster"
)

// archives is a file of each form that image archives come in, by the image in
// it.
var archives = map[string]string{
	"lite.test/dropped:plain":    "plain.tar",
	"lite.test/dropped:gzip":     "gzip.tar.gz",
	"lite.test/dropped:zstd":     "zstd.tar.zst",
	"lite.test/dropped:oci":      "oci.tar",
	"lite.test/dropped:oci-gzip": "oci.tgz",
}

// drop writes the test image as an archive into dir, under its name only when it
// is whole.
func drop(t *testing.T, dir, file, image string) {
	t.Helper()
	part := filepath.Join(dir, file+".part")
	f, err := os.Create(part)
	if err != nil {
		t.Fatal(err)
	}
	w, finish := compressed(t, file, f)
	if strings.HasPrefix(file, "oci") {
		writeOCI(t, image, w)
	} else {
		writeDocker(t, image, w)
	}
	if err := finish(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, filepath.Join(dir, file)); err != nil {
		t.Fatal(err)
	}
}

// compressed compresses as the file's name says.
func compressed(t *testing.T, file string, to io.Writer) (w io.Writer, finish func() error) {
	t.Helper()
	switch {
	case strings.HasSuffix(file, "gz"):
		z := gzip.NewWriter(to)
		return z, z.Close
	case strings.HasSuffix(file, "zst"):
		z, err := zstd.NewWriter(to)
		if err != nil {
			t.Fatal(err)
		}
		return z, z.Close
	}
	return to, func() error { return nil }
}

func writeDocker(t *testing.T, image string, to io.Writer) {
	t.Helper()
	content, err := tarball.ImageFromPath(cluster.ImageTarball(t, "busybox"), nil)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.Write(tag, content, to); err != nil {
		t.Fatal(err)
	}
}

// writeOCI writes an OCI image layout; the name is where containerd and docker
// put it.
func writeOCI(t *testing.T, image string, to io.Writer) {
	t.Helper()
	content, err := tarball.ImageFromPath(cluster.ImageTarball(t, "busybox"), nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(content, layout.WithAnnotations(map[string]string{"io.containerd.image.name": image})); err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(to)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
