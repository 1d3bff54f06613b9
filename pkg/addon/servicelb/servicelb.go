// Package servicelb gives Services of type LoadBalancer the addresses of
// nodes. It carries no packet: kube-proxy, on every node, leads what arrives at
// such an address to the Service.
package servicelb

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
)

// Config is the configuration of a LoadBalancer.
type Config struct {
	Client *kube.Client
	Nodes  *kube.Nodes
	// APIPort is the port of the API server on the servers' addresses.
	APIPort int
	// Addresses decides which addresses of nodes to believe.
	Addresses kube.NodeAddresses
	// Disabled takes back what an earlier run has given, and does nothing else.
	Disabled bool
}

// LoadBalancer is the component. It must run once per cluster: one sequence of assignments
// keeps it from giving a port twice.
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
	client, err := l.config.Client.Clientset()
	if err != nil {
		return err
	}
	l.ready.Store(false)
	if l.config.Disabled {
		l.withdraw(ctx, client)
		<-ctx.Done()
		return nil
	}
	return l.serve(ctx, client)
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

// serve watches, and syncs everything whenever something relevant has changed. That is
// cheap: ports are compared between all Services anyway, and nodes are few.
func (l *LoadBalancer) serve(ctx context.Context, client kubernetes.Interface) error {
	c := newController(client, l.config.Nodes, plan{reserved(l.config.APIPort), l.config.Addresses})
	defer c.leaveEndpoints()
	leave, err := c.follow(ctx)
	defer leave()
	if err != nil {
		return err
	}
	var again <-chan time.Time
	pause := retryFirst
	for {
		select {
		case <-c.changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
		err := c.sync(ctx)
		if ctx.Err() != nil {
			return nil
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

// controller is one term of the component's work. All but the watches belong to
// one goroutine.
type controller struct {
	client   kubernetes.Interface
	plan     plan
	services *kube.Watch[service]
	nodes    *kube.Nodes
	// endpoints are those of Services whose traffic stays on its node; no others
	// are watched.
	endpoints map[types.NamespacedName]*endpointsWatch
	changed   chan struct{}
	// wrote is the version of a Service that a write was made for. Until a newer one
	// is seen there is nothing to write again.
	wrote   map[types.NamespacedName]string
	posted  map[types.NamespacedName]string // the last event of each Service
	note    string
	refused component.Problem // addresses that nodes report
}

func newController(client kubernetes.Interface, nodes *kube.Nodes, p plan) *controller {
	byType := fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()
	return &controller{
		client: client, plan: p, nodes: nodes,
		services:  kube.NewWatch(kube.From(client, client.CoreV1().Services(""), metav1.ListOptions{FieldSelector: byType}), reduceService),
		endpoints: map[types.NamespacedName]*endpointsWatch{},
		changed:   make(chan struct{}, 1),
		wrote:     map[types.NamespacedName]string{},
		posted:    map[types.NamespacedName]string{},
	}
}

// follow has the controller wake up when something changes that matters; a node's heartbeat
// does not. It returns when all Services and nodes are known.
func (c *controller) follow(ctx context.Context) (leave func(), err error) {
	return kube.Follow(ctx, c.services.With(kube.Wake[service](c.wake, nil)),
		c.nodes.With(kube.Wake(c.wake, func(before, after *corev1.Node) bool {
			return !reflect.DeepEqual(reduceNode(before), reduceNode(after))
		})))
}

// wake makes the controller sync again; many calls may lead to one sync.
func (c *controller) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
