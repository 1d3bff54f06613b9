package servicelb

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/kube"
)

// endpointsWatch is the watch of one Service's endpoints.
type endpointsWatch struct {
	*kube.Watch[[]endpoint]
	leave func()
}

// watchEndpoints starts and ends watches so that exactly the endpoints of the
// Services that need them are watched.
func (c *controller) watchEndpoints(services []service) error {
	var errs []error
	needed := map[types.NamespacedName]bool{}
	for _, s := range services {
		if !s.ours || !s.local {
			continue
		}
		needed[s.key] = true
		if c.endpoints[s.key] != nil {
			continue
		}
		only := metav1.ListOptions{LabelSelector: discovery.LabelServiceName + "=" + s.key.Name}
		w := kube.NewWatch(kube.From(c.client, c.client.DiscoveryV1().EndpointSlices(s.key.Namespace), only), reduceEndpoints)
		leave, err := w.Follow(kube.Wake[[]endpoint](c.wake, nil))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.endpoints[s.key] = &endpointsWatch{w, leave}
	}
	for key, w := range c.endpoints {
		if !needed[key] {
			w.leave()
			delete(c.endpoints, key)
		}
	}
	return errors.Join(errs...)
}

// leaveEndpoints ends all watches of endpoints.
func (c *controller) leaveEndpoints() {
	for _, w := range c.endpoints {
		w.leave()
	}
}

// localEndpoints is on which nodes Services whose traffic stays on its node have
// endpoints; those that are not known yet are missing.
func (c *controller) localEndpoints() map[types.NamespacedName][]endpoint {
	known := map[types.NamespacedName][]endpoint{}
	for key, w := range c.endpoints {
		if !w.Listed() {
			continue
		}
		known[key] = []endpoint{}
		for _, slice := range w.List() {
			known[key] = append(known[key], slice...)
		}
	}
	return known
}

// reduceEndpoints keeps the nodes that have a ready endpoint. One that is ending
// is not ready any more: kube-proxy serves it a little longer, so that whoever
// uses the address has time to hear that it is no longer one.
func reduceEndpoints(slice *discovery.EndpointSlice) (endpoints []endpoint) {
	for _, e := range slice.Endpoints {
		if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
			endpoints = append(endpoints, endpoint{corev1.IPFamily(slice.AddressType), *e.NodeName})
		}
	}
	return endpoints
}
