package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// readiness is the component "node": the node's condition in Kubernetes.
type readiness struct {
	name     string
	as       *kube.Client
	unwanted []string     // annotations and labels of parts that are disabled, of an earlier start
	server   *kube.Client // of a server: by which the node gets its role
	names    []string     // what its API server is called

	client atomic.Pointer[kubernetes.Interface] // set once the node has been ready
	reason atomic.Pointer[string]
}

func (*readiness) Name() string { return "node" }

// Run watches the node until it is ready. A later look is a single request.
func (r *readiness) Run(ctx context.Context) error {
	client, err := r.as.Clientset()
	if err != nil {
		return err
	}
	marked := r.server == nil
	node, err := kube.AwaitNode(ctx, client, r.name, func(n *v1.Node) bool {
		if !marked { // at once: what makes the node ready may look for it
			err := mark(ctx, r.server, n, r.names)
			if marked = err == nil; !marked && ctx.Err() == nil {
				slog.Warn("Cannot set the server's label on the node yet", "err", err)
			}
		}
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
	r.client.Store(&client)
	if ctx.Err() == nil {
		if err := r.tidy(ctx, node); err != nil {
			slog.Warn("Cannot remove what a disabled component had written to the Node", "err", err)
		}
	}
	<-ctx.Done()
	return nil
}

// mark labels a node as a server, and says what that is called. A kubelet may not do so with its
// own node (the admission plugin NodeRestriction, the policy nodes.lite.io).
func mark(ctx context.Context, as *kube.Client, n *v1.Node, names []string) error {
	text := strings.Join(names, ",")
	if _, ok := n.Labels[kube.ServerLabel]; ok && n.Annotations[layout.APINamesAnnotation] == text {
		return nil
	}
	client, err := as.Clientset()
	if err != nil {
		return err
	}
	annotations := map[string]any{layout.APINamesAnnotation: nil}
	if text != "" {
		annotations[layout.APINamesAnnotation] = text
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"labels": map[string]any{kube.ServerLabel: "true"}, "annotations": annotations,
	}})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// tidy removes the unwanted annotations and labels.
func (r *readiness) tidy(ctx context.Context, n *v1.Node) error {
	annotations, labels := map[string]any{}, map[string]any{}
	for _, key := range r.unwanted {
		if _, ok := n.Annotations[key]; ok {
			annotations[key] = nil
		}
		if _, ok := n.Labels[key]; ok {
			labels[key] = nil
		}
	}
	if len(annotations)+len(labels) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations, "labels": labels}})
	if err != nil {
		return err
	}
	_, err = (*r.client.Load()).CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (r *readiness) Ready(ctx context.Context) error {
	client := r.client.Load()
	if client == nil {
		if reason := r.reason.Load(); reason != nil {
			return errors.New(*reason)
		}
		return errors.New("the kubelet has not registered the node yet")
	}
	n, err := (*client).CoreV1().Nodes().Get(ctx, r.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the node: %w", err)
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
