package kube

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// NodeEvent posts a warning at a Node, where `kubectl describe node` shows it.
func (c *Client) NodeEvent(ctx context.Context, node, source, reason, message string) error {
	set, err := c.Clientset()
	if err != nil {
		return err
	}
	return PostNodeEvent(ctx, set, node, source, reason, message)
}

// PostNodeEvent is NodeEvent for those that have a typed client.
func PostNodeEvent(ctx context.Context, client kubernetes.Interface, node, source, reason, message string) error {
	now := metav1.Now()
	_, err := client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &v1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: node + "."},
		// As the kubelet's, whose UID of a Node is its name.
		InvolvedObject: v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node, UID: types.UID(node)},
		Type:           v1.EventTypeWarning, Reason: reason, Message: message[:min(len(message), 1024)],
		Source:         v1.EventSource{Component: source, Host: node},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	return err
}
