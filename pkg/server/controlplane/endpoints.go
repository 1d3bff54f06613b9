package controlplane

import (
	"net"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/controlplane"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"

	"lite.io/lite/pkg/kube"
)

// endpoints keeps the servers in the endpoints of the Service kubernetes. It is upstream's
// reconciler for a fixed number of servers, one, as long as the server is alone, and upstream's
// default as soon as it is not: that renews a key in the datastore every 10 s (1.37), 360
// writes an hour for each server, so that the others notice within 25 s that one is gone. One
// that is alone writes nothing.
type endpoints struct {
	alone, several reconcilers.EndpointReconciler
	shared         <-chan struct{} // closed as soon as there may be others; nil if there never are
	stopped        chan struct{}
	stop           func()

	following sync.Once
}

// followServers replaces what upstream would use, unless the user has chosen.
func followServers(cfg *app.Config, c Config) error {
	if _, chosen := kube.Value(c.Node.APIServerArgs, "endpoint-reconciler-type"); chosen {
		return nil
	}
	plane := cfg.KubeAPIs.ControlPlane
	services, err := corev1client.NewForConfig(plane.Generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	slices, err := discoveryclient.NewForConfig(plane.Generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	keys, err := plane.StorageFactory.NewConfig(core.Resource("apiServerIPInfo"), &core.Endpoints{})
	if err != nil {
		return err
	}
	leases, err := reconcilers.NewLeases(keys, "/masterleases/", controlplane.DefaultEndpointReconcilerTTL)
	if err != nil {
		return err
	}
	adapter := reconcilers.NewEndpointsAdapter(services, slices)
	cfg.KubeAPIs.Extra.EndpointReconcilerConfig.Reconciler = newEndpoints(
		reconcilers.NewMasterCountEndpointReconciler(1, adapter), reconcilers.NewLeaseEndpointReconciler(adapter, leases), c.Shared)
	return nil
}

func newEndpoints(alone, several reconcilers.EndpointReconciler, shared <-chan struct{}) *endpoints {
	e := &endpoints{alone: alone, several: several, shared: shared, stopped: make(chan struct{})}
	e.stop = sync.OnceFunc(func() { close(e.stopped) })
	return e
}

// now is the reconciler that counts at the moment.
func (e *endpoints) now() reconcilers.EndpointReconciler {
	if kube.IsClosed(e.shared) {
		return e.several
	}
	return e.alone
}

// ValidateIP implements reconcilers.EndpointReconciler.
func (e *endpoints) ValidateIP(ip net.IP) error { return e.alone.ValidateIP(ip) }

// ReconcileEndpoints implements reconcilers.EndpointReconciler; upstream calls it every 10 s. A
// server that is let in would not know of this one until the next time, and take it out.
func (e *endpoints) ReconcileEndpoints(service string, ip net.IP, ports []corev1.EndpointPort, reconcilePorts bool) error {
	now := e.now()
	if now == e.alone && e.shared != nil {
		e.following.Do(func() {
			go func() {
				select {
				case <-e.shared:
					// Upstream tries again, and logs why.
					_ = e.several.ReconcileEndpoints(service, ip, ports, reconcilePorts)
				case <-e.stopped:
				}
			}()
		})
	}
	return now.ReconcileEndpoints(service, ip, ports, reconcilePorts)
}

// RemoveEndpoints implements reconcilers.EndpointReconciler. Upstream calls it first at a start,
// for the case that the last one did not end in order: then nobody else could answer, and
// there is nothing to gain.
func (e *endpoints) RemoveEndpoints(service string, ip net.IP, ports []corev1.EndpointPort) error {
	now := e.now()
	if now == e.alone && !kube.IsClosed(e.stopped) {
		return storage.NewKeyNotFoundError(service, 0)
	}
	return now.RemoveEndpoints(service, ip, ports)
}

// StopReconciling implements reconcilers.EndpointReconciler.
func (e *endpoints) StopReconciling() {
	e.stop()
	e.alone.StopReconciling()
	e.several.StopReconciling()
}

// Destroy implements reconcilers.EndpointReconciler.
func (e *endpoints) Destroy() {
	e.alone.Destroy()
	e.several.Destroy()
}
