package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"lite.io/lite/pkg/kube"
)

// readiness is the component "node": what Kubernetes itself says of the node.
type readiness struct {
	name       string
	kubeconfig string

	client atomic.Pointer[kubernetes.Clientset] // set once the node has been ready
	reason atomic.Pointer[string]
}

func (*readiness) Name() string { return "node" }

// Run watches the node until it is ready. A later look is a single request.
func (r *readiness) Run(ctx context.Context) error {
	cfg, err := kube.ClientConfig(r.kubeconfig, "node")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	self := fields.OneTermEqualSelector(metav1.ObjectNameField, r.name)
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", self)
	_, err = kube.Await(ctx, lw, func(n *v1.Node) bool {
		err := notReady(n)
		if err != nil {
			reason := err.Error()
			r.reason.Store(&reason)
		}
		return err == nil
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch the node: %w", err)
	}
	r.client.Store(client)
	<-ctx.Done()
	return nil
}

func (r *readiness) Ready(ctx context.Context) error {
	client := r.client.Load()
	if client == nil {
		if reason := r.reason.Load(); reason != nil {
			return errors.New(*reason)
		}
		return errors.New("the kubelet has not registered the node yet")
	}
	n, err := client.CoreV1().Nodes().Get(ctx, r.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("ask for the node: %w", err)
	}
	return notReady(n)
}

// notReady is why the node's Ready condition is not true.
func notReady(n *v1.Node) error {
	for _, c := range n.Status.Conditions {
		if c.Type != v1.NodeReady {
			continue
		}
		if c.Status == v1.ConditionTrue {
			return nil
		}
		return errors.New(c.Message)
	}
	return errors.New("the kubelet has not reported yet")
}
