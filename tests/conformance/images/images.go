// Package images makes the images that Kubernetes' end-to-end tests run, under the
// names that these tests ask for, of programs built from source and of Debian.
package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	imageutils "k8s.io/kubernetes/test/utils/image"
)

// Sources is where what images are made of lies.
type Sources struct {
	// Base is the tar of a Debian with the programs that tests call.
	Base string
	// Programs is a directory of those that were built, by their names.
	Programs string
	// Upstream is test/images of the Kubernetes module.
	Upstream string
}

// recipe is an image: Debian, and files beside it.
type recipe struct {
	files      map[string]string // path in the image -> file; built: or upstream: say where it is
	links      map[string]string
	texts      map[string]string // path in the image -> content
	registry   bool              // it serves an image itself
	entrypoint []string
	cmd        []string
	user       string
}

// agnhost is upstream's own tool; other images of its are made of it.
func agnhost(more recipe) recipe {
	r := recipe{
		files: map[string]string{
			"/agnhost":       "built:agnhost",
			"/coredns":       "built:coredns",
			"/localhost.crt": "upstream:agnhost/porter/localhost.crt",
			"/localhost.key": "upstream:agnhost/porter/localhost.key",
		},
		links:      map[string]string{"/agnhost-2": "agnhost", "/usr/local/bin/iperf": "/usr/bin/iperf"},
		texts:      more.texts,
		registry:   true,
		entrypoint: []string{"/agnhost"},
		cmd:        []string{"pause"},
	}
	for to, from := range more.files {
		r.files[to] = from
	}
	if more.cmd != nil {
		r.cmd = more.cmd
	}
	return r
}

// alpine is what a test of image volumes looks for in an image that it mounts: upstream's
// is an Alpine.
var alpine = map[string]string{
	"/etc/os-release": "NAME=\"Alpine Linux\"\nID=debian\nPRETTY_NAME=\"Debian, in the place of Alpine Linux\"\n",
}

// recipes is the images that can be made.
var recipes = map[imageutils.ImageID]recipe{
	imageutils.Agnhost:     agnhost(recipe{}),
	imageutils.AgnhostPrev: agnhost(recipe{texts: map[string]string{"/version": "previous\n"}}),
	imageutils.Kitten: agnhost(recipe{files: map[string]string{"/kitten.jpg": "upstream:kitten/html/kitten.jpg",
		"/data.json": "upstream:kitten/html/data.json"},
		texts: alpine, cmd: []string{"test-webserver"}}),
	imageutils.Nautilus: agnhost(recipe{files: map[string]string{"/nautilus.jpg": "upstream:nautilus/html/nautilus.jpg",
		"/data.json": "upstream:nautilus/html/data.json"},
		cmd: []string{"test-webserver"}}),
	// A test compares what /bin/sh complains of. Who says sh has bash, see scripts/test/conformance-root.
	imageutils.BusyBox:            {links: map[string]string{"/usr/bin/sh": "busybox"}, cmd: []string{"sh"}},
	imageutils.DistrolessIptables: {cmd: []string{"sh"}, texts: map[string]string{"/image": "distroless-iptables\n"}},
	imageutils.GlibcDnsTesting:    {files: map[string]string{"/coredns": "built:coredns"}, cmd: []string{"bash"}},
	imageutils.IpcUtils:           {cmd: []string{"sh"}, texts: map[string]string{"/image": "ipc-utils\n"}},
	imageutils.NonRoot:            {cmd: []string{"bash"}, user: "1234"},
	imageutils.Nginx:              {cmd: []string{"nginx", "-g", "daemon off;"}, texts: map[string]string{"/image": "nginx\n"}},
	imageutils.NginxNew:           {cmd: []string{"nginx", "-g", "daemon off;"}, texts: map[string]string{"/image": "nginx-new\n"}},
	imageutils.Perl:               {cmd: []string{"perl", "-de0"}},
	imageutils.Pause:              {files: map[string]string{"/pause": "built:pause"}, entrypoint: []string{"/pause"}, user: "65535:65535"},
	imageutils.Nonewprivs:         {files: map[string]string{"/usr/local/bin/nnp:4755": "built:nnp"}, cmd: []string{"nnp"}},
	imageutils.RegressionIssue74839: {
		files: map[string]string{"/regression-issue-74839": "built:regression-issue-74839"}, entrypoint: []string{"/regression-issue-74839"},
	},
	imageutils.ResourceConsumer: {
		files:      map[string]string{"/consumer": "built:consumer", "/consume-cpu/consume-cpu": "built:consume-cpu"},
		entrypoint: []string{"/consumer"},
	},
	imageutils.APIServer: {files: map[string]string{"/sample-apiserver": "built:sample-apiserver"},
		entrypoint: []string{"/sample-apiserver"}},
	imageutils.Etcd: {files: map[string]string{"/usr/local/bin/etcd": "built:etcd"}},
	imageutils.SampleDevicePlugin: {files: map[string]string{"/sampledeviceplugin": "built:sampledeviceplugin"},
		entrypoint: []string{"/sampledeviceplugin", "-alsologtostderr"}},
}

// Missing is an image that is not made.
type Missing struct {
	Image  string // a part of its name
	Reason string
	// Specs is the names of those that need it, as a regular expression; "" if none
	// that can be chosen does.
	Specs string
}

// NotMade is all that the tests know and is not made.
func NotMade() []Missing {
	return []Missing{
		{"/sig-storage/nfs-provisioner:", "it runs an NFS server, which the node's kernel must have", `External [Pp]rovisioner|DynamicProvisioner External`},
		{"/volume/nfs:", "it runs an NFS server, which the node's kernel must have", `\[Driver: nfs3?\]|\bNFS|Host cleanup with volume mounts`},
		{"/volume/iscsi:", "it runs an iSCSI target, which the node's kernel must have", `\[Driver: iscsi\]`},
		{"/apparmor-loader:", "it needs AppArmor in the kernel", `load AppArmor profiles`},
		{"/node-perf/", "benchmarks of numerics, which only upstream's tests of a kubelet alone run", ""},
		{"gcr.io/k8s-authenticated-test/", "it is meant to be where nobody may pull it", ""},
		{"invalid.registry.k8s.io/", "it is meant not to be there", ""},
		{"/sig-storage/", "the drivers and sidecars of CSI are modules with versions of Kubernetes of their own", `\[Driver: csi-hostpath|CSI Mock|MutableCSINodeAllocatableCount|VolumeAttributesClass .*CSI|\[DRA\] control plane`},
		{"/cloud-provider-gcp/", "it is for a cloud", `\[Driver: pd\.csi\.storage\.gke\.io\]`},
		{"/e2e-test-images/busybox:1.36.1-1", "it belongs to the drivers of CSI", ""},
	}
}

// Build writes an OCI layout with all images, each by its full name. It returns the
// names of those that are not in it.
func Build(dir string, s Sources) (missing []string, err error) {
	base, err := tarball.LayerFromFile(s.Base, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("read the base of all images: %w", err)
	}
	out, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, fmt.Errorf("write images: %w", err)
	}
	for id, config := range imageutils.GetImageConfigs() {
		name := config.GetE2EImage()
		r, ok := recipes[id]
		if !ok {
			missing = append(missing, name)
			continue
		}
		image, err := r.build(base, s)
		if err != nil {
			return nil, fmt.Errorf("make image %s: %w", name, err)
		}
		if err := out.AppendImage(image, layout.WithAnnotations(map[string]string{nameAnnotation: name})); err != nil {
			return nil, fmt.Errorf("write image %s: %w", name, err)
		}
	}
	slices.Sort(missing)
	return missing, nil
}

const nameAnnotation = "io.containerd.image.name"

func (r recipe) build(base v1.Layer, s Sources) (v1.Image, error) {
	image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Entrypoint: r.entrypoint, Cmd: r.cmd, User: r.user,
		},
	})
	if err != nil {
		return nil, err
	}
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	own, err := r.layer(s)
	if err != nil {
		return nil, err
	}
	layers := []v1.Layer{base}
	if own != nil {
		layers = append(layers, own)
	}
	return mutate.AppendLayers(image, layers...)
}

// layer is what an image has beside the base; nil if nothing.
func (r recipe) layer(s Sources) (v1.Layer, error) {
	if len(r.files)+len(r.links)+len(r.texts) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, to := range slices.Sorted(maps.Keys(r.files)) {
		content, err := os.ReadFile(s.find(r.files[to]))
		if err != nil {
			return nil, err
		}
		mode := int64(0o755)
		path, special, ok := strings.Cut(to, ":")
		if ok {
			if _, err := fmt.Sscanf(special, "%o", &mode); err != nil {
				return nil, fmt.Errorf("mode of %s: %w", to, err)
			}
		}
		if err := add(w, tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode}, content); err != nil {
			return nil, err
		}
	}
	texts := maps.Clone(r.texts)
	if r.registry {
		served, err := recipes[imageutils.Pause].served(s)
		if err != nil {
			return nil, err
		}
		maps.Copy(served, texts)
		texts = served
	}
	for _, to := range slices.Sorted(maps.Keys(texts)) {
		if err := add(w, tar.Header{Typeflag: tar.TypeReg, Name: to, Mode: 0o644}, []byte(texts[to])); err != nil {
			return nil, err
		}
	}
	for _, to := range slices.Sorted(maps.Keys(r.links)) {
		if err := add(w, tar.Header{Typeflag: tar.TypeSymlink, Name: to, Linkname: r.links[to], Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(b.Bytes(), types.OCIUncompressedLayer), nil
}

// served is the files from which agnhost serves the image as pause:testing, where its
// fake-registry-server looks for them (agnhost 2.66).
func (r recipe) served(s Sources) (map[string]string, error) {
	own, err := r.layer(s)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.DockerManifestSchema2), own)
	if err != nil {
		return nil, err
	}
	image, err = mutate.Config(image, v1.Config{Entrypoint: r.entrypoint, User: r.user})
	if err != nil {
		return nil, err
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.DockerManifestList), mutate.IndexAddendum{
		Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}},
	})
	files := map[string]string{}
	const dir = "/var/registry/pause/"
	put := func(kind string, content []byte) string {
		sum := fmt.Sprintf("%x", sha256.Sum256(content))
		files[dir+kind+"/sha256/"+sum[:2]+"/"+sum+"/data"] = string(content)
		return "sha256:" + sum
	}
	layer, err := own.Compressed()
	if err != nil {
		return nil, err
	}
	defer layer.Close()
	for _, part := range []struct {
		kind string
		read func() ([]byte, error)
	}{
		{"blobs", func() ([]byte, error) { return io.ReadAll(layer) }}, {"blobs", image.RawConfigFile},
		{"manifests", image.RawManifest}, {"manifests", index.RawManifest},
	} {
		content, err := part.read()
		if err != nil {
			return nil, err
		}
		files[dir+"manifests/testing"] = put(part.kind, content) + "\n" // at last that of the index
	}
	return files, nil
}

func (s Sources) find(file string) string {
	where, path, _ := strings.Cut(file, ":")
	if where == "upstream" {
		return filepath.Join(s.Upstream, path)
	}
	return filepath.Join(s.Programs, path)
}

func add(w *tar.Writer, h tar.Header, content []byte) error {
	h.Name = strings.TrimPrefix(h.Name, "/")
	h.Size = int64(len(content))
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
