package dns

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/kube"
)

const (
	namespace   = metav1.NamespaceSystem
	corednsName = "coredns"
	customName  = "coredns-custom"
)

// watchCluster follows what comes from the API: where to listen, and the Corefile.
func (s *Server) watchCluster(ctx context.Context, changes chan<- func(*want)) {
	client, err := s.config.Client.Clientset()
	if err != nil {
		s.update(func(st *state) { st.waiting = "its kubeconfig: " + err.Error() })
		return
	}
	if !s.awaitAPI(ctx, client) {
		return
	}
	close(s.reachable)
	listen := s.config.Listen
	for len(listen) == 0 {
		if listen, err = gateways(ctx, client, s.config.NodeName); ctx.Err() != nil {
			return
		}
		if err != nil {
			slog.Debug("DNS does not know its addresses yet", "err", err)
			kube.Sleep(ctx, retryEvery)
		}
	}
	send(ctx, changes, func(w *want) { w.listen = listen })

	coredns, custom := watchConfigMap(client, corednsName), watchConfigMap(client, customName)
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	leave, err := kube.Follow(ctx, coredns.With(kube.Wake[*v1.ConfigMap](notify, nil)), custom.With(kube.Wake[*v1.ConfigMap](notify, nil)))
	defer leave()
	if err != nil || ctx.Err() != nil {
		return
	}
	for {
		s.readConfigMaps(ctx, coredns, custom, changes)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// readConfigMaps reads both ConfigMaps. Without the main one, DNS continues as it is.
func (s *Server) readConfigMaps(ctx context.Context, coredns, custom *kube.Watch[*v1.ConfigMap], changes chan<- func(*want)) {
	m, ok := coredns.Get(namespace, corednsName)
	if !ok {
		s.update(func(st *state) {
			if st.waiting != "" {
				st.waiting = "ConfigMap " + namespace + "/" + corednsName
			}
		})
		return
	}
	s.update(func(st *state) { st.configMap = m.UID })
	var theirs map[string]string
	if c, ok := custom.Get(namespace, customName); ok {
		theirs = content(c)
	}
	f := gather(content(m), theirs)
	send(ctx, changes, func(w *want) {
		if w.files == nil || w.files.version() != f.version() {
			w.files, w.looping = f, nil
		}
	})
}

// content is the files of a ConfigMap, also those that are no UTF-8.
func content(m *v1.ConfigMap) map[string]string {
	all := maps.Clone(m.Data)
	for name, data := range m.BinaryData {
		if all == nil {
			all = map[string]string{}
		}
		all[name] = string(data)
	}
	return all
}

// awaitAPI waits until the API knows the node and lets it see what DNS needs.
func (s *Server) awaitAPI(ctx context.Context, client kubernetes.Interface) bool {
	for wait := retryEvery; ; wait = min(wait+wait/10, time.Second) {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := client.CoreV1().Namespaces().List(one, metav1.ListOptions{Limit: 1, ResourceVersion: "0"})
		cancel()
		if err == nil {
			return true
		}
		s.update(func(st *state) {
			if st.waiting != "" {
				st.waiting = "the API: " + err.Error()
			}
		})
		if !kube.Sleep(ctx, wait) {
			return false
		}
	}
}

// gateways waits for the node's ranges of pod addresses and returns the first
// address of each, which the bridge of its pods has.
func gateways(ctx context.Context, client kubernetes.Interface, node string) ([]netip.Addr, error) {
	n, err := kube.AwaitNode(ctx, client, node, func(n *v1.Node) bool { return len(n.Spec.PodCIDRs) > 0 })
	if err != nil {
		return nil, fmt.Errorf("wait for the node's pod CIDR: %w", err)
	}
	var all []netip.Addr
	for _, text := range n.Spec.PodCIDRs {
		a, err := gateway(text)
		if err != nil {
			return nil, fmt.Errorf("node %s: spec.podCIDRs: %w", node, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// gateway is the first address of a range after its own.
func gateway(cidr string) (netip.Addr, error) {
	p, err := netip.ParsePrefix(cidr)
	return p.Masked().Addr().Next(), err
}

// watchConfigMap is one ConfigMap as the API has it.
func watchConfigMap(client kubernetes.Interface, name string) *kube.Watch[*v1.ConfigMap] {
	one := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	return kube.NewWatch(kube.From(client, client.CoreV1().ConfigMaps(namespace), metav1.ListOptions{FieldSelector: one}),
		func(m *v1.ConfigMap) *v1.ConfigMap {
			return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{UID: m.UID}, Data: m.Data, BinaryData: m.BinaryData}
		})
}
