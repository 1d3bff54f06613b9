package bench

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// awaitFigures waits until `kubectl top node` would show a node.
func (c conn) awaitFigures(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	if err := try(ctx, statusPoll, func(ctx context.Context) error {
		answer, err := c.client.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/nodes").DoRaw(ctx)
		if err != nil {
			return err
		}
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal(answer, &list); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return errors.New("no node has figures")
		}
		return nil
	}); err != nil {
		b.Fatalf("metrics: %v", err)
	}
}

// expose makes a Service of type LoadBalancer and returns how long it took until
// it had an address.
func (c conn) expose(b *testing.B) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	services := c.client.CoreV1().Services(metav1.NamespaceDefault)
	began := time.Now()
	_, err := services.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: load},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": load},
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, load).String()}
	if err := await(ctx, func(ctx context.Context) (watch.Interface, error) {
		return services.Watch(ctx, options)
	}, func(s *corev1.Service) bool { return len(s.Status.LoadBalancer.Ingress) > 0 }); err != nil {
		b.Fatalf("LoadBalancer Service: %v", err)
	}
	return time.Since(began)
}
