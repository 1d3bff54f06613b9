package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	applydiscovery "k8s.io/client-go/applyconfigurations/discovery/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

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

// EndpointsConfig is what Endpoints has to be told.
type EndpointsConfig struct {
	Kubeconfig string
	ClusterDNS netip.Addr // the address of Service kube-dns
	// NodeAddresses says that nodes answer at their own addresses, not at those of
	// the bridges of their pods.
	NodeAddresses bool
	// Addresses says which addresses of nodes are believed.
	Addresses kube.NodeAddresses
}

// Endpoints is the component that tells Service kube-dns where each node answers:
// there is one endpoint per node, and the Service leads a pod to that of its own.
// Whether a node is ready is not asked: nobody else asks it.
type Endpoints struct {
	config  EndpointsConfig
	written atomic.Bool
	trouble component.Trouble
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
func (e *Endpoints) Note() string { return e.trouble.Note() }

func (e *Endpoints) complain(problems ...error) {
	e.trouble.Become("Cannot add all nodes to Service "+service, problems...)
}

// Run implements component.Component.
func (e *Endpoints) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(e.config.Kubeconfig, "dns-endpoints")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
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
	nodes, nodeController := e.watchNodes(client, notify)
	written, sliceController := watchSlices(client, notify)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { nodeController.RunWithContext(ctx) })
	wg.Go(func() { sliceController.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), nodeController.HasSynced, sliceController.HasSynced) {
		return nil
	}
	for {
		problems, err := e.write(ctx, client, nodes, written)
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

// watchNodes keeps of each Node no more than its answer's address.
func (e *Endpoints) watchNodes(client kubernetes.Interface, notify func()) (cache.Store, cache.Controller) {
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", fields.Everything()),
		ObjectType:    &v1.Node{},
		Transform:     e.trim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			DeleteFunc: func(any) { notify() },
			UpdateFunc: func(before, after any) {
				if differ(before.(*v1.Node), after.(*v1.Node)) {
					notify()
				}
			},
		},
	})
}

// differ compares what trim has left: a node reports its state every so often, which is
// none of ours. A server gets its label when its Node is there already.
func differ(a, b *v1.Node) bool {
	return !reflect.DeepEqual(a.Labels, b.Labels) || !reflect.DeepEqual(a.Spec, b.Spec) || !reflect.DeepEqual(a.Status, b.Status)
}

func (e *Endpoints) trim(o any) (any, error) {
	n, ok := o.(*v1.Node)
	if !ok {
		return o, nil
	}
	small := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, ResourceVersion: n.ResourceVersion, CreationTimestamp: n.CreationTimestamp}}
	if role, ok := n.Labels[kube.ServerLabel]; ok {
		small.Labels = map[string]string{kube.ServerLabel: role}
	}
	if e.config.NodeAddresses {
		small.Status.Addresses = n.Status.Addresses
	} else {
		small.Spec.PodCIDRs = n.Spec.PodCIDRs
	}
	return small, nil
}

// watchSlices keeps what the Service has.
func watchSlices(client kubernetes.Interface, notify func()) (cache.Store, cache.Controller) {
	of := labels.Set{discovery.LabelServiceName: service, discovery.LabelManagedBy: managedBy}.String()
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(client.DiscoveryV1().RESTClient(), "endpointslices", namespace,
			func(o *metav1.ListOptions) { o.LabelSelector = of }),
		ObjectType: &discovery.EndpointSlice{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) {}, // ours
			DeleteFunc: func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
		},
	})
}

// write makes the slices hold what the nodes say. Those that do already are left
// alone. refused is why nodes are in none.
func (e *Endpoints) write(ctx context.Context, client kubernetes.Interface, nodes, have cache.Store) (refused []error, err error) {
	s, err := client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get Service %s: %w", service, err)
	}
	wanted := map[string]bool{}
	parts, refused := e.parts(nodes)
	for i, part := range parts {
		name := fmt.Sprintf("%s-%d", service, i)
		wanted[name] = true
		old, exists, _ := have.GetByKey(namespace + "/" + name)
		if exists && holds(old.(*discovery.EndpointSlice), part, s) {
			continue
		}
		if _, err := client.DiscoveryV1().EndpointSlices(namespace).Apply(ctx, e.slice(name, s, part), metav1.ApplyOptions{FieldManager: layout.DNSManager, Force: true}); err != nil {
			return refused, fmt.Errorf("write EndpointSlice %s: %w", name, err)
		}
	}
	for _, o := range have.List() {
		if name := o.(*discovery.EndpointSlice).Name; !wanted[name] {
			if err := client.DiscoveryV1().EndpointSlices(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				return refused, fmt.Errorf("remove EndpointSlice %s: %w", name, err)
			}
		}
	}
	return refused, nil
}

// endpoint is where a node answers.
type endpoint struct{ node, addr string }

// parts is the endpoints of all nodes, as many at a time as a slice holds, and at
// least one part; and why nodes have none. What a node says is a claim: the API would
// refuse a whole slice for one wrong address.
func (e *Endpoints) parts(nodes cache.Store) ([][]endpoint, []error) {
	var claims []kube.Claim
	for _, o := range nodes.List() {
		n := o.(*v1.Node)
		_, server := n.Labels[kube.ServerLabel]
		c := kube.Claim{Node: n.Name, Created: n.CreationTimestamp.Time, Server: server, Addresses: addressesOf(n)}
		c.Addresses = slices.DeleteFunc(c.Addresses, func(a netip.Addr) bool { return a.Is4() != e.config.ClusterDNS.Is4() })
		claims = append(claims, c)
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

// addressesOf is where a node answers.
func addressesOf(n *v1.Node) (all []netip.Addr) {
	for _, text := range n.Spec.PodCIDRs {
		if a, err := gateway(text); err == nil {
			all = append(all, a)
		}
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
	return []port{{"dns", v1.ProtocolUDP, layout.DNSPort}, {"dns-tcp", v1.ProtocolTCP, layout.DNSPort}, {"metrics", v1.ProtocolTCP, layout.DNSMetricsPort}}
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
	if len(have.OwnerReferences) != 1 || have.OwnerReferences[0].UID != s.UID || len(have.Endpoints) != len(part) || len(have.Ports) != len(ports()) {
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
