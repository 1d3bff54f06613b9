// Package loadbalancer gives Services of type LoadBalancer the addresses of
// nodes. It carries no packet: kube-proxy, on every node, leads what arrives at
// such an address to the Service.
package servicelb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
)

// Config is what the component has to be told.
type Config struct {
	Kubeconfig string
	// APIPort is the port of the API server on the servers' addresses.
	APIPort int
	// Addresses says which addresses of nodes are believed.
	Addresses kube.NodeAddresses
	// Disabled takes back what an earlier run has given, and does nothing else.
	Disabled bool
}

// LoadBalancer is the component. It must run once per cluster: that ports are
// given to one Service after the other is what keeps them from being given twice.
type LoadBalancer struct {
	config Config
	ready  atomic.Bool
	note   atomic.Pointer[string]
}

// New makes the component; nothing is touched before Run.
func New(c Config) *LoadBalancer { return &LoadBalancer{config: c} }

// Name implements component.Component.
func (*LoadBalancer) Name() string { return "loadbalancer" }

// Ready implements component.Component: every Service that there was has been
// looked at.
func (l *LoadBalancer) Ready(context.Context) error {
	switch {
	case l.ready.Load():
		return nil
	case l.config.Disabled:
		return errors.New("removing the addresses of Services of type LoadBalancer")
	}
	return errors.New("listing nodes and Services of type LoadBalancer")
}

// Note implements component.Noter: what keeps Services from having addresses.
func (l *LoadBalancer) Note() string {
	if l.config.Disabled {
		return "disabled"
	}
	if note := l.note.Load(); note != nil {
		return *note
	}
	return ""
}

// Run implements component.Component.
func (l *LoadBalancer) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(l.config.Kubeconfig, "loadbalancer")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("create a client: %w", err)
	}
	l.ready.Store(false)
	if l.config.Disabled {
		l.withdraw(ctx, client)
		<-ctx.Done()
		return nil
	}
	l.serve(ctx, client)
	return nil
}

// withdraw tries until it succeeds.
func (l *LoadBalancer) withdraw(ctx context.Context, client kubernetes.Interface) {
	for pause := retryFirst; ; pause = min(2*pause, retryMax) {
		err := withdraw(ctx, client)
		if err == nil {
			l.ready.Store(true)
			return
		}
		slog.Debug("Cannot remove the addresses of Services; retrying", "err", err)
		if !kube.Sleep(ctx, pause) {
			return
		}
	}
}

// A write that failed is tried again after this long, then after twice as long.
const (
	retryFirst = 200 * time.Millisecond
	retryMax   = 30 * time.Second
)

// serve watches and looks at everything again whenever something has changed
// that matters. That is little: ports are compared between all Services anyway,
// and there are as many nodes as machines.
func (l *LoadBalancer) serve(ctx context.Context, client kubernetes.Interface) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	c := newController(client, plan{reserved(l.config.APIPort), l.config.Addresses}, &running)
	byType := fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()
	core := client.CoreV1()
	watch(ctx, &running, client, &corev1.Service{}, c.services, sourceOf(core.Services("").List, core.Services("").Watch), byType, "")
	watch(ctx, &running, client, &corev1.Node{}, c.nodes, sourceOf(core.Nodes().List, core.Nodes().Watch), "", "")

	var again <-chan time.Time
	pause := retryFirst
	for {
		select {
		case <-c.changed:
		case <-again:
		case <-ctx.Done():
			return
		}
		if !c.services.complete() || !c.nodes.complete() {
			continue
		}
		err := c.look(ctx)
		if ctx.Err() != nil {
			return
		}
		note := c.note
		l.note.Store(&note)
		// Also after an error: one Service's must not make the node unready.
		l.ready.Store(true)
		again = nil
		if err != nil {
			slog.Warn("Cannot write the addresses of a Service; retrying", "err", err, "after", pause)
			again, pause = time.After(pause), min(2*pause, retryMax)
			continue
		}
		pause = retryFirst
	}
}

// controller is one term of the component's work. All but the shelves belong to
// one goroutine.
type controller struct {
	client   kubernetes.Interface
	plan     plan
	services *shelf[service]
	nodes    *shelf[node]
	// endpoints are those of Services whose traffic stays on its node; no others
	// are watched.
	endpoints map[types.NamespacedName]*endpointsWatch
	changed   chan struct{}
	// wrote is the version of a Service that a write was made for. Until a newer one
	// is seen there is nothing to write again.
	wrote   map[types.NamespacedName]string
	told    map[types.NamespacedName]string // the last event of each Service
	note    string
	refused component.Trouble // addresses that nodes report
	running *sync.WaitGroup
}

type endpointsWatch struct {
	*shelf[[]place]
	stop context.CancelFunc
}

func newController(client kubernetes.Interface, p plan, running *sync.WaitGroup) *controller {
	c := &controller{
		client: client, plan: p, running: running,
		endpoints: map[types.NamespacedName]*endpointsWatch{},
		changed:   make(chan struct{}, 1),
		wrote:     map[types.NamespacedName]string{},
		told:      map[types.NamespacedName]string{},
	}
	c.services = newShelf(c.wake, reduceService)
	c.nodes = newShelf(c.wake, reduceNode)
	return c
}

// wake makes the controller look again; many calls may make one look.
func (c *controller) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
