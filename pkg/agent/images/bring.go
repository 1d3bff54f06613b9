package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"google.golang.org/grpc"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/file/unpack/layers"
	"lite.io/lite/pkg/layout"
)

// connect makes a client of containerd's that reads no description of an image into
// memory that is too large. Where containerd is in this process, contents are its own, and
// not asked for through the socket; otherwise it is nil.
func connect(socket string, contents content.Store) (*client.Client, error) {
	c, err := client.New(socket, client.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	conn, ok := c.Conn().(*grpc.ClientConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("connect to containerd: its client has a connection of an unknown type (%T)", c.Conn())
	}
	if contents == nil {
		contents = c.ContentStore()
	}
	bounded, err := client.NewWithConn(conn, client.WithDefaultNamespace(namespace),
		client.WithServices(client.WithContentStore(layers.Documents(known{contents}))))
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	return bounded, nil
}

// Leases of imports end after a day, should nobody be left to end them.
const (
	leaseFor = 24 * time.Hour
	endFor   = 30 * time.Second
)

// hold takes a lease on all that is written for an import. When it is released after a
// failure, what nobody else holds is removed before release returns: containerd would
// leave it until much else has changed (2.4), and a bad archive would be on the disk all
// that time.
func hold(ctx context.Context, c *client.Client, name string) (_ context.Context, release func(good bool), err error) {
	if name == "" {
		name = layout.ImportLease
	}
	service := c.LeasesService()
	lease, err := service.Create(ctx, leases.WithID(fmt.Sprint(name, time.Now().UnixNano())), leases.WithExpiration(leaseFor))
	if err != nil {
		return nil, nil, fmt.Errorf("lease what is imported: %w", err)
	}
	held := leases.WithLease(ctx, lease.ID)
	return held, func(good bool) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endFor)
		defer cancel()
		var opts []leases.DeleteOpt
		if !good {
			opts = append(opts, leases.SynchronousDelete)
		}
		if err := service.Delete(ctx, lease, opts...); err != nil {
			slog.Debug("Cannot release the lease of an import yet", "lease", lease.ID, "err", err)
		}
	}, nil
}

// checked reads an archive, and fails where there is more in it than may be: in the
// directory, nobody has inspected them before. It checks what is read in passing, while
// containerd does the same, so that no archive is read twice.
type checked struct {
	from    io.Reader
	feed    *io.PipeWriter
	verdict chan error
	end     error
}

func check(r io.Reader) *checked {
	read, feed := io.Pipe()
	c := &checked{from: r, feed: feed, verdict: make(chan error, 1)}
	go func() {
		err := checkBounds(read)
		c.verdict <- err
		if err == nil { // what follows the archive
			_, err = io.Copy(io.Discard, read)
		}
		read.CloseWithError(err)
	}()
	return c
}

// checkBounds reads an archive to its end.
func checkBounds(r io.Reader) error {
	counted := &counter{r: r}
	plain, suffix, err := unpack.Decompress(counted)
	if err == nil {
		defer plain.Close()
		_, err = readContents(plain, false)
	}
	return broken(err, counted, suffix)
}

// Read implements io.Reader.
func (c *checked) Read(p []byte) (int, error) {
	if c.end != nil {
		return 0, c.end
	}
	n, err := c.from.Read(p)
	if n > 0 {
		if _, refused := c.feed.Write(p[:n]); refused != nil {
			n, err = 0, refused
		}
	}
	if errors.Is(err, io.EOF) {
		err = cmp.Or(c.close(), io.EOF)
	}
	c.end = err
	return n, err
}

// close waits for the result of the check, after the archive was read to its end or is no
// longer read.
func (c *checked) close() error {
	c.feed.Close()
	err := <-c.verdict
	c.verdict <- err
	return err
}

// refusal is what is wrong with an archive that containerd could not read. It knows less
// of it, or notices later.
func (c *checked) refusal() error {
	read := c.end != nil
	if err := c.close(); read && errors.As(err, new(unfit)) {
		return err
	}
	return nil
}
