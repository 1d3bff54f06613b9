package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const annotation = layout.OverlayAnnotation

// mesh makes this node's overlay lead to the pods of all other nodes.
type mesh struct {
	name    string
	client  kubernetes.Interface
	nodes   *kube.Nodes
	overlay *overlay.Overlay
	local   overlay.Local
	changed chan struct{}            // holds one; something about the nodes has
	problem string                   // last reported
	admit   func([]netip.Addr) error // nil where tunnels hide the nodes' own addresses

	version uint64    // of the Node when it last had what this node publishes
	wrote   time.Time // when this process wrote that, if it had to
	twin    *atomic.Pointer[twin]
}

// twin is another machine with this node's identity.
type twin struct {
	at   string // its address, as far as it can be read
	seen time.Time
}

// twinFor is how long a twin counts that was not seen again: each of the two comes back
// every 30 s.
const twinFor = 3 * time.Minute

// note describes a twin, or is "".
func (t *twin) note() string {
	if t == nil || time.Since(t.seen) > twinFor {
		return ""
	}
	return fmt.Sprintf("another machine, at %s, claims to be this node: one is a copy of the other. On the copy, stop lite, remove node-name and agent from its data-dir, "+
		"give the machine a host name of its own, and join it with a token", t.at)
}

// newMesh makes the overlay, or returns nil if it is not needed. No other node knows of
// this one before run.
func newMesh(c Config, client kubernetes.Interface, ranges []netip.Prefix, twins *atomic.Pointer[twin]) (*mesh, error) {
	if c.Backend == "" || c.Backend == "none" {
		return nil, nil
	}
	config := overlay.Config{Backend: c.Backend, NodeIP: c.NodeIP, Interface: c.Interface, Cluster: c.ClusterCIDR, KeyFile: c.KeyFile}
	for _, pods := range ranges {
		if pods.Addr().Is4() {
			config.Pods = pods
		} else {
			config.Pods6 = pods
		}
	}
	o, err := overlay.New(config)
	if err != nil {
		return nil, err
	}
	m := &mesh{name: c.NodeName, client: client, nodes: c.Nodes, overlay: o, changed: make(chan struct{}, 1), twin: twins}
	if m.local, err = o.Setup(); err != nil {
		o.Close()
		return nil, err
	}
	outer := o.Interface()
	slog.Info("Pods of other nodes are reachable", "by", c.Backend, "through", outer.Name, "because", outer.Why, "mtu", o.MTU())
	return m, nil
}

// mtu is what fits into a packet of a pod; 0 leaves it to the caller.
func (m *mesh) mtu() int {
	if m == nil {
		return 0
	}
	return m.overlay.MTU()
}

// follow signals changed when the nodes in the API change, until leave is called.
func (m *mesh) follow() (leave func(), err error) {
	notify := func() {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
	return m.nodes.Follow(kube.Wake(notify, func(before, after *v1.Node) bool {
		// A node updates its status every so often, which does not matter here.
		return before.UID != after.UID || before.Annotations[annotation] != after.Annotations[annotation] ||
			!slices.Equal(before.Spec.PodCIDRs, after.Spec.PodCIDRs)
	}))
}

// sync makes the kernel match what the nodes publish. It reports problems when they change.
// Before all nodes are known it does nothing: what an earlier process has set up carries
// their packets.
func (m *mesh) sync(ctx context.Context) {
	if !m.nodes.Listed() {
		return
	}
	var peers []overlay.Peer
	var errs []error
	for _, n := range m.nodes.List() {
		if n.Name == m.name {
			errs = append(errs, m.publish(ctx, n))
			continue
		}
		p, ok, err := peer(n)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			peers = append(peers, p)
		}
	}
	errs = append(errs, m.overlay.Set(peers))
	if m.admit != nil {
		var at []netip.Addr
		for _, p := range peers {
			if p.IP.Is4() {
				at = append(at, p.IP)
			}
		}
		errs = append(errs, m.admit(at))
	}
	m.report(ctx, errors.Join(errs...))
}

// repair sets up again what somebody has changed of ours, and retries what has failed.
func (m *mesh) repair(ctx context.Context) {
	if why := m.overlay.Check(); why != nil {
		slog.Warn("Setting up the routes to other nodes again", "why", why)
		local, err := m.overlay.Setup()
		if err != nil {
			m.report(ctx, err)
			return
		}
		m.local = local
	}
	// Entries of peers may be gone, too. Those that are right are not written.
	m.sync(ctx)
}

// report logs what is wrong, and posts it as an event of this node, when that changes.
func (m *mesh) report(ctx context.Context, err error) {
	problem := component.Line(err)
	if problem != m.problem && problem != "" {
		slog.Warn("The pods of some nodes are unreachable", "err", err)
		if err := kube.PostNodeEvent(ctx, m.client, m.name, layout.NetworkSource, "PodsUnreachable", problem); err != nil && ctx.Err() == nil {
			slog.Debug("Cannot post an event", "err", err)
		}
	}
	m.problem = problem
}

// peer reads what another node publishes about itself; ok is false until it has.
func peer(n *v1.Node) (p overlay.Peer, ok bool, err error) {
	text := n.Annotations[annotation]
	if text == "" || len(n.Spec.PodCIDRs) == 0 {
		return p, false, nil
	}
	p.Node, p.Created = n.Name, n.CreationTimestamp.Time
	if err := json.Unmarshal([]byte(text), &p.Local); err != nil {
		return p, false, fmt.Errorf("node %s: annotation %s: %.100s", n.Name, annotation, err) // it quotes what may have any length
	}
	for _, text := range n.Spec.PodCIDRs {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return p, false, fmt.Errorf("node %s: spec.podCIDRs: %w", n.Name, err)
		}
		p.Pods = append(p.Pods, cidr)
	}
	return p, true, nil
}

// isTwin reports whether somebody else has written for this node, at another
// address, and remembers it.
func (m *mesh) isTwin(text string) bool {
	var other overlay.Local
	if json.Unmarshal([]byte(text), &other) != nil || !other.IP.IsValid() || other.IP == m.local.IP {
		return false
	}
	found := &twin{other.IP.String(), time.Now()}
	if m.twin.Swap(found).note() == "" {
		slog.Warn("Two machines are one node", "node", m.name, "why", found.note())
	}
	return true
}

// publish publishes how other nodes reach this node's pods.
func (m *mesh) publish(ctx context.Context, self *v1.Node) error {
	text, err := json.Marshal(m.local)
	if err != nil {
		return err
	}
	there, now := self.Annotations[annotation], version(self)
	recently := time.Since(m.wrote) < reconcileEvery
	switch {
	case recently && now < m.version:
		return nil // it is from before this process wrote
	case there == string(text):
		m.version = now
		return nil
	case m.version > 0 && m.isTwin(there) && recently:
		return nil // two that write whenever the other has would do nothing else
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotation: string(text)}}})
	if err != nil {
		return err
	}
	written, err := m.client.CoreV1().Nodes().Patch(ctx, m.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("publish how to reach this node: %w", err)
	}
	m.version, m.wrote = version(written), time.Now()
	return nil
}

// version orders what is seen of an object.
func version(n *v1.Node) uint64 {
	number, _ := strconv.ParseUint(n.ResourceVersion, 10, 64)
	return number
}
