package kubelet

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// moveWithin bounds how long a server that does not answer delays the kubelet.
const moveWithin = 3 * time.Second

// identity is whose client asks: [kube.Client].
type identity interface {
	Clientset() (kubernetes.Interface, error)
}

// move writes the machine's addresses into the Node before the kubelet begins, if they are
// not those of the last start. The kubelet writes them as well, but syncs its pods
// meanwhile: pods in the host network get the addresses of the Node as it has read it, and
// keep them until a container of the pod is restarted (1.37). Services did not reach such
// pods then, and their probes failed. If nothing has changed, it is one request.
func (k *Kubelet) move(ctx context.Context) error {
	addresses := k.addresses()
	if k.client == nil || len(addresses) == 0 || k.server.CloudProvider != "" {
		return nil // found by the kubelet, or set by somebody else
	}
	client, err := k.client.Clientset()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, moveWithin)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(ctx, k.server.HostnameOverride, metav1.GetOptions{})
	if err != nil {
		return err
	}
	internal := func(a v1.NodeAddress) bool { return a.Type == v1.NodeInternalIP }
	now := slices.Concat(addresses, slices.DeleteFunc(slices.Clone(node.Status.Addresses), internal))
	if slices.Equal(now, node.Status.Addresses) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": now}})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// addresses are those that the kubelet reports, none where it finds out itself.
func (k *Kubelet) addresses() (all []v1.NodeAddress) {
	for text := range strings.SplitSeq(k.server.NodeIP, ",") {
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || ip.IsUnspecified() {
			return nil
		}
		all = append(all, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()})
	}
	return all
}
