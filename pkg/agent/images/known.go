package images

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// known is contents that do not take again what they have. containerd (2.4) writes each
// file of an archive, and notices then that it has it: of an archive that has changed,
// that is most of it. Such a file is only read, to check that it is what its name claims.
type known struct{ content.Store }

// ofLayout is how containerd refers to a blob of an OCI layout that it imports. Only
// there the name is the digest.
const ofLayout = "tar-" + ocispec.ImageBlobsDir + "/sha256/"

// Writer implements content.Ingester.
func (k known) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	encoded, ok := strings.CutPrefix(o.Ref, ofLayout)
	claimed := digest.NewDigestFromEncoded(digest.SHA256, encoded)
	if !ok || claimed.Validate() != nil {
		return k.Store.Writer(ctx, opts...)
	}
	if _, err := k.Info(ctx, claimed); err != nil {
		return k.Store.Writer(ctx, opts...)
	}
	// Existing content is added to the lease, so that nobody removes it meanwhile.
	w, err := k.Store.Writer(ctx, content.WithRef(o.Ref), content.WithDescriptor(ocispec.Descriptor{Digest: claimed, Size: o.Desc.Size}))
	if err == nil { // it has just been removed
		return w, nil
	}
	if !errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	return &compared{ref: o.Ref, claimed: claimed, hash: sha256.New(), since: time.Now()}, nil
}

// compared is a file that already exists.
type compared struct {
	ref     string
	claimed digest.Digest
	hash    hash.Hash
	read    int64
	since   time.Time
}

func (c *compared) Write(p []byte) (int, error) {
	c.read += int64(len(p))
	return c.hash.Write(p)
}

// Digest implements content.Writer.
func (c *compared) Digest() digest.Digest { return digest.NewDigest(digest.SHA256, c.hash) }

// Commit implements content.Writer.
func (c *compared) Commit(context.Context, int64, digest.Digest, ...content.Opt) error {
	if c.Digest() != c.claimed {
		return unfitf("%s in it is damaged: it has the digest %s; save the image again", strings.TrimPrefix(c.ref, "tar-"), c.Digest())
	}
	return nil
}

// Status implements content.Writer.
func (c *compared) Status() (content.Status, error) {
	return content.Status{Ref: c.ref, Offset: c.read, StartedAt: c.since, UpdatedAt: time.Now()}, nil
}

// Truncate implements content.Writer.
func (c *compared) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("restart %s at %d: %w", c.ref, size, errdefs.ErrNotImplemented)
	}
	c.hash.Reset()
	c.read = 0
	return nil
}

// Close implements content.Writer.
func (*compared) Close() error { return nil }
