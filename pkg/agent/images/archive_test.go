package images

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lite.io/lite/pkg/file/unpack"
)

// entry is a file of an archive; a link if its content begins with ->.
type entry struct{ name, content string }

func pack(t *testing.T, entries ...entry) []byte {
	t.Helper()
	data, err := packed(entries)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func packed(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.content)), Mode: 0o644}
		if target, ok := strings.CutPrefix(e.content, "->"); ok {
			h.Typeflag, h.Linkname, h.Size, e.content = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

func docker(arch string, tags ...string) []entry {
	manifest, _ := json.Marshal([]map[string]any{{"Config": "c.json", "RepoTags": tags, "Layers": []string{"a/layer.tar", "b/layer.tar"}}})
	return []entry{
		{"a/layer.tar", strings.Repeat("layer", 1000)},
		{"b/layer.tar", "->../a/layer.tar"},
		{"c.json", fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{}}`, arch)},
		{"manifest.json", string(manifest)},
	}
}

// nameless describes two images, one of which was saved by its ID.
var nameless = entry{"manifest.json", `[{"Config": "c.json", "RepoTags": ["a:1"]}, {"Config": "c.json", "RepoTags": null}]`}

// layout is an OCI layout with one image for several architectures. The content of
// all but the first is not in it.
func ociLayout(name string, architectures ...string) []entry {
	entries := []entry{{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}}
	add := func(mediaType string, content any, keep bool) ocispec.Descriptor {
		data, _ := json.Marshal(content)
		if text, ok := content.(string); ok {
			data = []byte(text)
		}
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if keep {
			entries = append(entries, entry{blob(d), string(data)})
		}
		return d
	}
	var index ocispec.Index
	for n, arch := range architectures {
		platform := ocispec.Platform{OS: "linux", Architecture: arch}
		config := add(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: platform}, n == 0)
		layer := add(ocispec.MediaTypeImageLayer, "layer of "+arch, n == 0)
		d := add(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}}, n == 0)
		d.Platform = &platform
		index.Manifests = append(index.Manifests, d)
	}
	top := index.Manifests[0]
	if len(architectures) > 1 {
		top = add(ocispec.MediaTypeImageIndex, index, true)
	}
	top.Platform = nil
	top.Annotations = map[string]string{"io.containerd.image.name": name}
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{top}})
	return append(entries, entry{"index.json", string(data)})
}

// shared is an OCI layout of one image that claims to be for several architectures.
func shared(name string, architectures ...string) []entry {
	entries := artifact(name, kind(ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer))
	var top ocispec.Index
	_ = json.Unmarshal([]byte(entries[len(entries)-1].content), &top)
	var index ocispec.Index
	for _, arch := range architectures {
		d := top.Manifests[0]
		d.Annotations, d.Platform = nil, &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, d)
	}
	data, _ := json.Marshal(index)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data)), Annotations: top.Manifests[0].Annotations}
	last, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{d}})
	return append(entries[:len(entries)-1], entry{blob(d), string(data)}, entry{"index.json", string(last)})
}

// artifact is an OCI layout of manifests: of a first one, and of those that an index
// has beside it.
func artifact(name string, first ocispec.Manifest, others ...ocispec.Manifest) []entry {
	entries := []entry{{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}}
	add := func(mediaType string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		entries = append(entries, entry{blob(d), string(data)})
		return d
	}
	manifest := func(m ocispec.Manifest) ocispec.Descriptor {
		if m.Config.MediaType != "" {
			m.Config = add(m.Config.MediaType, []byte(`{}`))
		}
		for i, l := range m.Layers {
			m.Layers[i] = add(l.MediaType, []byte("content"))
		}
		data, _ := json.Marshal(m)
		return add(cmp.Or(m.MediaType, ocispec.MediaTypeImageManifest), data)
	}
	top := manifest(first)
	if len(others) > 0 {
		index := ocispec.Index{Manifests: []ocispec.Descriptor{top}}
		for _, m := range others {
			index.Manifests = append(index.Manifests, manifest(m))
		}
		data, _ := json.Marshal(index)
		top = add(ocispec.MediaTypeImageIndex, data)
	}
	top.Annotations = map[string]string{"io.containerd.image.name": name}
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{top}})
	return append(entries, entry{"index.json", string(data)})
}

// kind is a manifest with this type of configuration, and these of layers.
func kind(config string, layers ...string) ocispec.Manifest {
	m := ocispec.Manifest{Config: ocispec.Descriptor{MediaType: config}}
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: l})
	}
	return m
}

// typed reports what an artifact is, as image-spec 1.1 has it.
func typed(artifactType string, m ocispec.Manifest) ocispec.Manifest {
	m.ArtifactType = artifactType
	return m
}

const sigstore = "application/vnd.dev.sigstore.bundle.v0.3+json"

func without(entries []entry, name string) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return strings.HasPrefix(e.name, name) })
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

func zstandard(data []byte) []byte {
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

func inspect(data []byte) (Content, error) {
	p := platforms.Only(ocispec.Platform{OS: "linux", Architecture: "amd64"})
	return Inspect(bytes.NewReader(data), p)
}

func TestInspect(t *testing.T) {
	short := pack(t, docker("amd64", "busybox:1", "lite.test/b:2")...)
	for name, c := range map[string]struct {
		archive      []byte
		want, suffix string
	}{
		"docker":                   {short, "docker.io/library/busybox:1 lite.test/b:2", ".tar"},
		"docker, gzip":             {gzipped(short), "docker.io/library/busybox:1 lite.test/b:2", ".tar.gz"},
		"docker, zstd":             {zstandard(short), "docker.io/library/busybox:1 lite.test/b:2", ".tar.zst"},
		"layout":                   {pack(t, ociLayout("lite.test/a:1", "amd64")...), "lite.test/a:1", ".tar"},
		"layout, two platforms":    {pack(t, ociLayout("lite.test/a:1", "amd64", "arm64")...), "lite.test/a:1", ".tar"},
		"layout, 386":              {pack(t, ociLayout("lite.test/a:1", "386")...), "lite.test/a:1", ".tar"}, // runs here as well
		"layout, docker's types":   {pack(t, artifact("lite.test/a:1", kind(images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2LayerGzip))...), "lite.test/a:1", ".tar"},
		"layout, no layers":        {pack(t, artifact("lite.test/a:1", kind(ocispec.MediaTypeImageConfig))...), "lite.test/a:1", ".tar"},
		"an image and a signature": {pack(t, artifact("lite.test/a:1", kind(sigstore, "application/octet-stream"), kind(ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerZstd))...), "lite.test/a:1", ".tar"},
		"one for two platforms":    {pack(t, shared("lite.test/a:1", "arm64", "amd64")...), "lite.test/a:1", ".tar"},
		"an image with a file":     {pack(t, artifact("lite.test/a:1", kind(ocispec.MediaTypeImageConfig, "text/plain", ocispec.MediaTypeImageLayer))...), "lite.test/a:1", ".tar"},
		"without the end of a tar": {short[:len(short)-1024], "docker.io/library/busybox:1 lite.test/b:2", ".tar"},
	} {
		got, err := inspect(c.archive)
		if err != nil || strings.Join(got.Images, " ") != c.want || got.Suffix != c.suffix || got.Size == 0 {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	whole := pack(t, docker("amd64", "a:1")...)
	packed := gzipped(whole)
	damaged := bytes.Clone(packed)
	damaged[len(damaged)-5] ^= 1
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"nothing":               {nil, "empty"},
		"a word":                {[]byte("hello"), "not an image archive"},
		"a text":                {bytes.Repeat([]byte("hello world\n"), 200), "not an image archive"},
		"cut":                   {whole[:3000], "incomplete, with 3000 bytes"},
		"cut between files":     {pack(t, without(docker("amd64", "a:1"), "c.json")...), "c.json is missing"},
		"cut gzip":              {packed[:len(packed)-10], "it is incomplete"},
		"damaged gzip":          {damaged, "damaged"},
		"cut zstd":              {zstandard(whole)[:40], "it is incomplete"},
		"another tar":           {pack(t, entry{"etc/passwd", "root"}), "not of images"},
		"an empty tar":          {make([]byte, 1024), "it contains nothing"},
		"no name":               {pack(t, docker("amd64")...), "without a name"},
		"one without a name":    {pack(t, append(docker("amd64", "a:1")[:3], nameless)...), "without a name"},
		"no image":              {pack(t, entry{"manifest.json", "[]"}), "contains no image name"},
		"a bad name":            {pack(t, docker("amd64", "UPPER:1")...), `"UPPER:1"`},
		"docker, a platform":    {pack(t, docker("arm64", "a:1")...), "docker.io/library/a:1 in it is for linux/arm64"},
		"docker, no layer":      {pack(t, without(docker("amd64", "a:1"), "b/")...), "layer b/layer.tar of docker.io/library/a:1 is missing"},
		"layout, a platform":    {pack(t, ociLayout("lite.test/a:1", "arm64")...), "lite.test/a:1 in it is for linux/arm64"},
		"layout, two platforms": {pack(t, ociLayout("lite.test/a:1", "arm64", "riscv64")...), "linux/arm64, linux/riscv64"},
		"layout, left out":      {pack(t, ociLayout("lite.test/a:1", "arm64", "amd64")...), "is missing"},
		"layout, a tag":         {pack(t, ociLayout("latest", "amd64")...), `only "latest"`},
		"a chart of Helm":       {pack(t, artifact("lite.test/c:1", kind("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))...), "lite.test/c:1 in it is not an image but another artifact (application/vnd.cncf.helm.config.v1+json)"},
		"files of ORAS":         {pack(t, artifact("lite.test/c:1", typed("application/vnd.test", kind(ocispec.MediaTypeEmptyJSON, "text/plain")))...), "another artifact (application/vnd.test)"},
		"ORAS, an older one":    {pack(t, artifact("lite.test/c:1", kind("application/vnd.unknown.config.v1+json", ocispec.MediaTypeImageLayerGzip))...), "another artifact (application/vnd.unknown.config.v1+json)"},
		"a signature":           {pack(t, artifact("lite.test/c:1", kind(ocispec.MediaTypeImageConfig, "application/vnd.dev.cosign.simplesigning.v1+json"))...), "another artifact (application/vnd.dev.cosign.simplesigning.v1+json)"},
		"an index of artifacts": {pack(t, artifact("lite.test/c:1", kind(sigstore, "text/plain"), kind(ocispec.MediaTypeEmptyJSON))...), "another artifact"},
		"another manifest":      {pack(t, artifact("lite.test/c:1", ocispec.Manifest{MediaType: "application/vnd.oci.artifact.manifest.v1+json"})...), "another artifact (application/vnd.oci.artifact.manifest.v1+json)"},
		"no configuration":      {pack(t, artifact("lite.test/c:1", kind("", ocispec.MediaTypeImageLayer))...), "another artifact (of no type)"},
		"layout, no blobs":      {pack(t, without(ociLayout("lite.test/a:1", "amd64"), "blobs/")...), "is missing"},
	} {
		_, err := inspect(c.archive)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
		if err != nil && !errors.As(err, new(unfit)) {
			t.Errorf("%s: %v is an error of a library", name, err)
		}
	}
}

// nested is indexes of so many levels, each of which names the one below so often; at the
// bottom is an image.
func nested(levels, times int) []entry {
	entries := ociLayout("lite.test/a:1", "amd64")
	var index ocispec.Index
	_ = json.Unmarshal([]byte(entries[len(entries)-1].content), &index)
	d := index.Manifests[0]
	d.Annotations = nil
	for range levels {
		data, _ := json.Marshal(ocispec.Index{Manifests: slices.Repeat([]ocispec.Descriptor{d}, times)})
		d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
		entries = append(entries, entry{blob(d), string(data)})
	}
	d.Annotations = map[string]string{"io.containerd.image.name": "lite.test/a:1"}
	data, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{d}})
	return append(without(entries, "index.json"), entry{"index.json", string(data)})
}

// names is one image under many names.
func names(number int) []entry {
	entries := ociLayout("lite.test/a:1", "amd64", "arm64")
	var index ocispec.Index
	_ = json.Unmarshal([]byte(entries[len(entries)-1].content), &index)
	d := index.Manifests[0]
	index.Manifests = nil
	for n := range number {
		d.Annotations = map[string]string{"io.containerd.image.name": fmt.Sprintf("lite.test/a:%d", n)}
		index.Manifests = append(index.Manifests, d)
	}
	data, _ := json.Marshal(index)
	return append(without(entries, "index.json"), entry{"index.json", string(data)})
}

// layered is an image of docker's with many layers, all of them one file.
func layered(number int) []entry {
	entries := docker("amd64", "a:1")
	manifest, _ := json.Marshal([]map[string]any{{"Config": "c.json", "RepoTags": []string{"a:1"}, "Layers": slices.Repeat([]string{"a/layer.tar"}, number)}})
	return append(without(entries, "manifest.json"), entry{"manifest.json", string(manifest)})
}

// 1.9 MB of nested indexes took 5.9 GB of memory.
func TestInspectBoundsWhatIsNested(t *testing.T) {
	config := func(content string) []entry {
		return append(without(docker("amd64", "a:1"), "c.json"), entry{"c.json", content})
	}
	var docs []entry
	for n := range 40 { // each of 4 MB
		docs = append(docs, entry{fmt.Sprint(n), "{" + strings.Repeat(" ", unpack.MaxDocument-10) + "}"})
	}
	for name, c := range map[string]struct {
		entries []entry
		want    string // "" = it is imported
	}{
		"2,000 children on 6 levels": {nested(6, 2000), "contains more than 10000"},
		"8 children on 7 levels":     {nested(7, 8), ""}, // each is looked at once
		"deep":                       {nested(9, 1), "nested deeper than 8"},
		"20 levels":                  {nested(20, 2), "nested deeper than 8"},
		"1,000 names":                {names(1000), ""},
		"4,000 names":                {names(4000), "contains more than 10000"},
		"100 layers":                 {layered(100), ""},
		"20,000 layers":              {layered(20_000), "contains more than 10000"},
		"a large configuration":      {config(`{"os":"linux","architecture":"amd64","x":"` + strings.Repeat("x", unpack.MaxDocument) + `"}`), "c.json in it does not describe an image, or exceeds the limit"},
		"a dense configuration":      {config(`{"os":"linux","architecture":"amd64","history":[` + strings.Repeat("{},", 300_000) + `{}]}`), "c.json in it does not describe an image, or exceeds the limit"},
		"a huge index":               {append(without(nested(1, 1), "index.json"), entry{"index.json", "{" + strings.Repeat(" ", unpack.MaxDocument) + "}"}), "index.json in it: an image descriptor"},
		"many descriptions":          {append(docs, docker("amd64", "a:1")...), "more than 128 MiB of image descriptors"},
	} {
		got, err := inspect(pack(t, c.entries...))
		if c.want == "" && (err != nil || len(got.Images) == 0) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %d images, %v", name, len(got.Images), err)
		}
		if err != nil && !errors.As(err, new(unfit)) {
			t.Errorf("%s: %v is an error of a library", name, err)
		}
	}
}

// One configuration of 4 MB can be named by thousands of images.
func TestInspectBoundsItsWork(t *testing.T) {
	manifests := "[" + strings.TrimSuffix(strings.Repeat(`{"Config":"c.json","RepoTags":["a:1"],"Layers":[]},`, 4000), ",") + "]"
	entries := []entry{
		{"c.json", `{"os":"linux","architecture":"amd64","x":"` + strings.Repeat("x", unpack.MaxDocument-100) + `"}`},
		{"manifest.json", manifests},
	}
	if _, err := inspect(pack(t, entries...)); err == nil || !strings.Contains(err.Error(), "again and again") {
		t.Errorf("got %v", err)
	}
}

func TestInspectBoundsItsMemory(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(512<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(append(pack(t, docker("amd64", "a:1")...), make([]byte, 1<<20)...)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := inspect(b.Bytes()); err == nil || !strings.Contains(err.Error(), "needs more than 134.2 MB of memory") {
		t.Errorf("got %v", err)
	}
}

func TestInspectReadsAll(t *testing.T) {
	data := append(pack(t, docker("amd64", "a:1")...), make([]byte, 9000)...)
	r := bytes.NewReader(data)
	if _, err := Inspect(r, platforms.All); err != nil || r.Len() != 0 {
		t.Errorf("%d bytes are left, %v: a copy made of what was read would lack them", r.Len(), err)
	}
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]string{
		"busybox":            "docker.io/library/busybox:latest",
		"lite.test/a:1":      "lite.test/a:1",
		"localhost:5000/a/b": "localhost:5000/a/b:latest",
		"team/app:2":         "docker.io/team/app:2",
		"not a name":         "",
		"lite.test/a:1:2":    "",
	} {
		got, err := FullName(name)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
}

func TestArchiveName(t *testing.T) {
	const digest = "0123456789abcdef0123456789abcdef"
	c := Content{Images: []string{"lite.test/team/app:1.2"}, Suffix: ".tar.gz"}
	for original, want := range map[string]string{
		"app.tar":                         "app-0123456789ab.tar.gz", // by what it is, not by what it is called
		"app.tar.zst":                     "app-0123456789ab.tar.gz",
		"app-0123456789ab.tar":            "app-0123456789ab.tar.gz",
		"":                                "app-1.2-0123456789ab.tar.gz",
		".hidden.tar":                     "hidden-0123456789ab.tar.gz",
		"bad name\n/\u00e4.tar":           "0123456789ab.tar.gz",
		strings.Repeat("x", 100) + ".tgz": strings.Repeat("x", 40) + "-0123456789ab.tar.gz",
		"images":                          "images-0123456789ab.tar.gz",
		"...tar":                          "0123456789ab.tar.gz",
	} {
		got := ArchiveName(original, c, digest)
		if got != want || !IsArchive(got) {
			t.Errorf("%q: got %q, want %q", original, got, want)
		}
	}
}

func TestOlder(t *testing.T) {
	sources := []string{"c.tar-5-30/2", "b.tar-5-20/1", "a.tar-5-10/1"}
	for mark, want := range map[string]string{
		"d.tar-1-40": "c.tar-5-30/2 b.tar-5-20/1 a.tar-5-10/1",
		"d.tar-1-25": "b.tar-5-20/1 a.tar-5-10/1", // c has to be imported again, after d
		"b.tar-9-50": "c.tar-5-30/2 a.tar-5-10/1", // the file was replaced
		"d.tar-1-5":  "",
	} {
		if got := strings.Join(older(sources, mark), " "); got != want {
			t.Errorf("%s: got %q, want %q", mark, got, want)
		}
	}
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	data := pack(t, ociLayout("lite.test/a:1", runtime.GOARCH)...)
	now := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	keep := func(data []byte, at time.Time) (string, string, bool) {
		t.Helper()
		c, err := copyIn(dir, bytes.NewReader(data), func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if left, _ := os.ReadDir(dir); len(left) > 1 {
			t.Errorf("a copy has a name too early: %v", left)
		}
		name, mark, kept, err := c.keep(dir, "a.tar", at)
		if err != nil {
			t.Fatal(err)
		}
		if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(content, data) {
			t.Errorf("the copy differs, %v", err)
		}
		return name, mark, kept
	}
	name, mark, kept := keep(data, now)
	if kept || !ownName.MatchString(name) || !strings.HasPrefix(name, "a-") {
		t.Errorf("got %s, %t", name, kept)
	}
	if archives, err := listArchives(dir); err != nil || len(archives) != 1 || archives[0].mark != mark {
		t.Errorf("got %+v, %v; want the mark %s", archives, err, mark)
	}
	again, newer, kept := keep(data, now.Add(time.Hour))
	if again != name || newer == mark || !kept {
		t.Errorf("the second time: got %s, %s, %t", again, newer, kept)
	}
	// Somebody has written to the file since.
	if err := os.WriteFile(filepath.Join(dir, name), make([]byte, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _, kept := keep(data, now); again != name || kept {
		t.Errorf("in the place of a damaged one: got %s, %t", again, kept)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
