package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// claim is that the kubelet of a node answers at an address.
type claim struct {
	node string
	uid  types.UID // of another Node of that name nothing is known
	at   netip.AddrPort
}

// node is what matters of a Node.
type node struct {
	name    string
	uid     types.UID
	server  bool
	ready   bool
	kubelet uint16
	claims  []netip.Addr
	more    bool // it claims more than anybody has
	proven  []netip.Addr
	decided bool
}

// mostClaims is more than a node has addresses. Each claim costs a connection every
// half a minute while it is not proven, and a Node has room for thousands.
const mostClaims = 8

func reduce(of *v1.Node) node {
	n := node{name: of.Name, uid: of.UID}
	_, n.server = of.Labels[kube.ServerLabel]
	for _, c := range of.Status.Conditions {
		n.ready = n.ready || c.Type == v1.NodeReady && c.Status == v1.ConditionTrue
	}
	if port := of.Status.DaemonEndpoints.KubeletEndpoint.Port; port > 0 && port <= 65535 {
		n.kubelet = uint16(port)
	}
	add := func(a netip.Addr) {
		switch {
		case slices.Contains(n.claims, a):
		case len(n.claims) == mostClaims:
			n.more = true
		default:
			n.claims = append(n.claims, a)
		}
	}
	// External addresses are no claim of a node: the policy nodes.lite.io lets none give
	// itself one.
	for _, a := range of.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == v1.NodeInternalIP {
			add(ip)
		}
	}
	// What arrives by host-gw comes from the address that carries the overlay. There is room for it besides.
	var carrier overlay.Local
	if json.Unmarshal([]byte(of.Annotations[layout.OverlayAnnotation]), &carrier) == nil && carrier.IP.IsValid() &&
		!slices.Contains(n.claims, carrier.IP) {
		n.claims = append(n.claims, carrier.IP)
	}
	n.proven, n.decided = kube.Proven(of)
	return n
}

// verdict is what is known of a node's claims.
type verdict struct {
	proven  []netip.Addr
	refused []error
	// pending is that nothing is to be written yet.
	pending bool
}

// owners is who has which address and claims it still: what is on the Nodes counts before
// what has been shown since. Another node that answers there does so through whoever has
// it, such as by a port of a Service.
func (t *term) owners(nodes []node) map[netip.Addr]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	written := func(n node, a netip.Addr) bool {
		return slices.Contains(n.proven, a) || t.isServer(n) && t.check(a, true) == nil
	}
	shown := func(n node, a netip.Addr) bool {
		known := t.tries[claim{n.name, n.uid, netip.AddrPortFrom(a, n.kubelet)}]
		return known != nil && known.proven && !known.through
	}
	owners := map[netip.Addr]string{}
	for _, has := range []func(node, netip.Addr) bool{written, shown} {
		for _, n := range nodes {
			for _, a := range n.claims {
				if owners[a] == "" && has(n, a) {
					owners[a] = n.name
				}
			}
		}
	}
	return owners
}

func (t *term) isServer(n node) bool { return n.server || n.name == t.config.Addresses.Own }

// judge begins to try what the node claims and nothing is known of. claimed gets what is
// to be tried further.
func (t *term) judge(ctx context.Context, n node, claimed map[claim]bool, owners map[netip.Addr]string) (v verdict) {
	server := t.isServer(n)
	for _, a := range n.claims {
		err := t.check(a, server)
		switch {
		case err != nil:
			v.refused = append(v.refused, fmt.Errorf("node %s: %w", n.name, err))
		case server, slices.Contains(n.proven, a):
			// Whoever has a server has the cluster; and what a node has shown, or somebody has
			// vouched for, is its own for as long as it says so.
			v.proven = append(v.proven, a)
		case t.config.NodePorts.Contains(int(n.kubelet)):
			v.refused = append(v.refused, fmt.Errorf("node %s: %s cannot be proven at port %d, which Services may have", n.name, a, n.kubelet))
		case !n.ready || n.kubelet == 0:
			v.pending = v.pending || !n.decided
		default:
			c := claim{n.name, n.uid, netip.AddrPortFrom(a, n.kubelet)}
			claimed[c] = true
			t.take(ctx, c, n, owners[a], &v)
		}
	}
	if n.more {
		v.refused = append(v.refused, fmt.Errorf("node %s: reports more than %d addresses", n.name, mostClaims))
	}
	if len(n.claims) == 0 && !n.decided {
		v.pending = true // it has said nothing yet
	}
	return v
}

// check says why an address is none to be tried. The overlay may be carried by
// link-local addresses, such as those of two machines on one cable.
func (t *term) check(a netip.Addr, server bool) error {
	if a.Is4() && a.IsLinkLocalUnicast() {
		return nil
	}
	return t.config.Addresses.Check(a, server)
}

// take adds what a try has come to, and begins it.
func (t *term) take(ctx context.Context, c claim, n node, owner string, v *verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.tries[c]
	if known != nil && known.through && owner == "" { // the other one has gone
		known.stop()
		known = nil
	}
	if known == nil {
		ctx, stop := context.WithCancel(ctx)
		known = &try{stop: stop}
		t.tries[c] = known
		t.running.Go(func() { t.prove(ctx, c, known) })
	}
	switch {
	case known.proven && owner != "" && owner != n.name:
		known.through = true
		v.refused = append(v.refused, fmt.Errorf("node %s: %s is an address of node %s; if that node is gone, delete it", n.name, c.at.Addr(), owner))
	case known.proven:
		v.proven = append(v.proven, c.at.Addr())
	case known.failed == nil:
		// Until then a Service keeps the address that it has.
		v.pending = v.pending || !n.decided
	default:
		err := fmt.Errorf("%s is not proven to be its address: %w", c.at.Addr(), known.failed)
		v.refused = append(v.refused, fmt.Errorf("node %s: %w", n.name, err))
		if !known.posted {
			known.posted = true
			t.running.Go(func() { t.postEvent(ctx, n, err) })
		}
	}
}

func sameAddresses(a, b []netip.Addr) bool {
	a, b = slices.SortedFunc(slices.Values(a), netip.Addr.Compare), slices.SortedFunc(slices.Values(b), netip.Addr.Compare)
	return slices.Equal(a, b)
}

// follow has rounds follow changes of what is read of the Nodes, of which a heartbeat is none.
// It returns when all Nodes are known.
func (t *term) follow(ctx context.Context) (leave func(), err error) {
	return kube.Follow(ctx, t.config.Nodes.With(kube.Wake(t.wake, func(before, after *v1.Node) bool {
		return !reflect.DeepEqual(reduce(before), reduce(after))
	})))
}

// nodes is all of them, by name.
func (t *term) nodes() (nodes []node) {
	for _, n := range t.config.Nodes.List() {
		nodes = append(nodes, reduce(n))
	}
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(a.name, b.name) })
	return nodes
}
