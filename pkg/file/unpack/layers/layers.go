// Package layers bounds what containerd takes in and unpacks, whoever wants it: a pull,
// an import, or somebody with containerd's own command.
package layers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/layout"
)

// builtIn is whether what is written is an image that comes with lite. It is small, and
// no pod starts without it: it may take of what is kept of the disk.
func builtIn(ctx context.Context) bool {
	lease, ok := leases.FromContext(ctx)
	return ok && strings.HasPrefix(lease, layout.BuiltInLease)
}

// Store is a store that leaves of its disk what is kept, and gives nobody the whole of
// something at once that is too large for a description of an image.
func Store(of content.Store, disk unpack.Disk) content.Store {
	return store{Documents(of), disk}
}

type store struct {
	content.Store
	disk unpack.Disk
}

// Writer implements content.Ingester.
func (s store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if builtIn(ctx) {
		return s.Store.Writer(ctx, opts...)
	}
	what, need := name(o), o.Desc.Size
	if before, err := s.Status(ctx, o.Ref); err == nil {
		need -= before.Offset // it goes on
	}
	if err := s.disk.Enough(what, need); err != nil {
		return nil, err
	}
	w, err := s.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return writer{w, s.disk.Writer(w, what)}, nil
}

// name is what is written, for people: containerd's references are numbered.
func name(o content.WriterOpts) string {
	if o.Desc.Digest != "" {
		return o.Desc.Digest.String()
	}
	parts := strings.SplitN(o.Ref, "/", 3)
	return strings.TrimPrefix(parts[len(parts)-1], "tar-")
}

type writer struct {
	content.Writer
	bounded io.Writer
}

func (w writer) Write(p []byte) (int, error) { return w.bounded.Write(p) }

// Documents is a store that gives nobody the whole of something at once that is too
// large for a description of an image: manifests and the like are read so, whatever
// size and type they claim. Layers are read piece by piece.
func Documents(of content.Store) content.Store { return documents{of} }

type documents struct{ content.Store }

// ReaderAt implements content.Provider.
func (d documents) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := d.Store.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	return readerAt{r, desc}, nil
}

type readerAt struct {
	content.ReaderAt
	desc ocispec.Descriptor
}

// Reader makes content.NewReader use what it would without us.
func (r readerAt) Reader() io.Reader { return content.NewReader(r.ReaderAt) }

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, at int64) (int, error) {
	if err := unpack.DocumentSize(int64(len(p))); err != nil {
		return 0, fmt.Errorf("%s: %w", r.desc.Digest, err)
	}
	n, err := r.ReaderAt.ReadAt(p, at)
	if at == 0 && int64(n) == r.Size() {
		if err := unpack.Document(p[:n]); err != nil && !images.IsLayerType(r.desc.MediaType) {
			return 0, fmt.Errorf("%s: %w", r.desc.Digest, err)
		}
	}
	return n, err
}

// maxLayers is how many the kernel stacks (OVL_MAX_STACK). Docker makes 127.
const maxLayers = 500

// Applier unpacks layers while the disk has more left than what is kept of it.
func Applier(of diff.Applier, disk unpack.Disk) diff.Applier { return applier{of, disk} }

type applier struct {
	diff.Applier
	disk unpack.Disk
}

// Apply implements diff.Applier.
func (a applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount,
	opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	if depth(mounts) >= maxLayers {
		return ocispec.Descriptor{}, fmt.Errorf("the image has more than the %d layers that the kernel stacks; build it with fewer", maxLayers)
	}
	if builtIn(ctx) {
		return a.Applier.Apply(ctx, desc, mounts, opts...)
	}
	watched, end, err := a.disk.Watch(ctx, "unpacking the layer "+desc.Digest.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer end()
	applied, err := a.Applier.Apply(watched, desc, mounts, opts...)
	if full := (*unpack.Full)(nil); err != nil && errors.As(context.Cause(watched), &full) {
		err = full
	}
	return applied, err
}

// depth is how many layers are below the one that is mounted.
func depth(mounts []mount.Mount) (most int) {
	for _, m := range mounts {
		for _, o := range m.Options {
			if below, ok := strings.CutPrefix(o, "lowerdir="); ok {
				most = max(most, 1+strings.Count(below, ":"))
			}
		}
	}
	return most
}

// Processor reads compressed layers as containerd does, with bounded memory: its own
// decompressor of zstd lets a stream of some bytes have half a gigabyte.
func Processor(ctx context.Context, mediaType string) (diff.StreamProcessorInit, bool) {
	if kind, err := images.DiffCompression(ctx, mediaType); err != nil || kind == "" {
		return nil, false
	}
	return func(_ context.Context, stream diff.StreamProcessor, _ map[string]typeurl.Any) (diff.StreamProcessor, error) {
		packed := bufio.NewReaderSize(stream, 1<<16)
		start, err := packed.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		var plain io.ReadCloser
		if unpack.IsZstd(start) {
			plain, err = unpack.Zstd(packed)
		} else { // containerd's knows faster programs for gzip
			plain, err = compression.DecompressStream(packed)
		}
		if err != nil {
			return nil, err
		}
		return processed{plain}, nil
	}, true
}

type processed struct{ io.ReadCloser }

// MediaType implements diff.StreamProcessor.
func (processed) MediaType() string { return ocispec.MediaTypeImageLayer }
