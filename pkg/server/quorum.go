package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// quorumEvery is how often each other member is asked whether it is up: one small request, by a connection that stays.
const quorumEvery = 15 * time.Second

// quorum is the component "members": it tells, by an event and a condition of each server's Node, when the loss of one
// more server would stop the cluster. A server that is alone asks nobody.
type quorum struct {
	members *members
	risk    atomic.Pointer[string]
}

// Name implements component.Component.
func (*quorum) Name() string { return "members" }

// Ready implements component.Component.
func (*quorum) Ready(context.Context) error { return nil }

// Note implements component.Noter.
func (q *quorum) Note() string {
	if risk := q.risk.Load(); risk != nil {
		return *risk
	}
	return ""
}

// Run implements component.Component.
func (q *quorum) Run(ctx context.Context) error {
	select {
	case <-q.members.store.Shared():
	case <-ctx.Done():
		return nil
	}
	client, err := q.members.client.Clientset()
	if err != nil {
		return err
	}
	told := map[string]string{} // by node
	for {
		if h, err := q.members.store.Health(ctx, nil); err == nil && ctx.Err() == nil {
			q.judge(ctx, client, h, told)
		}
		if !kube.Sleep(ctx, quorumEvery) {
			return nil
		}
	}
}

// judge tells what has changed, and tries again what could not be told.
func (q *quorum) judge(ctx context.Context, client kubernetes.Interface, h etcd.Health, told map[string]string) {
	risk := h.Risk()
	if before := q.risk.Swap(&risk); before == nil && risk != "" || before != nil && *before != risk {
		if risk == "" {
			slog.Info("The cluster can lose a server again")
		} else {
			slog.Warn("The cluster cannot lose a server", "because", risk)
		}
	}
	for _, m := range h.Members {
		if was, known := told[m.Name]; m.Name == "" || known && was == risk {
			continue
		}
		if err := tellNode(ctx, client, m.Name, risk); err != nil {
			slog.Debug("Cannot say of a server's node whether the cluster can lose a server", "node", m.Name, "err", err)
			continue
		}
		told[m.Name] = risk
	}
}

// tellNode sets the condition of a Node, and posts an event if it was another.
func tellNode(ctx context.Context, client kubernetes.Interface, name, risk string) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now := metav1.Now()
	c := v1.NodeCondition{Type: layout.QuorumCondition, Status: v1.ConditionFalse, Reason: "QuorumSafe", Message: "the cluster can lose a server",
		LastHeartbeatTime: now, LastTransitionTime: now}
	if risk != "" {
		c.Status, c.Reason, c.Message = v1.ConditionTrue, "QuorumAtRisk", risk
	}
	for _, was := range node.Status.Conditions {
		if was.Type == c.Type && was.Status == c.Status && was.Message == c.Message {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []v1.NodeCondition{c}}})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("set the condition %s: %w", c.Type, err)
	}
	kind := v1.EventTypeNormal
	if risk != "" {
		kind = v1.EventTypeWarning
	}
	_, err = client.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: name + "."},
		InvolvedObject: v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID(name)}, // as the kubelet names its node
		Type:           kind, Reason: c.Reason, Message: c.Message[:min(len(c.Message), 1024)],
		Source:         v1.EventSource{Component: layout.QuorumSource},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	return err
}
