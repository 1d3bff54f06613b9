package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lite.io/lite/pkg/file/unpack"
)

const (
	// maxDocuments bounds the memory for all descriptions of images.
	maxDocuments = 128 << 20
	// maxDecoded bounds the work with them: one may be named again and again.
	maxDecoded = 2 * maxDocuments
	// maxReferences is how many images, manifests, configurations and layers are
	// named in an archive, each as often as it is. containerd (2.4) stops there as well.
	maxReferences = 10_000
	// maxUnpacked bounds the time that it takes to read an archive of a bomb's kind, where
	// no disk does.
	maxUnpacked = 1 << 40
	// tarBlock is the size of the smallest piece of a tar.
	tarBlock = 512
	// maxDepth is how deep indexes of an archive may be nested.
	maxDepth = 8
)

// Content is what an image archive holds.
type Content struct {
	Images []string // names in full, sorted
	Size   int64    // of all files in it, not compressed
	Suffix string   // what the name of such an archive ends in, as .tar.gz
}

// unfit is an archive that is whole, or not, but cannot be imported as it is.
// The error contains the reason and the remedy.
type unfit struct{ reason string }

func (e unfit) Error() string { return e.reason }

func unfitf(format string, args ...any) error { return unfit{fmt.Sprintf(format, args...)} }

// Inspect reads an image archive to its end and returns what is in it: a
// docker-archive or an OCI layout, plain or compressed. It is an error if the
// archive is cut short, or if an image in it lacks a name, a layer, or a version
// for the platform.
func Inspect(r io.Reader, platform platforms.MatchComparer) (Content, error) {
	counted := &counter{r: r}
	plain, suffix, err := unpack.Decompress(counted)
	if err != nil {
		return Content{}, broken(err, counted, suffix)
	}
	defer plain.Close()
	c, err := readContents(plain, true)
	if err != nil {
		return Content{}, broken(err, counted, suffix)
	}
	// What follows the last file belongs to the checksum of a compressed stream,
	// and whoever copies what is read here wants all of it.
	for _, rest := range []io.Reader{plain, counted} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return Content{}, broken(err, counted, suffix)
		}
	}
	if counted.n == 0 {
		return Content{}, unfitf("it is empty")
	}
	names, err := c.check(platform)
	return Content{Images: names, Size: c.size, Suffix: suffix}, err
}

// broken reports what an error of a decompressor or of package tar means to a person.
func broken(err error, read *counter, suffix string) error {
	switch {
	case err == nil, read.failed != nil:
		return err
	case errors.As(err, new(unfit)):
		return err
	case errors.As(err, new(unpack.TooMuch)):
		return unfitf("%v; create one with fewer or smaller images", err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return unfitf("decompressing it needs more than %s of memory; compress it without --long and --ultra", Bytes(unpack.MaxWindow))
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF) && suffix == ".tar" && read.n < tarBlock:
		return unfitf("it is not an image archive, or a damaged one; create it with `docker save`, `lite images export` or `skopeo copy`")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return unfitf("it is incomplete, with %d bytes; copy it again", read.n)
	}
	return unfitf("it is damaged (%v); copy it again", err)
}

// contents is the files of an archive: all names, and what may describe images.
type contents struct {
	files     map[string]bool
	documents map[string][]byte
	size      int64
	decoded   int // bytes of documents
	named     int // references
}

// readContents reads an archive to its end, and with keep returns the files that may
// describe images. These must fit into memory in any case, since containerd reads them in
// one piece.
func readContents(r io.Reader, keep bool) (*contents, error) {
	c := &contents{files: map[string]bool{}, documents: map[string][]byte{}}
	kept := 0
	for t := unpack.NewTar(unpack.Limit(r, maxUnpacked)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeReg:
			c.files[name] = true
			c.size += h.Size
			if h.Size > unpack.MaxDocument {
				if describes(name) {
					return nil, unfitf("%s in it: %v; split it", name, unpack.DocumentSize(h.Size))
				}
				continue
			}
			if !keep && !describes(name) {
				continue
			}
			data, err := document(t, h.Size)
			if err != nil {
				return nil, err
			}
			if err := unpack.Document(data); err != nil && describes(name) {
				return nil, unfitf("%s in it: %v; split it", name, err)
			} else if err != nil || data == nil {
				continue
			}
			if kept += len(data); kept > maxDocuments {
				return nil, unfitf("it contains more than %d MiB of image descriptors; split it", maxDocuments>>20)
			}
			c.documents[name] = data
		default: // links: how docker saves a layer that two images share
			c.files[name] = true
		}
	}
}

// describes reports whether a file of this name describes the others.
func describes(name string) bool {
	return slices.Contains([]string{"manifest.json", ocispec.ImageIndexFile, ocispec.ImageLayoutFile}, name)
}

// document reads a file if it may describe an image, and uses no memory for others, such as
// a small layer.
func document(r io.Reader, size int64) ([]byte, error) {
	start := bufio.NewReader(r)
	for {
		b, err := start.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		switch b {
		case ' ', '\t', '\r', '\n':
		case '{', '[':
			data := bytes.NewBuffer(make([]byte, 0, size))
			data.WriteByte(b)
			if _, err := data.ReadFrom(start); err != nil {
				return nil, err
			}
			return data.Bytes(), nil
		default:
			return nil, nil
		}
	}
}

// check returns the names of the images, all of which fit the platform. As in
// containerd, an OCI layout goes before docker's manifest.
func (c *contents) check(platform platforms.MatchComparer) ([]string, error) {
	var (
		names map[string]bool
		err   error
	)
	switch {
	case c.files[ocispec.ImageLayoutFile]:
		names, err = c.checkLayout(platform)
	case c.files["manifest.json"]:
		names, err = c.checkDocker(platform)
	case len(c.files) == 0:
		return nil, unfitf("it contains nothing")
	default:
		return nil, unfitf("it is an archive, but not of images: it has neither a manifest.json nor an oci-layout; an archive of a " +
			"container's files (`docker export`) is not an image archive either")
	}
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, unfitf("it contains no image name; save the image by its name and tag, not by its ID")
	}
	var sorted []string
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	return sorted, nil
}

func (c *contents) decode(name string, into any) error {
	data, ok := c.documents[name]
	switch {
	case c.files[name] && !ok:
		return unfitf("%s in it does not describe an image, or exceeds the limit (%s); save the image again", name, Bytes(unpack.MaxDocument))
	case !ok:
		return unfitf("%s is missing from it: it is incomplete; copy it or save it again", name)
	}
	if c.decoded += len(data); c.decoded > maxDecoded {
		return unfitf("its image descriptors refer to each other again and again, already %s; split it", Bytes(maxDecoded))
	}
	if err := json.Unmarshal(data, into); err != nil {
		return unfitf("%s in it cannot be read: %v", name, err)
	}
	return nil
}

// count counts what is named in an archive.
func (c *contents) count(references int) error {
	if c.named += references; c.named > maxReferences {
		return unfitf("it contains more than %d images, manifests and layers; split it", maxReferences)
	}
	return nil
}

// checkDocker checks what `docker save` has written.
func (c *contents) checkDocker(platform platforms.MatchComparer) (map[string]bool, error) {
	var manifests []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := c.decode("manifest.json", &manifests); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, m := range manifests {
		if err := c.count(1 + len(m.RepoTags) + len(m.Layers)); err != nil {
			return nil, err
		}
		if len(m.RepoTags) == 0 {
			return nil, unfitf("it contains an image without a name; save images by their names and tags, not by their IDs")
		}
		title := ""
		for i, tag := range m.RepoTags {
			name, err := FullName(tag)
			if err != nil {
				return nil, unfitf("it contains an image with the name %q: %v", tag, err)
			}
			if names[name] = true; i == 0 {
				title = name
			}
		}
		var config ocispec.Image
		if err := c.decode(path.Clean(m.Config), &config); err != nil {
			return nil, err
		}
		if config.OS != "" && !platform.Match(config.Platform) {
			return nil, otherPlatform(title, config.Platform)
		}
		for _, layer := range m.Layers {
			if !c.files[path.Clean(layer)] {
				return nil, unfitf("layer %s of %s is missing from it; save the image again", layer, title)
			}
		}
	}
	return names, nil
}

// checkLayout checks an OCI layout.
func (c *contents) checkLayout(platform platforms.MatchComparer) (map[string]bool, error) {
	var index ocispec.Index
	if err := c.decode(ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	if err := c.count(len(index.Manifests)); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range index.Manifests {
		name := d.Annotations[images.AnnotationImageName]
		if name == "" {
			name = d.Annotations[ocispec.AnnotationRefName]
		}
		if name == "" || names[name] && d.Annotations[images.AnnotationManifestSubject] != "" {
			continue
		}
		if !strings.Contains(name, "/") {
			return nil, unfitf("it contains an image that is named only %q; a layout needs the full name, in the annotation %s", name, images.AnnotationImageName)
		}
		if err := c.checkImage(name, d, platform); err != nil {
			return nil, err
		}
		names[name] = true
	}
	return names, nil
}

// checkImage looks for a manifest that fits the platform, with all it refers to.
func (c *contents) checkImage(name string, d ocispec.Descriptor, platform platforms.MatchComparer) error {
	manifests, err := c.manifests(d, 0, map[string]bool{})
	if err != nil {
		return err
	}
	var other []ocispec.Platform
	var artifact error
	for _, d := range manifests {
		if d.Platform != nil && !platform.Match(*d.Platform) {
			other = append(other, *d.Platform)
			continue
		}
		var m ocispec.Manifest
		if err := c.decode(blob(d), &m); err != nil {
			return err
		}
		if err := c.count(1 + len(m.Layers)); err != nil {
			return err
		}
		if err := checkKind(name, d.MediaType, m); err != nil {
			artifact = err // beside an image, as what was attached to it
			continue
		}
		var config ocispec.Image
		if err := c.decode(blob(m.Config), &config); err != nil {
			return err
		}
		if config.OS != "" && !platform.Match(config.Platform) {
			other = append(other, config.Platform)
			continue
		}
		for _, layer := range m.Layers {
			if !c.files[blob(layer)] {
				return unfitf("layer %s of %s is missing from it; save the image again, for this platform", layer.Digest, name)
			}
		}
		return nil
	}
	if artifact != nil && len(other) == 0 {
		return artifact
	}
	return otherPlatform(name, other...)
}

// checkKind refuses a manifest that describes something else than an image: a chart
// of Helm, files of ORAS, a signature. containerd takes such layers for none and
// unpacks nothing without an error (2.4).
func checkKind(name, mediaType string, m ocispec.Manifest) error {
	isLayer := func(d ocispec.Descriptor) bool { return images.IsLayerType(d.MediaType) }
	kind := m.ArtifactType
	switch {
	case !images.IsManifestType(mediaType):
		kind = cmp.Or(kind, mediaType)
	case !images.IsKnownConfig(m.Config.MediaType):
		kind = cmp.Or(kind, m.Config.MediaType)
	case len(m.Layers) > 0 && !slices.ContainsFunc(m.Layers, isLayer):
		kind = cmp.Or(kind, m.Layers[0].MediaType)
	default:
		return nil
	}
	return unfitf("%s in it is not an image but another artifact (%s), such as those of Helm and ORAS; leave it out, and use the program that it is for", name, cmp.Or(kind, "of no type"))
}

// manifests is the manifests below a descriptor: itself, or those of an index. What is
// named again is not checked again.
func (c *contents) manifests(d ocispec.Descriptor, depth int, seen map[string]bool) ([]ocispec.Descriptor, error) {
	key, index := d.Digest.String(), images.IsIndexType(d.MediaType)
	if d.Platform != nil && !index {
		key += platforms.Format(*d.Platform) // one image may be for several
	}
	if seen[key] {
		return nil, nil
	}
	seen[key] = true
	if !index {
		return []ocispec.Descriptor{d}, nil
	}
	if depth == maxDepth {
		return nil, unfitf("its indexes are nested deeper than %d", maxDepth)
	}
	var children ocispec.Index
	if err := c.decode(blob(d), &children); err != nil {
		return nil, err
	}
	if err := c.count(len(children.Manifests)); err != nil {
		return nil, err
	}
	var all []ocispec.Descriptor
	for _, child := range children.Manifests {
		below, err := c.manifests(child, depth+1, seen)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// blob is where the content of a descriptor is, "" if it names none.
func blob(d ocispec.Descriptor) string {
	if d.Digest.Validate() != nil {
		return ""
	}
	return path.Join(ocispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded())
}

func otherPlatform(name string, have ...ocispec.Platform) error {
	var list []string
	for _, p := range have {
		if text := platforms.Format(p); !slices.Contains(list, text) && p.OS != "unknown" { // attestations
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return unfitf("image %s in it is for %s, and this node is not; save the image for the node's platform", name, strings.Join(list, ", "))
}

// FullName is the full name of an image that a person has written in short, as
// Kubernetes understands it: busybox:1 is docker.io/library/busybox:1.
func FullName(name string) (string, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// counter counts what is read.
type counter struct {
	r        io.Reader
	n        int64
	progress func(int64) // gets the sum, if not nil
	failed   error       // what r has failed with
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed = err
	}
	if c.progress != nil {
		c.progress(c.n)
	}
	return n, err
}
