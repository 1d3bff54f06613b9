package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/containerd/v2/core/transfer"
	image "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/typeurl/v2"
)

// The plugin that carries images is ours around containerd's: containerd (2.4) reads
// the credentials of registries once, when it starts, and knows none for "*".
const (
	theirTransfer = "io.containerd.transfer.v1.local"
	ourTransfer   = "io.containerd.transfer.v1.lite"
)

// registerPuller replaces containerd's plugin, which must be disabled, with ours. A process
// can do that once.
func registerPuller(credentials func(host string) (user, secret string)) error {
	for _, r := range registry.Graph(nil) {
		if r.URI() != theirTransfer {
			continue
		}
		registry.Register(&plugin.Registration{
			Type: plugins.TransferPlugin, ID: "lite", Requires: append(slices.Clone(r.Requires), plugins.GCPlugin), Config: r.Config,
			InitFn: func(ic *plugin.InitContext) (any, error) {
				theirs, err := r.InitFn(ic)
				if err != nil {
					return nil, err
				}
				t, ok := theirs.(transfer.Transferrer)
				if !ok {
					return nil, fmt.Errorf("%s transfers nothing", theirTransfer)
				}
				garbage, err := collectorOf(ic)
				if err != nil {
					return nil, err
				}
				return puller{t, credentials, garbage}, nil
			},
		})
		return nil
	}
	return fmt.Errorf("this containerd has no plugin %s", theirTransfer)
}

// puller adds the credentials of registries.yaml to pulls that have none.
type puller struct {
	transfer.Transferrer
	credentials func(host string) (user, secret string)
	garbage     collector
}

// Transfer implements transfer.Transferrer.
func (p puller) Transfer(ctx context.Context, from, to any, opts ...transfer.Opt) error {
	if r, ok := from.(*image.OCIRegistry); ok {
		with, done, err := p.with(ctx, r)
		if err != nil {
			return err
		}
		defer done()
		from = with
	}
	err := p.Transferrer.Transfer(ctx, from, to, opts...)
	if errors.Is(err, syscall.ENOSPC) {
		p.collect(ctx)
	}
	return err
}

// collect immediately frees the space of an image that did not fit: containerd would keep
// it until much else has changed, and other pods need the space.
func (p puller) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), collectFor)
	defer cancel()
	if _, err := p.garbage.ScheduleAndWait(ctx); err != nil {
		slog.Warn("The space of an image on the full disk is not freed yet", "err", err)
	}
}

// collectFor is how long who pulls waits at most.
const collectFor = 30 * time.Second

// with is a source of the same image that has more credentials. Whom a source asks for
// them is known to itself only; but it can be sent to another process, which then asks
// over a stream. That stream goes through here.
func (p puller) with(ctx context.Context, r *image.OCIRegistry) (*image.OCIRegistry, func(), error) {
	l := &loginStream{credentials: p.credentials, asked: make(chan typeurl.Any), answered: make(chan answer), ended: make(chan struct{})}
	sent, err := r.MarshalAny(ctx, l)
	if err != nil {
		l.end() // who would answer waits already
		return nil, nil, fmt.Errorf("get the credentials of %s: %w", r.Image(), err)
	}
	with := &image.OCIRegistry{}
	if err := with.UnmarshalAny(ctx, l, sent); err != nil {
		l.end()
		return nil, nil, fmt.Errorf("get the credentials of %s: %w", r.Image(), err)
	}
	return with, l.end, nil
}

// loginStream is both ends of the stream with which containerd asks for credentials, one
// request at a time. If there are none, it adds ours.
type loginStream struct {
	credentials func(host string) (user, secret string)
	asked       chan typeurl.Any
	answered    chan answer
	once        sync.Once
	ended       chan struct{}
}

type answer struct {
	typeurl.Any
	err error
}

func (l *loginStream) end() { l.once.Do(func() { close(l.ended) }) }

// Create and Get implement streaming.StreamCreator and StreamGetter.
func (l *loginStream) Create(context.Context, string) (streaming.Stream, error) {
	return &answering{loginStream: l}, nil
}

func (l *loginStream) Get(context.Context, string) (streaming.Stream, error) {
	return &asking{loginStream: l}, nil
}

// asking is the end of who pulls.
type asking struct {
	*loginStream
	host string
}

// Send sends a request.
func (a *asking) Send(request typeurl.Any) error {
	var r transfertypes.AuthRequest
	if err := typeurl.UnmarshalTo(request, &r); err != nil {
		return err
	}
	a.host = r.Host
	select {
	case a.asked <- request:
		return nil
	case <-a.ended:
		return io.ErrClosedPipe
	}
}

// Recv waits for the answer. One without credentials is replaced by ours.
func (a *asking) Recv() (typeurl.Any, error) {
	select {
	case got := <-a.answered:
		if got.err != nil {
			return nil, got.err
		}
		var theirs transfertypes.AuthResponse
		if err := typeurl.UnmarshalTo(got.Any, &theirs); err != nil || theirs.Secret != "" || theirs.Username != "" {
			return got.Any, err
		}
		ours := &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_REFRESH}
		if ours.Username, ours.Secret = a.credentials(a.host); ours.Username != "" {
			ours.AuthType = transfertypes.AuthType_CREDENTIALS
		}
		return typeurl.MarshalAny(ours)
	case <-a.ended:
		return nil, io.ErrClosedPipe
	}
}

// Close implements streaming.Stream.
func (a *asking) Close() error { a.end(); return nil }

// answering is the end of who knows the credentials that came with the request to
// pull.
type answering struct {
	*loginStream
	open bool // a request that has no answer yet
}

// errNoCredentials is what containerd (2.4) reports about such an error: nothing.
var errNoCredentials = errors.New("the credentials that came with the request cannot be read")

// Recv waits for a request. A caller that has not answered the previous one has no
// credentials.
func (a *answering) Recv() (typeurl.Any, error) {
	if a.open {
		if err := a.reply(answer{err: errNoCredentials}); err != nil {
			return nil, err
		}
	}
	select {
	case request := <-a.asked:
		a.open = true
		return request, nil
	case <-a.ended:
		return nil, io.EOF
	}
}

// Send sends an answer.
func (a *answering) Send(response typeurl.Any) error { return a.reply(answer{Any: response}) }

func (a *answering) reply(with answer) error {
	a.open = false
	select {
	case a.answered <- with:
		return nil
	case <-a.ended:
		return io.EOF
	}
}

// Close implements streaming.Stream.
func (a *answering) Close() error { a.end(); return nil }
