package images

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// counted counts the bytes that are written to it.
type counted struct {
	content.Store
	written *int64
}

func (c counted) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := c.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return countedWriter{w, c.written}, nil
}

type countedWriter struct {
	content.Writer
	written *int64
}

func (c countedWriter) Write(p []byte) (int, error) {
	*c.written += int64(len(p))
	return c.Writer.Write(p)
}

// Most of a changed archive already exists: 295 MB were written again.
func TestWhatIsThereIsNotWrittenAgain(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var written int64
	k := known{counted{store, &written}}
	const layer = "a layer, which is there by now"
	sum := digest.FromString(layer)
	// As containerd does: it does not announce which digest is to come.
	write := func(ref, data string) (int64, error) {
		written = 0
		r := strings.NewReader(data)
		err := content.WriteBlob(t.Context(), k, ref, r, ocispec.Descriptor{Size: int64(len(data))})
		if rest, _ := io.ReadAll(r); err == nil && len(rest) > 0 {
			t.Errorf("%s: %d bytes were not read: who reads the archive takes the digest of what was", ref, len(rest))
		}
		return written, err
	}
	other := "tar-blobs/sha256/" + digest.FromString("another").Encoded()
	for _, c := range []struct {
		name, ref, data string
		written         bool
	}{
		{"the first time", "tar-blobs/sha256/" + sum.Encoded(), layer, true},
		{"again", "tar-blobs/sha256/" + sum.Encoded(), layer, false},
		{"a name of docker's", "tar-" + sum.Encoded() + "/layer.tar", layer, true},
		{"no digest", "tar-blobs/sha256/x", layer, true},
		{"another one", other, "another", true},
		{"that again", other, "another", false},
	} {
		n, err := write(c.ref, c.data)
		if err != nil || (n > 0) != c.written {
			t.Errorf("%s: %d bytes were written, %v", c.name, n, err)
		}
	}
	// Its name may lie.
	if _, err := write(other, "anothex"); !errors.As(err, new(unfit)) || !strings.Contains(err.Error(), "blobs/sha256/"+digest.FromString("another").Encoded()+" in it is damaged") {
		t.Errorf("got %v", err)
	}
	if got, err := content.ReadBlob(t.Context(), k, ocispec.Descriptor{Digest: sum, Size: int64(len(layer))}); err != nil || string(got) != layer {
		t.Errorf("it is %q now, %v", got, err)
	}
}
