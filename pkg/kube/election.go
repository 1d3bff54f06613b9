package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/layout"
)

// Election decides which server runs what must run once per cluster: a single
// Lease for all of it. It is a component that the others are guarded by.
//
// A server that is alone leads without a Lease, which would have to be renewed, and written to
// disk, forever. It acquires the Lease when other servers may come, in the same term.
type Election struct {
	connect  func() (kubernetes.Interface, error)
	identity string
	shared   <-chan struct{}

	held    chan struct{} // closed when nobody leads without the Lease any more
	settled atomic.Bool   // somebody, here or elsewhere, has been seen to lead
	leader  atomic.Pointer[string]

	mu      sync.Mutex
	term    context.Context // nil while another server leads
	end     context.CancelFunc
	changed chan struct{} // closed when term changes
}

// NewElection makes the component; identity is the server's node name, and shared is closed as
// soon as other servers may take part. Nothing is asked of the client before, so there need not
// be a kubeconfig yet.
func NewElection(client *Client, identity string, shared <-chan struct{}) *Election {
	return newElection(identity, shared, client.Clientset)
}

func newElection(identity string, shared <-chan struct{}, connect func() (kubernetes.Interface, error)) *Election {
	return &Election{connect: connect, identity: identity, shared: shared, held: make(chan struct{}), changed: make(chan struct{})}
}

// Name implements component.Component.
func (*Election) Name() string { return "election" }

// Ready implements component.Component: it is known who leads.
func (e *Election) Ready(context.Context) error {
	if !e.settled.Load() {
		return errors.New("waiting for a server to lead")
	}
	return nil
}

// Note implements component.Noter.
func (e *Election) Note() string {
	switch leader := e.leader.Load(); {
	case leader == nil || *leader == "":
		return ""
	case *leader == e.identity:
		return "this server leads"
	default:
		return *leader + " leads"
	}
}

// Held waits until a server, this or another, holds the Lease. From then on another server that
// takes part in the election cannot lead together with this one, so it is what must be waited for
// before the other gets access to the store. A nil Election has nothing to wait for.
func (e *Election) Held(ctx context.Context) error {
	if e == nil {
		return nil
	}
	select {
	case <-e.held:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait until a server holds the Lease %s: %w", layout.Lease, ctx.Err())
	}
}

// Run implements component.Component. A lost Lease is not a failure: the
// server stands again.
func (e *Election) Run(ctx context.Context) error {
	defer e.resign()
	if !IsClosed(e.shared) {
		e.lead(ctx)
		select {
		case <-e.shared:
		case <-ctx.Done():
			return nil
		}
	}
	client, err := e.connect()
	if err != nil {
		return fmt.Errorf("set up the election: %w", err)
	}
	l := &lease{api: client.CoordinationV1().Leases(metav1.NamespaceSystem), identity: e.identity, seen: e.seen}
	for {
		until, err := l.acquire(ctx)
		if err != nil {
			return nil // told to stop
		}
		e.lead(ctx)
		e.hold()
		if err := e.keep(ctx, l, until); err != nil {
			slog.Warn("This server leads no more", "err", err)
			continue
		}
		// The guarded components have ended before Run is told to stop.
		if err := l.release(context.WithoutCancel(ctx)); err != nil {
			slog.Warn("Another server can lead only when the Lease has expired", "lease", layout.Lease, "err", err)
		}
		return nil
	}
}

// keep renews the Lease until ctx is done. Otherwise it returns why the term is over. The term
// ends in time even if the API does not answer.
func (e *Election) keep(ctx context.Context, l *lease, until time.Time) error {
	expiry := time.AfterFunc(time.Until(until), e.resign)
	defer expiry.Stop()
	for Sleep(ctx, time.Until(until)-(renewDeadline-renewPeriod)) {
		renewed, err := l.renew(ctx, until)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			e.resign()
			return fmt.Errorf("renew the Lease %s: %w", layout.Lease, err)
		}
		if !expiry.Stop() {
			return fmt.Errorf("renew the Lease %s: too late", layout.Lease)
		}
		until = renewed
		expiry.Reset(time.Until(until))
	}
	return nil
}

// seen learns from the Lease who leads.
func (e *Election) seen(holder string, renewed bool) {
	if before := e.leader.Swap(&holder); holder != "" && (before == nil || *before != holder) {
		slog.Info("The cluster has a leader", "server", holder)
	}
	if renewed {
		e.resign() // a term without the Lease; nobody may have one any more
	}
	if holder != "" && !e.leads() {
		e.settled.Store(true)
		e.hold()
	}
}

// hold records that nobody leads without the Lease.
func (e *Election) hold() {
	if !IsClosed(e.held) {
		close(e.held)
	}
}

// lead begins a term, unless there is one.
func (e *Election) lead(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term == nil {
		e.term, e.end = context.WithCancel(ctx)
		e.change()
	}
	e.settled.Store(true)
}

// resign ends the term, if there is one.
func (e *Election) resign() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term != nil {
		e.end()
		e.term = nil
		e.change()
	}
}

func (e *Election) change() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *Election) leads() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term != nil
}

// await waits for a term of leadership; nil when ctx is done before.
func (e *Election) await(ctx context.Context) context.Context {
	for ctx.Err() == nil {
		e.mu.Lock()
		term, changed := e.term, e.changed
		e.mu.Unlock()
		if term != nil && term.Err() == nil {
			return term
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// Guard makes c run only while this server leads, again in each term. A nil
// Election guards nothing: a server that is alone leads.
func (e *Election) Guard(c component.Component) component.Component {
	if e == nil {
		return c
	}
	return &guarded{Component: c, election: e}
}

type guarded struct {
	component.Component
	election *Election
	leads    atomic.Bool
}

// Run implements component.Component.
func (g *guarded) Run(ctx context.Context) error {
	for {
		term := g.election.await(ctx)
		if term == nil {
			return nil
		}
		if err := g.serve(ctx, term); err != nil {
			return err
		}
	}
}

// serve runs the component for one term.
func (g *guarded) serve(ctx, term context.Context) error {
	own, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(term, stop)()
	g.leads.Store(true)
	defer g.leads.Store(false)
	err := g.Component.Run(own)
	if own.Err() != nil {
		return nil // told to stop, or the term is over
	}
	if err == nil {
		err = errors.New("ended by itself")
	}
	return err
}

// Note implements component.Noter for a component that does.
func (g *guarded) Note() string {
	c, ok := g.Component.(component.Noter)
	switch {
	case !g.leads.Load():
		return "another server leads"
	case ok:
		return c.Note()
	}
	return ""
}

// Settings implements component.Configured for a component that does.
func (g *guarded) Settings() (component.Settings, error) {
	if c, ok := g.Component.(component.Configured); ok {
		return c.Settings()
	}
	return component.Settings{}, errors.ErrUnsupported
}

// Ready implements component.Component. Standing by is being ready.
func (g *guarded) Ready(ctx context.Context) error {
	if !g.leads.Load() {
		return g.election.Ready(ctx)
	}
	return g.Component.Ready(ctx)
}
