// Package proof finds out which of the addresses that nodes report are their own. A
// node writes them itself, and at an address that others obey it takes the packets of
// whoever has it. So an address counts once a kubelet with the node's certificate has
// answered there; what is proven is written on the Node, where no node may write.
package proof

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
)

// Config is what the component has to be told.
type Config struct {
	Client *kube.Client
	Nodes  *kube.Nodes
	// Addresses says which addresses a node can have at all.
	Addresses kube.NodeAddresses
	// NodePorts are Services': whoever has one answers there at the addresses of all nodes.
	NodePorts utilnet.PortRange
}

// Prover is the component. It runs once per cluster, so that each claim is tried by one.
type Prover struct {
	config  Config
	listed  atomic.Bool
	refused component.Problem
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Prover { return &Prover{config: c} }

// Name implements component.Component.
func (*Prover) Name() string { return "node-addresses" }

// Ready implements component.Component. What nobody proves is no reason to wait.
func (p *Prover) Ready(context.Context) error {
	if !p.listed.Load() {
		return errors.New("listing the nodes")
	}
	return nil
}

// Note implements component.Noter: which addresses are not believed, and why.
func (p *Prover) Note() string { return p.refused.Note() }

// Run implements component.Component.
func (p *Prover) Run(ctx context.Context) error {
	cfg, err := p.config.Client.Config()
	if err != nil {
		return err
	}
	client, err := p.config.Client.Clientset()
	if err != nil {
		return err
	}
	// Kubelets have certificates of the authority that the API server has.
	tls, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	return p.serve(ctx, client, handshake{tls.RootCAs}.ask)
}

const (
	// A claim, or a write, that failed is tried again after the first, at last after the second.
	retryFirst = 100 * time.Millisecond
	retryLast  = 30 * time.Second
	// grace is for a node that has just come: it may be ready before its kubelet has a
	// certificate, and the machines before they find each other.
	grace = 10 * time.Second
)

// term is one time of the component's work. What is below mu belongs to all its
// goroutines, all else to one.
type term struct {
	*Prover
	client  kubernetes.Interface
	ask     func(context.Context, claim) error
	changed chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	tries map[claim]*try
}

// try is what has come of a claim that no Node's annotation has yet.
type try struct {
	stop   context.CancelFunc
	proven bool
	// through is that somebody has proven the same before, by whom it may have come about.
	through bool
	failed  error // the first one after the grace
	posted  bool
}

func (p *Prover) serve(ctx context.Context, client kubernetes.Interface, ask func(context.Context, claim) error) error {
	ctx, stop := context.WithCancel(ctx)
	t := &term{Prover: p, client: client, ask: ask, changed: make(chan struct{}, 1), tries: map[claim]*try{}}
	defer t.running.Wait()
	defer stop()
	p.listed.Store(false)
	leave, err := t.follow(ctx)
	defer leave()
	if err != nil {
		return err
	}
	var again <-chan time.Time
	pause := retryFirst
	for {
		err := t.round(ctx, t.nodes())
		if ctx.Err() != nil {
			return nil
		}
		p.listed.Store(true)
		if again = nil; err != nil {
			slog.Warn("Cannot record which addresses of a node are proven; retrying", "err", err, "after", pause)
			again, pause = time.After(pause), min(2*pause, retryLast)
		} else {
			pause = retryFirst
		}
		select {
		case <-t.changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// wake has a round follow; many calls may be one round.
func (t *term) wake() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// round brings the tries and what is on the Nodes in step with what nodes claim.
func (t *term) round(ctx context.Context, nodes []node) error {
	var errs []error
	var refused []error
	claimed, owners := map[claim]bool{}, t.owners(nodes)
	for _, n := range nodes {
		v := t.judge(ctx, n, claimed, owners)
		refused = append(refused, v.refused...)
		if v.pending || n.decided && sameAddresses(v.proven, n.proven) {
			continue
		}
		if err := t.write(ctx, n, v.proven); err != nil {
			errs = append(errs, err)
		}
	}
	t.forget(claimed)
	const most = 5 // of what nodes say; the log and the status are for people
	if more := len(refused) - most; more > 0 {
		refused = append(refused[:most], fmt.Errorf("and %d more", more))
	}
	t.refused.Set("Addresses that nodes report are not believed", refused...)
	return errors.Join(errs...)
}

// forget ends the tries of what nobody claims any more.
func (t *term) forget(claimed map[claim]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c, try := range t.tries {
		if !claimed[c] {
			try.stop()
			delete(t.tries, c)
		}
	}
}

// prove tries until it succeeds or nobody claims it any more.
func (t *term) prove(ctx context.Context, c claim, try *try) {
	begun := time.Now()
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		err := t.ask(ctx, c)
		if ctx.Err() != nil {
			return
		}
		late := time.Since(begun) >= grace
		t.mu.Lock()
		try.proven = err == nil
		changed := try.proven || late && try.failed == nil
		if late && try.failed == nil {
			try.failed = err
		}
		t.mu.Unlock()
		if changed {
			t.wake()
		}
		if err == nil || !kube.Sleep(ctx, pause) {
			return
		}
	}
}
