package policy

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// filtered has the filter know of each object.
func filtered[K any](p *Policy, set func(*filter, K), remove func(*filter, string)) kube.Handler[K] {
	return kube.Handler[K]{Changed: func(c kube.Change[K]) {
		p.change(func(f *filter) {
			if c.Gone {
				remove(f, c.Key.String())
			} else {
				set(f, c.After)
			}
		})
	}}
}

func (p *Policy) policies(client kubernetes.Interface) kube.Following {
	return kube.NewWatch(kube.From(client, client.NetworkingV1().NetworkPolicies(""), metav1.ListOptions{}), trimPolicy).
		With(filtered(p, (*filter).setPolicy, (*filter).deletePolicy))
}

// nodes has the filter know from where nodes themselves send to pods, and where their pods are.
func (p *Policy) nodes() kube.Following {
	set := func(f *filter, n *v1.Node) { f.setNode(n.Name, ownAddresses(n, p.config.ClusterCIDR), ranges(n)...) }
	update := filtered(p, set, (*filter).deleteNode).Changed
	return p.config.Nodes.With(kube.Handler[*v1.Node]{Changed: func(c kube.Change[*v1.Node]) {
		if c.Came || c.Gone || sends(c.Before, c.After) {
			update(c)
		}
	}})
}

// sends reports whether what ownAddresses and ranges read of a node has changed.
func sends(before, after *v1.Node) bool {
	return !slices.Equal(before.Spec.PodCIDRs, after.Spec.PodCIDRs) || !slices.Equal(before.Status.Addresses, after.Status.Addresses) ||
		!maps.Equal(before.Annotations, after.Annotations)
}

// startWatching begins to follow what policies are about. It returns when all of
// it is known.
func (e *enforcer) startWatching(ctx context.Context) error {
	// It takes as long as the API needs; step takes the note back.
	reading := "NetworkPolicies are not fully in force yet: reading pods, namespaces and nodes from the API"
	e.problem.Store(&reading)
	core := e.client.CoreV1()
	pods := kube.NewWatch(kube.From(e.client, core.Pods(""), metav1.ListOptions{}), trimPod)
	namespaces := kube.NewWatch(kube.From(e.client, core.Namespaces(), metav1.ListOptions{}), trimNamespace)
	leave, err := kube.Follow(ctx,
		pods.With(filtered(e.Policy, (*filter).setPod, (*filter).deletePod)),
		namespaces.With(filtered(e.Policy, func(f *filter, n *v1.Namespace) { f.setNamespace(n.Name, n.Labels) }, (*filter).deleteNamespace)),
		e.nodes(),
	)
	if err == nil && ctx.Err() != nil {
		err = errors.New("stopped")
	}
	if err != nil {
		leave()
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	var sandboxes sync.WaitGroup
	sandboxes.Go(func() { e.followSandboxes(inner) })
	e.stop = func() {
		cancel()
		leave()
		sandboxes.Wait()
	}
	return nil
}

// stopWatching also forgets what was watched: deletions go unnoticed meanwhile.
func (e *enforcer) stopWatching() {
	if e.stop == nil {
		return
	}
	e.stop()
	e.stop = nil
	e.mu.Lock()
	defer e.mu.Unlock()
	e.filter.forget()
}

// small also drops the version, so that an object without other changes is the same.
func small(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID,
		Labels: m.Labels, CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
}

func trimPolicy(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: small(np.ObjectMeta), Spec: np.Spec}
}

func trimNamespace(n *v1.Namespace) *v1.Namespace {
	return &v1.Namespace{ObjectMeta: small(n.ObjectMeta)}
}

// trimPod gathers the named ports of all containers in one.
func trimPod(p *v1.Pod) *v1.Pod {
	o := &v1.Pod{
		ObjectMeta: small(p.ObjectMeta),
		Spec:       v1.PodSpec{HostNetwork: p.Spec.HostNetwork, NodeName: p.Spec.NodeName},
		Status:     v1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs},
	}
	var named []v1.ContainerPort
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, port := range c.Ports {
			if port.Name != "" {
				named = append(named, v1.ContainerPort{Name: port.Name, ContainerPort: port.ContainerPort, Protocol: port.Protocol})
			}
		}
	}
	if named != nil {
		o.Spec.Containers = []v1.Container{{Ports: named}}
	}
	return o
}

// ownAddresses are those from which a node itself sends to pods: its addresses, that of the
// interface that carries its overlay, and in its range of pod addresses the first, which
// its end of the overlay has, and the second, which the bridge has. It reports the others
// itself, so they count once they are proven: the owner of another node's address would
// bypass the policies of all pods. For its own pods a node needs none of them, and over
// VXLAN and WireGuard its packets come from the first address of its range.
func ownAddresses(n *v1.Node, pods []netip.Prefix) []netip.Addr {
	var all []netip.Addr
	proven, _ := kube.Proven(n)
	add := func(a netip.Addr, vouched bool) {
		host := a.IsGlobalUnicast() || a.IsLinkLocalUnicast()
		if host && (vouched || slices.Contains(proven, a)) && !slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(a) }) {
			all = append(all, a)
		}
	}
	var carrier overlay.Local
	if json.Unmarshal([]byte(n.Annotations[layout.OverlayAnnotation]), &carrier) == nil {
		add(carrier.IP, false)
	}
	for _, a := range n.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		if err == nil && (a.Type == v1.NodeInternalIP || a.Type == v1.NodeExternalIP) {
			add(addr.Unmap(), a.Type == v1.NodeExternalIP)
		}
	}
	for _, r := range ranges(n) {
		first := r.Addr()
		all = append(all, first, first.Next())
	}
	return all
}

// ranges are those of a node's pods.
func ranges(n *v1.Node) (all []netip.Prefix) {
	for _, text := range n.Spec.PodCIDRs {
		if r, err := netip.ParsePrefix(text); err == nil {
			all = append(all, r.Masked())
		}
	}
	return all
}
