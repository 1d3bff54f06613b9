package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// callTimeout keeps one call that hangs from keeping the others waiting.
const callTimeout = 10 * time.Second

// write makes addresses all that is proven of a Node, provided that it is the one that
// was looked at.
func (t *term) write(ctx context.Context, n node, addresses []netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": n.uid, "annotations": map[string]string{layout.ProvenAnnotation: kube.Join(addresses)},
	}})
	if err != nil {
		return err
	}
	_, err = t.client.CoreV1().Nodes().Patch(ctx, n.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: layout.ProofManager})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("annotate node %s: %w", n.name, err)
	}
	return nil
}

// unproven is the reason of the event.
const unproven = "AddressNotProven"

// postEvent posts an event at a Node. That it may fail changes nothing for the node.
func (t *term) postEvent(ctx context.Context, n node, problem error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := metav1.Now()
	_, err := t.client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &v1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: n.name + "-", Namespace: metav1.NamespaceDefault},
		// As the kubelet's, whose UID of a Node is its name: kubectl describe shows both.
		InvolvedObject: v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.name, UID: types.UID(n.name)},
		Type:           v1.EventTypeWarning, Reason: unproven,
		Message: problem.Error() + "; no Service of type LoadBalancer gets it, and no NetworkPolicy lets it in as a node. Let servers reach the kubelet there",
		Source:  v1.EventSource{Component: layout.ProofManager}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil && ctx.Err() == nil {
		slog.Warn("Cannot post an event", "node", n.name, "err", err)
	}
}
