package kube

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"lite.io/lite/pkg/layout"
)

// Nodes is the watch of all Nodes, which a process has once.
type Nodes = Watch[*v1.Node]

// NewNodes makes the watch; nothing is touched before somebody follows it.
func NewNodes(c *Client) *Nodes {
	return NewWatch(func() (cache.ListerWatcher, error) {
		set, err := c.Clientset()
		if err != nil {
			return nil, err
		}
		return nodesOf(set)()
	}, TrimNode)
}

// NodesOf is NewNodes with a typed client.
func NodesOf(set kubernetes.Interface) *Nodes { return NewWatch(nodesOf(set), TrimNode) }

func nodesOf(set kubernetes.Interface) Source {
	return From(set, set.CoreV1().Nodes(), metav1.ListOptions{})
}

// metricsPath is where a Node says that its kubelet has metrics (metrics-server 0.9).
const metricsPath = "metrics.k8s.io/resource-metrics-path"

// annotations are those that a follower reads. Add one here before you read it.
var annotations = []string{layout.OverlayAnnotation, layout.ProvenAnnotation, layout.APINamesAnnotation, metricsPath}

// TrimNode keeps what a follower reads. Most of a Node is images, managed fields, and
// conditions of which only the time changes.
func TrimNode(n *v1.Node) *v1.Node {
	small := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, CreationTimestamp: n.CreationTimestamp, Labels: n.Labels,
		},
		Spec: v1.NodeSpec{PodCIDRs: n.Spec.PodCIDRs},
		Status: v1.NodeStatus{
			Addresses: n.Status.Addresses, DaemonEndpoints: n.Status.DaemonEndpoints,
		},
	}
	for _, name := range annotations {
		if text, ok := n.Annotations[name]; ok {
			metav1.SetMetaDataAnnotation(&small.ObjectMeta, name, text)
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady {
			small.Status.Conditions = []v1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	for _, h := range n.Status.RuntimeHandlers {
		small.Status.RuntimeHandlers = append(small.Status.RuntimeHandlers, v1.NodeRuntimeHandler{Name: h.Name})
	}
	return small
}
