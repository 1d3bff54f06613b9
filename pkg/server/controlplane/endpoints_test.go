package controlplane

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// reconciler records what it is asked.
type reconciler struct {
	reconcilers.EndpointReconciler
	mu    sync.Mutex
	asked []string
}

func (r *reconciler) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, what)
}

func (r *reconciler) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.asked
	r.asked = nil
	return was
}

func (r *reconciler) ReconcileEndpoints(_ string, ip net.IP, _ []corev1.EndpointPort, _ bool) error {
	r.add("reconcile " + ip.String())
	return nil
}

func (r *reconciler) RemoveEndpoints(_ string, ip net.IP, _ []corev1.EndpointPort) error {
	r.add("remove " + ip.String())
	return errors.New("removed")
}
func (r *reconciler) StopReconciling() { r.add("stop") }

// A server that was alone renewed a key in the datastore every 10 s, and one that was let in took
// the first out of the endpoints until it did so the next time.
func TestEndpointsOfAServerThatIsNoLongerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alone, several, shared := &reconciler{}, &reconciler{}, make(chan struct{})
		e := newEndpoints(alone, several, shared)
		ip := net.IPv4(192, 0, 2, 1)
		if err := e.RemoveEndpoints("kubernetes", ip, nil); !storage.IsNotFound(err) {
			t.Errorf("at the start: %v", err)
		}
		for range 3 {
			if err := e.ReconcileEndpoints("kubernetes", ip, nil, false); err != nil {
				t.Error(err)
			}
		}
		if a, s := alone.take(), several.take(); !slices.Equal(a, slices.Repeat([]string{"reconcile 192.0.2.1"}, 3)) || len(s) > 0 {
			t.Errorf("alone: %q, %q", a, s)
		}
		close(shared)
		synctest.Wait()
		if a, s := alone.take(), several.take(); len(a) > 0 || !slices.Equal(s, []string{"reconcile 192.0.2.1"}) {
			t.Errorf("as soon as another comes: %q, %q", a, s)
		}
		_ = e.ReconcileEndpoints("kubernetes", ip, nil, false)
		e.StopReconciling()
		_ = e.RemoveEndpoints("kubernetes", ip, nil)
		if a, s := alone.take(), several.take(); !slices.Equal(a, []string{"stop"}) || !slices.Equal(s, []string{"reconcile 192.0.2.1", "stop", "remove 192.0.2.1"}) {
			t.Errorf("one of several: %q, %q", a, s)
		}
	})
}

func TestEndpointsOfAServerThatStaysAlone(t *testing.T) {
	for name, shared := range map[string]chan struct{}{"never others": nil, "no others yet": make(chan struct{})} {
		synctest.Test(t, func(t *testing.T) {
			alone, several := &reconciler{}, &reconciler{}
			if shared != nil {
				shared = make(chan struct{}) // of the bubble
			}
			e := newEndpoints(alone, several, shared)
			_ = e.ReconcileEndpoints("kubernetes", net.IPv4(192, 0, 2, 1), nil, false)
			e.StopReconciling()
			_ = e.RemoveEndpoints("kubernetes", net.IPv4(192, 0, 2, 1), nil)
			if a, s := alone.take(), several.take(); !slices.Equal(a, []string{"reconcile 192.0.2.1", "stop", "remove 192.0.2.1"}) || !slices.Equal(s, []string{"stop"}) {
				t.Errorf("%s: %q, %q", name, a, s)
			}
		})
	}
}
