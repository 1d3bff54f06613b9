package servicelb

import (
	"context"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// shelf is the store of a watch. Of each object it keeps what matters here, and
// it tells only of changes of that: a node's heartbeat is none.
type shelf[T any] struct {
	reduce  func(any) T
	changed func()

	mu     sync.Mutex
	items  map[types.NamespacedName]T
	listed bool
}

func newShelf[T any](changed func(), reduce func(any) T) *shelf[T] {
	return &shelf[T]{reduce: reduce, changed: changed, items: map[types.NamespacedName]T{}}
}

// complete reports whether everything that there is has been listed once.
func (s *shelf[T]) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed
}

// all returns what is on the shelf, in no order.
func (s *shelf[T]) all() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]T, 0, len(s.items))
	for _, item := range s.items {
		all = append(all, item)
	}
	return all
}

// Add implements cache.ReflectorStore.
func (s *shelf[T]) Add(o any) error { return s.Update(o) }

// Update implements cache.ReflectorStore.
func (s *shelf[T]) Update(o any) error {
	key, err := keyOf(o)
	if err != nil {
		return err
	}
	item := s.reduce(o)
	s.mu.Lock()
	old, known := s.items[key]
	s.items[key] = item
	s.mu.Unlock()
	if !known || !reflect.DeepEqual(old, item) {
		s.changed()
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *shelf[T]) Delete(o any) error {
	key, err := keyOf(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.items, key)
	s.mu.Unlock()
	s.changed()
	return nil
}

// Replace implements cache.ReflectorStore: a list begins or repairs the watch.
func (s *shelf[T]) Replace(objects []any, _ string) error {
	items := make(map[types.NamespacedName]T, len(objects))
	for _, o := range objects {
		key, err := keyOf(o)
		if err != nil {
			return err
		}
		items[key] = s.reduce(o)
	}
	s.mu.Lock()
	s.items, s.listed = items, true
	s.mu.Unlock()
	s.changed()
	return nil
}

// Resync implements cache.ReflectorStore.
func (*shelf[T]) Resync() error { return nil }

func keyOf(o any) (types.NamespacedName, error) {
	m, err := meta.Accessor(o)
	if err != nil {
		return types.NamespacedName{}, err
	}
	return types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, nil
}

// source lists and watches one kind of object.
type source struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (apiwatch.Interface, error)
}

func sourceOf[L runtime.Object](
	list func(context.Context, metav1.ListOptions) (L, error),
	watch func(context.Context, metav1.ListOptions) (apiwatch.Interface, error),
) source {
	return source{func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) }, watch}
}

// watch keeps a store up to date until ctx is done.
func watch(ctx context.Context, running *sync.WaitGroup, client kubernetes.Interface, kind runtime.Object, store cache.ReflectorStore, from source, byField, byLabel string) {
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector, o.LabelSelector = byField, byLabel
			return from.list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.FieldSelector, o.LabelSelector = byField, byLabel
			return from.watch(ctx, o)
		},
	}, client)
	r := cache.NewReflector(lw, kind, store, 0)
	running.Go(func() { r.RunWithContext(ctx) })
}

// watchEndpoints starts and ends watches so that exactly the endpoints of the
// Services that need them are watched.
func (c *controller) watchEndpoints(ctx context.Context, services []service) {
	needed := map[types.NamespacedName]bool{}
	for _, s := range services {
		if !s.ours || !s.local {
			continue
		}
		needed[s.key] = true
		if c.endpoints[s.key] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		w := &endpointsWatch{newShelf(c.wake, reduceEndpoints), stop}
		c.endpoints[s.key] = w
		api := c.client.DiscoveryV1().EndpointSlices(s.key.Namespace)
		watch(ctx, c.running, c.client, &discovery.EndpointSlice{}, w, sourceOf(api.List, api.Watch), "", discovery.LabelServiceName+"="+s.key.Name)
	}
	for key, w := range c.endpoints {
		if !needed[key] {
			w.stop()
			delete(c.endpoints, key)
		}
	}
}

// places is on which nodes Services whose traffic stays on its node have
// endpoints; those that are not known yet are missing.
func (c *controller) places() map[types.NamespacedName][]place {
	known := map[types.NamespacedName][]place{}
	for key, w := range c.endpoints {
		if !w.complete() {
			continue
		}
		known[key] = []place{}
		for _, slice := range w.all() {
			known[key] = append(known[key], slice...)
		}
	}
	return known
}

// reduceEndpoints keeps the nodes that have a ready endpoint. One that is ending
// is not ready any more: kube-proxy serves it a little longer, so that whoever
// uses the address has time to hear that it is no longer one.
func reduceEndpoints(o any) []place {
	slice, ok := o.(*discovery.EndpointSlice)
	if !ok {
		return nil
	}
	var places []place
	for _, e := range slice.Endpoints {
		if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
			places = append(places, place{corev1.IPFamily(slice.AddressType), *e.NodeName})
		}
	}
	return places
}
