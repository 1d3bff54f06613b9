package attacks

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"lite.io/lite/tests/harness/cluster"
)

const (
	bomb     = 1 << 30 // more than the disk has, in a megabyte
	kept     = 128 << 20
	imageDir = cluster.DataDir + "/agent/images"
)

// TestArchive is what images of others' do to the node that unpacks them: 2.1 MB took
// all of the disk under etcd, which ended, and the control plane with it.
func TestArchive(t *testing.T) {
	t.Parallel()
	image := withBomb(t)
	n := cluster.NewNode(t)
	listener, err := n.Listen("tcp", "127.0.0.1:5000")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: serves(t, image)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })

	n.Output(t, "mount", "-t", "tmpfs", "-o", "size=672m,mode=700", "tmpfs", cluster.DataDir)
	n.WriteFile(t, "/etc/lite/registries.yaml", fmt.Sprintf("mirrors: {evil.test: {endpoint: ['http://%s']}}\n", listener.Addr()))
	n.Start(t)
	a := &archives{n, image, n.PID(t), new(atomic.Int64)}
	a.least.Store(1 << 62)
	defer a.sample(t)()
	t.Run("IsImported", a.testImport)
	t.Run("LiesInTheDirectory", a.testDirectory)
	t.Run("IsPulled", a.testPull)
	t.Run("NamesItselfAgainAndAgain", a.testNested)
	if least := a.least.Load(); least < kept-32<<20 {
		t.Errorf("meanwhile %d MiB were left of the disk", least>>20)
	}
}

type archives struct {
	*cluster.Node
	image v1.Image
	pid   int
	least *atomic.Int64 // bytes that were free, at the worst
}

func (a *archives) free(t *testing.T) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(a.Path(cluster.DataDir), &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// sample looks at the disk all the time, until it is told to end.
func (a *archives) sample(t *testing.T) (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
				a.least.Store(min(a.least.Load(), a.free(t)))
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

// survived is an error if the control plane has ended, or what the attack took is gone.
func (a *archives) survived(t *testing.T, before int64) {
	t.Helper()
	if out := a.Output(t, "lite", "images", "list"); strings.Contains(out, "bomb") {
		t.Errorf("half of it is there:\n%s", out)
	}
	a.Kubectl(t, "create", "configmap", "after-"+strings.ToLower(path.Base(t.Name())))
	if pid := a.PID(t); pid != a.pid {
		t.Errorf("lite is another process, %d", pid)
	}
	// etcd takes 64 MiB at a time.
	if after := a.free(t); after < before-100<<20 {
		t.Errorf("%d MiB were free, %d MiB are", before>>20, after>>20)
	}
}

func (a *archives) refuses(t *testing.T, file string, want ...string) {
	t.Helper()
	out, err := a.Command(t.Context(), "lite", "images", "import", file).CombinedOutput()
	for _, word := range append(want, "import "+file) {
		if err == nil || !strings.Contains(string(out), word) {
			t.Errorf("it does not say %q: %v\n%s", word, err, out)
		}
	}
}

func (a *archives) testImport(t *testing.T) {
	before := a.free(t)
	a.write(t, "/root/bomb.tar", a.image)
	a.refuses(t, "/root/bomb.tar", "unpacking the layer sha256:", "needs more than", "are kept for the datastore", "lite images remove", "nothing of it was stored")
	a.survived(t, before)
}

func (a *archives) testDirectory(t *testing.T) {
	before := a.free(t)
	good, err := tarball.ImageFromPath(cluster.ImageTarball(t, "busybox"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, imageDir+"/a-bomb.tar", a.image)
	a.write(t, imageDir+"/b-good.tar", good)
	a.WriteFile(t, imageDir+"/c-odd.tar.bz2", "BZh9")
	cluster.Eventually(t, 2*time.Minute, func() error {
		out, _ := a.Command(t.Context(), "lite", "status").CombinedOutput()
		if !strings.Contains(string(out), "not imported, the log shows why: c-odd.tar.bz2, a-bomb.tar") {
			return fmt.Errorf("the status does not name the bad ones:\n%s", out)
		}
		for _, want := range []string{"import " + imageDir + "/a-bomb.tar: ", "are kept for the datastore", "import " + imageDir + "/c-odd.tar.bz2: archives must be named NAME.tar"} {
			if !strings.Contains(a.Log(), want) {
				return fmt.Errorf("the log does not say %q", want)
			}
		}
		if out := a.Output(t, "lite", "images", "list"); !strings.Contains(out, "b-good.tar") {
			return fmt.Errorf("the good one was not imported:\n%s", out)
		}
		return nil
	})
	a.survived(t, before)
	a.Output(t, "rm", imageDir+"/a-bomb.tar", imageDir+"/c-odd.tar.bz2")
}

// Whoever may make a pod may have a node pull it.
func (a *archives) testPull(t *testing.T) {
	before := a.free(t)
	out, err := a.Command(t.Context(), "lite", "crictl", "pull", "evil.test/bomb:1").CombinedOutput()
	for _, want := range []string{"unpacking the layer sha256:", "are kept for the datastore"} {
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q: %v\n%s", want, err, out)
		}
	}
	a.survived(t, before)
}

// 1.9 MB of indexes took 5.9 GB of memory.
func (a *archives) testNested(t *testing.T) {
	before := a.free(t)
	if err := os.WriteFile(a.Path("/root/nested.tar"), nested(t, 6, 2000), 0o600); err != nil {
		t.Fatal(err)
	}
	a.refuses(t, "/root/nested.tar", "it contains more than 10000")
	a.survived(t, before)
}

// withBomb is an image with a layer of zeros.
func withBomb(t *testing.T) v1.Image {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: bomb, Mode: 0o644})
	_, copied := io.CopyN(w, zeros{}, bomb)
	if err := errors.Join(err, copied, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(cluster.ImageTarball(t, "busybox"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		t.Fatal(err)
	}
	return image
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// write saves an image as an archive on the node.
func (a *archives) write(t *testing.T, file string, image v1.Image) {
	t.Helper()
	tag, err := name.NewTag("evil.test/" + strings.TrimSuffix(path.Base(file), ".tar") + ":1")
	if err != nil {
		t.Fatal(err)
	}
	part := a.Path(path.Dir(file) + "/." + path.Base(file))
	if err := errors.Join(tarball.WriteToFile(part, tag, image), os.Rename(part, a.Path(file))); err != nil {
		t.Fatal(err)
	}
}

// serves is a registry that has one image, under all names.
func serves(t *testing.T, image v1.Image) http.Handler {
	t.Helper()
	manifest, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	mediaType, err := image.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := path.Base(r.URL.Path)
		var content []byte
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", string(mediaType))
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(manifest).String())
			content = manifest
		case what == digest.FromBytes(config).String():
			content = config
		case strings.Contains(r.URL.Path, "/blobs/"):
			hash, err := v1.NewHash(what)
			if err == nil {
				content, err = compressed(image, hash)
			}
			if err != nil {
				http.NotFound(w, r)
				return
			}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}

func compressed(image v1.Image, hash v1.Hash) ([]byte, error) {
	layer, err := image.LayerByDigest(hash)
	if err != nil {
		return nil, err
	}
	r, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// nested is an archive of indexes of so many levels, each of which names the one below so
// often.
func nested(t *testing.T, levels, times int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, content any) ocispec.Descriptor {
		data, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if name == "" {
			name = "blobs/sha256/" + d.Digest.Encoded()
		}
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: d.Size, Mode: 0o644})
		if _, failed := w.Write(data); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		return d
	}
	add(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	d := add("", ocispec.Index{})
	for range levels {
		d = add("", ocispec.Index{Manifests: slices.Repeat([]ocispec.Descriptor{d}, times)})
	}
	d.Annotations = map[string]string{"io.containerd.image.name": "evil.test/nested:1"}
	add(ocispec.ImageIndexFile, ocispec.Index{Manifests: []ocispec.Descriptor{d}})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
