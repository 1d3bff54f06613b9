package servicelb

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/layout"
)

// fieldManager distinguishes statuses that we wrote from others.
const fieldManager = layout.BalancerManager

// callTimeout keeps one call that hangs from keeping the others waiting.
const callTimeout = 10 * time.Second

// sync compares what each Service has with what it should have, and writes the differences.
// It continues after an error, and returns all.
func (c *controller) sync(ctx context.Context) error {
	services := c.services.List()
	errs := []error{c.watchEndpoints(services)}
	var all []node
	for _, n := range c.nodes.List() {
		all = append(all, reduceNode(n))
	}
	nodes, refused := c.plan.believe(all)
	verdicts := c.plan.decide(services, nodes, c.localEndpoints())
	// A Service that loses a port loses it before another gets it: it cannot lead to both.
	slices.SortStableFunc(verdicts, func(a, b verdict) int {
		return cmp.Compare(min(len(a.addresses), 1), min(len(b.addresses), 1))
	})
	wrote, posted := map[types.NamespacedName]string{}, map[types.NamespacedName]string{}
	first := "" // of the Services that do not get what they ask for
	for _, v := range verdicts {
		key := v.service.key
		if !slices.Equal(v.addresses, v.service.addresses) {
			var err error
			if seen, written := c.wrote[key]; !written || seen != v.service.version {
				err = c.write(ctx, v.service, v.addresses)
			}
			if err == nil {
				wrote[key] = v.service.version
			}
			errs = append(errs, err)
		}
		if v.reason == "" {
			continue
		}
		if first == "" {
			first = fmt.Sprintf("Service %s has %s", key, v.message)
		}
		posted[key] = string(v.service.uid) + v.message
		if c.posted[key] != posted[key] {
			c.postEvent(ctx, v)
		}
	}
	c.wrote, c.posted = wrote, posted
	if len(posted) > 1 {
		first += fmt.Sprintf(" (and %d more)", len(posted)-1)
	}
	c.refused.Set("Not using addresses that nodes report for Services", refused...)
	c.note = component.Notes(c.refused.Note(), first)
	return errors.Join(errs...)
}

func (c *controller) write(ctx context.Context, s service, addresses []string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := write(ctx, c.client, s, addresses)
	if apierrors.IsConflict(err) {
		return nil // it has changed, and its event will follow
	}
	return err
}

// write sets the addresses in the status of a Service, provided that the Service has not
// changed: one that is no longer of the type must not get any, since nobody would remove
// them and kube-proxy would serve them nevertheless.
func write(ctx context.Context, client kubernetes.Interface, s service, addresses []string) error {
	mode := corev1.LoadBalancerIPModeVIP
	status := corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{}}
	for _, a := range addresses {
		status.Ingress = append(status.Ingress, corev1.LoadBalancerIngress{IP: a, IPMode: &mode})
	}
	// An empty list is left out of the type's JSON, and must not be.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": s.uid, "resourceVersion": s.version},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": status.Ingress}},
	})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Services(s.key.Namespace).Patch(ctx, s.key.Name, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of Service %s: %w", s.key, err)
	}
	return nil
}

// postEvent posts an event about a Service that gets no address. A failure changes nothing
// for the Service.
func (c *controller) postEvent(ctx context.Context, v verdict) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := metav1.Now()
	_, err := c.client.CoreV1().Events(v.service.key.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: v.service.key.Name + "-"},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Service", Namespace: v.service.key.Namespace, Name: v.service.key.Name, UID: v.service.uid,
		},
		Type: corev1.EventTypeWarning, Reason: v.reason, Message: v.message,
		Source:         corev1.EventSource{Component: fieldManager},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil {
		slog.Warn("Cannot post an event", "service", v.service.key, "err", err)
	}
}

// withdraw empties the statuses that we wrote, and leaves those alone that
// somebody else has written since.
func withdraw(ctx context.Context, client kubernetes.Interface) error {
	byType := fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()
	services, err := client.CoreV1().Services("").List(ctx, metav1.ListOptions{FieldSelector: byType})
	if err != nil {
		return err
	}
	for i := range services.Items {
		s := &services.Items[i]
		if len(s.Status.LoadBalancer.Ingress) == 0 || !slices.ContainsFunc(s.ManagedFields, oursByField) {
			continue
		}
		if err := write(ctx, client, reduceService(s), nil); err != nil {
			return err
		}
	}
	return nil
}

func oursByField(f metav1.ManagedFieldsEntry) bool {
	return f.Manager == fieldManager && f.Subresource == "status" && f.FieldsV1 != nil && bytes.Contains(f.FieldsV1.GetRawBytes(), []byte(`"f:ingress"`))
}
