package policy

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// informer makes one that keeps of each object what trim leaves of it.
func informer[T interface {
	runtime.Object
	metav1.Object
}](c rest.Interface, resource string, kind T, trim func(T) T, set func(*filter, T), remove func(*filter, string), p *Policy) cache.Controller {
	removeKey := func(o any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			p.change(func(f *filter) { remove(f, key) })
		}
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(c, resource, metav1.NamespaceAll, fields.Everything()),
		ObjectType:    kind,
		Transform: func(o any) (any, error) {
			if object, ok := o.(T); ok {
				return trim(object), nil
			}
			return o, nil
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { p.change(func(f *filter) { set(f, o.(T)) }) },
			UpdateFunc: func(before, o any) {
				// A list after a broken watch brings what has not changed, too.
				if before.(T).GetResourceVersion() != o.(T).GetResourceVersion() {
					p.change(func(f *filter) { set(f, o.(T)) })
				}
			},
			DeleteFunc: removeKey,
		},
	})
	return controller
}

// follow runs informers until ctx is done, and returns when all know what there
// is. The returned function waits for their end.
func follow(ctx context.Context, informers ...cache.Controller) (wait func()) {
	var running sync.WaitGroup
	var synced []cache.InformerSynced
	for _, i := range informers {
		running.Go(func() { i.RunWithContext(ctx) })
		synced = append(synced, i.HasSynced)
	}
	cache.WaitForCacheSync(ctx.Done(), synced...)
	return running.Wait
}

func (p *Policy) policyInformer(client kubernetes.Interface) cache.Controller {
	return informer(client.NetworkingV1().RESTClient(), "networkpolicies", &networkingv1.NetworkPolicy{}, trimPolicy, (*filter).setPolicy, (*filter).deletePolicy, p)
}

// startWatching begins to follow what policies are about. It returns when all of
// it is known.
func (e *enforcer) startWatching(ctx context.Context) error {
	// It takes as long as the API needs; step takes the note back.
	reading := "NetworkPolicies are not fully in force yet: reading pods, namespaces and nodes from the API"
	e.trouble.Store(&reading)
	inner, cancel := context.WithCancel(ctx)
	core := e.client.CoreV1().RESTClient()
	wait := follow(inner,
		informer(core, "pods", &v1.Pod{}, trimPod, (*filter).setPod, (*filter).deletePod, e.Policy),
		informer(core, "namespaces", &v1.Namespace{}, trimNamespace, func(f *filter, n *v1.Namespace) { f.setNamespace(n.Name, n.Labels) }, (*filter).deleteNamespace, e.Policy),
		informer(core, "nodes", &v1.Node{}, trimNode, func(f *filter, n *v1.Node) { f.setNode(n.Name, ownAddresses(n, e.config.ClusterCIDR), ranges(n)...) }, (*filter).deleteNode, e.Policy),
	)
	if ctx.Err() != nil {
		cancel()
		wait()
		return errors.New("stopped")
	}
	var sandboxes sync.WaitGroup
	sandboxes.Go(func() { e.followSandboxes(inner) })
	e.stop = func() {
		cancel()
		wait()
		sandboxes.Wait()
	}
	return nil
}

func (e *enforcer) stopWatching() {
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
}

func small(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
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

func trimNode(n *v1.Node) *v1.Node {
	o := &v1.Node{ObjectMeta: small(n.ObjectMeta), Spec: v1.NodeSpec{PodCIDRs: n.Spec.PodCIDRs}}
	o.Labels = nil
	for _, key := range []string{layout.OverlayAnnotation, layout.ProvenAnnotation} {
		if text, ok := n.Annotations[key]; ok {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, key, text)
		}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == v1.NodeInternalIP || a.Type == v1.NodeExternalIP {
			o.Status.Addresses = append(o.Status.Addresses, a)
		}
	}
	return o
}

// ownAddresses are those from which a node itself sends to pods: its addresses,
// that of the interface that carries its overlay, and in its range of pod
// addresses the first, which its end of the overlay has, and the second, which the
// bridge has. It says the others itself, so they count once they are proven: what is
// somebody else's would let him past the policies of all pods. To its own pods a node
// needs none of them, and over VXLAN and WireGuard it comes from the first of its range.
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
		if addr, err := netip.ParseAddr(a.Address); err == nil {
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
