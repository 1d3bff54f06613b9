package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	applydiscovery "k8s.io/client-go/applyconfigurations/discovery/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const (
	service   = layout.DNSService
	managedBy = layout.DNSEndpoints
	// perSlice is what the API allows an EndpointSlice to hold.
	perSlice = 1000
)

// EndpointsConfig is the configuration of Endpoints.
type EndpointsConfig struct {
	Client     *kube.Client
	Nodes      *kube.Nodes
	ClusterDNS netip.Addr // the address of Service kube-dns
	// NodeAddresses means that nodes answer at their own addresses, not at those of the
	// bridges of their pods.
	NodeAddresses bool
	// Addresses decides which addresses of nodes to believe.
	Addresses kube.NodeAddresses
}

// Endpoints is the component that adds the address at which each node answers to Service
// kube-dns: one endpoint per node, and the Service leads a pod to that of its own node. It
// does not matter whether a node is ready, since only its own pods use its endpoint.
type Endpoints struct {
	config  EndpointsConfig
	written atomic.Bool
	problem component.Problem
}

// NewEndpoints makes the component; nothing is touched before Run.
func NewEndpoints(c EndpointsConfig) *Endpoints { return &Endpoints{config: c} }

// Name implements component.Component.
func (*Endpoints) Name() string { return "dns-endpoints" }

// Ready implements component.Component.
func (e *Endpoints) Ready(context.Context) error {
	if e.written.Load() {
		return nil
	}
	if note := e.Note(); note != "" {
		return errors.New(note)
	}
	return errors.New("waiting to add the nodes to Service " + service)
}

// Note implements component.Noter.
func (e *Endpoints) Note() string { return e.problem.Note() }

func (e *Endpoints) complain(problems ...error) {
	e.problem.Set("Cannot add all nodes to Service "+service, problems...)
}

// Run implements component.Component.
func (e *Endpoints) Run(ctx context.Context) error {
	client, err := e.config.Client.Clientset()
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	written := watchSlices(client)
	leave, err := kube.Follow(ctx, e.config.Nodes.With(kube.Wake(notify, e.differ)), written.With(kube.Handler[*discovery.EndpointSlice]{
		Changed: func(c kube.Change[*discovery.EndpointSlice]) {
			if !c.Came { // what comes is ours
				notify()
			}
		},
	}))
	defer leave()
	if err != nil || ctx.Err() != nil {
		return err
	}
	for {
		problems, err := e.write(ctx, client, e.config.Nodes.List(), written)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			e.written.Store(true)
		case e.written.Load(): // at a start the Service may not be there yet
			problems = append(problems, err)
		}
		e.complain(problems...)
		if err != nil {
			kube.Sleep(ctx, 200*time.Millisecond)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// differ reports whether anything that matters here has changed. A node updates its status
// every so often, which does not matter, and a server gets its label only after its Node
// was created.
func (e *Endpoints) differ(before, after *v1.Node) bool {
	return !reflect.DeepEqual(e.claim(before), e.claim(after))
}

// watchSlices is what the Service has.
func watchSlices(client kubernetes.Interface) *kube.Watch[*discovery.EndpointSlice] {
	of := labels.Set{discovery.LabelServiceName: service, discovery.LabelManagedBy: managedBy}.String()
	return kube.NewWatch(kube.From(client, client.DiscoveryV1().EndpointSlices(namespace), metav1.ListOptions{LabelSelector: of}),
		func(s *discovery.EndpointSlice) *discovery.EndpointSlice {
			s.ManagedFields = nil
			return s
		})
}

// write makes the slices match the nodes, and leaves those alone that already do. refused
// is why nodes are in no slice.
func (e *Endpoints) write(ctx context.Context, client kubernetes.Interface, nodes []*v1.Node,
	have *kube.Watch[*discovery.EndpointSlice]) (refused []error, err error) {
	s, err := client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get Service %s: %w", service, err)
	}
	wanted := map[string]bool{}
	parts, refused := e.parts(nodes)
	for i, part := range parts {
		name := fmt.Sprintf("%s-%d", service, i)
		wanted[name] = true
		if old, exists := have.Get(namespace, name); exists && holds(old, part, s) {
			continue
		}
		if _, err := client.DiscoveryV1().EndpointSlices(namespace).Apply(ctx, e.slice(name, s, part),
			metav1.ApplyOptions{FieldManager: layout.DNSManager, Force: true}); err != nil {
			return refused, fmt.Errorf("write EndpointSlice %s: %w", name, err)
		}
	}
	for _, old := range have.List() {
		if name := old.Name; !wanted[name] {
			if err := client.DiscoveryV1().EndpointSlices(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				return refused, fmt.Errorf("remove EndpointSlice %s: %w", name, err)
			}
		}
	}
	return refused, nil
}

// endpoint is where a node answers.
type endpoint struct{ node, addr string }

// parts is the endpoints of all nodes, as many at a time as a slice holds, and at least one
// part; and why nodes have none. What a node reports is a claim: the API would refuse a
// whole slice for one wrong address.
func (e *Endpoints) parts(nodes []*v1.Node) ([][]endpoint, []error) {
	var claims []kube.Claim
	for _, n := range nodes {
		claims = append(claims, e.claim(n))
	}
	have, refused := e.addresses().Sort(claims)
	var all []endpoint
	for node, addresses := range have {
		all = append(all, endpoint{node, addresses[0].String()})
	}
	slices.SortFunc(all, func(a, b endpoint) int { return strings.Compare(a.node, b.node) })
	if len(all) == 0 {
		return nil, refused
	}
	return slices.Collect(slices.Chunk(all, perSlice)), refused
}

// addresses is which ones a node can have: bridges of pods are where pods are.
func (e *Endpoints) addresses() kube.NodeAddresses {
	a := e.config.Addresses
	if !e.config.NodeAddresses {
		a.Within, a.Pods = a.Pods, nil
	}
	return a
}

// claim is the addresses at which a node reports to answer.
func (e *Endpoints) claim(n *v1.Node) kube.Claim {
	_, server := n.Labels[kube.ServerLabel]
	c := kube.Claim{Node: n.Name, Created: n.CreationTimestamp.Time, Server: server, Addresses: e.addressesOf(n)}
	if e.config.NodeAddresses {
		c.Proven, _ = kube.Proven(n)
	}
	c.Addresses = slices.DeleteFunc(c.Addresses, func(a netip.Addr) bool { return a.Is4() != e.config.ClusterDNS.Is4() })
	return c
}

// addressesOf is where a node answers.
func (e *Endpoints) addressesOf(n *v1.Node) (all []netip.Addr) {
	if !e.config.NodeAddresses {
		for _, text := range n.Spec.PodCIDRs {
			if a, err := gateway(text); err == nil {
				all = append(all, a)
			}
		}
		return all
	}
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == v1.NodeInternalIP {
			all = append(all, addr)
		}
	}
	return all
}

func (e *Endpoints) addressType() discovery.AddressType {
	if e.config.ClusterDNS.Is4() {
		return discovery.AddressTypeIPv4
	}
	return discovery.AddressTypeIPv6
}

// ports is where the ports of the Service, by their names, lead to.
func ports() []port {
	return []port{{"dns", v1.ProtocolUDP, layout.DNSPort}, {"dns-tcp", v1.ProtocolTCP, layout.DNSPort},
		{"metrics", v1.ProtocolTCP, layout.DNSMetricsPort}}
}

type port struct {
	name     string
	protocol v1.Protocol
	number   int32
}

// slice is the EndpointSlice that holds a part. It goes with the Service.
func (e *Endpoints) slice(name string, s *v1.Service, part []endpoint) *applydiscovery.EndpointSliceApplyConfiguration {
	slice := applydiscovery.EndpointSlice(name, namespace).
		WithLabels(map[string]string{discovery.LabelServiceName: service, discovery.LabelManagedBy: managedBy}).
		WithOwnerReferences(applymeta.OwnerReference().WithAPIVersion("v1").WithKind("Service").WithName(s.Name).WithUID(s.UID)).
		WithAddressType(e.addressType())
	for _, p := range ports() {
		slice.WithPorts(applydiscovery.EndpointPort().WithName(p.name).WithProtocol(p.protocol).WithPort(p.number))
	}
	for _, at := range part {
		slice.WithEndpoints(applydiscovery.Endpoint().WithAddresses(at.addr).WithNodeName(at.node).
			WithConditions(applydiscovery.EndpointConditions().WithReady(true)))
	}
	return slice
}

// holds reports whether a slice is as slice makes it.
func holds(have *discovery.EndpointSlice, part []endpoint, s *v1.Service) bool {
	if len(have.OwnerReferences) != 1 || have.OwnerReferences[0].UID != s.UID || len(have.Endpoints) != len(part) ||
		len(have.Ports) != len(ports()) {
		return false
	}
	for i, p := range ports() {
		q := have.Ports[i]
		if q.Name == nil || *q.Name != p.name || q.Protocol == nil || *q.Protocol != p.protocol || q.Port == nil || *q.Port != p.number {
			return false
		}
	}
	for i, at := range part {
		x := have.Endpoints[i]
		if !slices.Equal(x.Addresses, []string{at.addr}) || x.NodeName == nil || *x.NodeName != at.node ||
			x.Conditions.Ready == nil || !*x.Conditions.Ready {
			return false
		}
	}
	return true
}
