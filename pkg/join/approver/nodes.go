package approver

import (
	"context"
	"maps"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"lite.io/lite/pkg/kube"
)

// nodes is what is known of the Nodes, by a watch: their addresses, for serving
// certificates, and which of them live or have been deleted, for the census.
type nodes struct {
	mu     sync.Mutex
	byName map[string]known
	gone   map[string]time.Time // when it was deleted, while the census has not handled it
	listed func()
	// changed is called when one has become ready, has come or gone.
	changed func()
}

// known is what is kept of a Node.
type known struct {
	addresses []san
	ready     bool
	server    bool // an API server runs there, whose certificates no approver gave
}

func knownOf(n *v1.Node) known {
	k := known{}
	for _, a := range n.Status.Addresses {
		if s, ok := reported(a); ok {
			k.addresses = append(k.addresses, s)
		}
	}
	for _, c := range n.Status.Conditions {
		k.ready = k.ready || c.Type == v1.NodeReady && c.Status == v1.ConditionTrue
	}
	_, k.server = n.Labels[kube.ServerLabel]
	return k
}

// listNodes lists and watches.
func listNodes(client kubernetes.Interface) cache.ListerWatcher {
	api := client.CoreV1().Nodes()
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
	}, client)
}

// Add implements cache.ReflectorStore.
func (s *nodes) Add(o any) error {
	n, ok := o.(*v1.Node)
	if !ok {
		return nil
	}
	k := knownOf(n)
	s.mu.Lock()
	old, was := s.byName[n.Name]
	s.byName[n.Name] = k
	s.mu.Unlock()
	if !was || k.ready && !old.ready {
		s.changed()
	}
	return nil
}

// Update implements cache.ReflectorStore.
func (s *nodes) Update(o any) error { return s.Add(o) }

// Delete implements cache.ReflectorStore.
func (s *nodes) Delete(o any) error {
	n, ok := o.(*v1.Node)
	if !ok {
		return nil
	}
	s.mu.Lock()
	// A label may be taken off before; what it was last counts as well.
	server := s.byName[n.Name].server || knownOf(n).server
	s.lose(n.Name, server)
	s.mu.Unlock()
	s.changed()
	return nil
}

func (s *nodes) lose(name string, server bool) {
	delete(s.byName, name)
	if !server {
		s.gone[name] = time.Now()
	}
}

// Replace implements cache.ReflectorStore: a list begins or repairs the watch. What
// was deleted meanwhile is no less deleted.
func (s *nodes) Replace(objects []any, _ string) error {
	there := map[string]known{}
	for _, o := range objects {
		if n, ok := o.(*v1.Node); ok {
			there[n.Name] = knownOf(n)
		}
	}
	s.mu.Lock()
	for name, k := range s.byName {
		if _, ok := there[name]; !ok {
			s.lose(name, k.server)
		}
	}
	s.byName = there
	s.mu.Unlock()
	s.listed()
	s.changed()
	return nil
}

// Resync implements cache.ReflectorStore.
func (*nodes) Resync() error { return nil }

// get returns what is known of a node.
func (s *nodes) get(name string) (known, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.byName[name]
	return k, ok
}

// deleted returns the nodes that were deleted, and when, that the census has not handled.
func (s *nodes) deleted() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.gone)
}

// seenTo strikes a deleted node off.
func (s *nodes) seenTo(name string, when time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone[name].Equal(when) {
		delete(s.gone, name)
	}
}

// sortOut returns what the node has, and who has what of the others.
func (s *nodes) sortOut(name string) (own map[san]bool, others map[san]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, others = map[san]bool{{text: name}: true}, map[san]string{}
	for other, k := range s.byName {
		if own := (san{text: other}); other != name {
			others[own] = max(others[own], other)
		}
		for _, a := range k.addresses {
			if other == name {
				own[a] = true
			} else {
				others[a] = max(others[a], other) // the same one each time, if several say so
			}
		}
	}
	return own, others
}
