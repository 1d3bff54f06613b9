package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/layout"
)

// Election decides which server runs what must run once per cluster: a single
// Lease for all of it. It is a component that the others are guarded by.
type Election struct {
	connect  func() (kubernetes.Interface, error)
	identity string

	mu      sync.Mutex
	term    context.Context // nil while another server leads
	changed chan struct{}   // closed when term changes
	settled atomic.Bool     // somebody, here or elsewhere, has been seen to lead
}

// The timing of upstream's components.
const (
	leaseName     = layout.Lease
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// NewElection makes the component; identity is the server's node name. Nothing is asked of the
// client before the election runs, so there need not be a kubeconfig before.
func NewElection(client *Client, identity string) *Election {
	return newElection(identity, client.Clientset)
}

func newElection(identity string, connect func() (kubernetes.Interface, error)) *Election {
	return &Election{connect: connect, identity: identity, changed: make(chan struct{})}
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

// Run implements component.Component. A lost lease is not a failure: the
// server stands again.
func (e *Election) Run(ctx context.Context) error {
	client, err := e.connect()
	if err != nil {
		return fmt.Errorf("set up the election: %w", err)
	}
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leaseName},
				Client:     client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: e.identity},
			},
			LeaseDuration: leaseDuration,
			RenewDeadline: renewDeadline,
			RetryPeriod:   retryPeriod,
			// The guarded components have ended before Run is told to stop, so
			// another server may take over at once.
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(term context.Context) { e.set(term); <-term.Done() },
				OnStoppedLeading: func() { e.set(nil) }, //nolint:staticcheck // no context: no term
				OnNewLeader:      func(string) { e.settled.Store(true) },
			},
		})
		if err != nil {
			return fmt.Errorf("set up the election: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

func (e *Election) set(term context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term = term
	close(e.changed)
	e.changed = make(chan struct{})
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
