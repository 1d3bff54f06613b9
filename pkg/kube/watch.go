package kube

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Object is what the API has objects of.
type Object interface {
	runtime.Object
	metav1.Object
}

// Change is what became of one object. What is kept of it belongs to the watch: do not
// change it, and do not write it back with an update, because it is less than the object.
type Change[K any] struct {
	Key           cache.ObjectName
	Before, After K
	Came, Gone    bool // there is no Before, no After
}

// Handler is what a follower does with what a watch reports. One goroutine calls it, in
// order, for all followers: it must not block. It may read the watch, but not follow or
// leave it.
type Handler[K any] struct {
	// Changed is called for each object that has come, changed or gone, but not where what
	// is kept is the same as before, as after a node's heartbeat.
	Changed func(Change[K])
	// Listed is called when all objects are known, and again after each list that repairs
	// the watch. It may be nil.
	Listed func()
}

// Wake is the Handler of a follower that scans everything again. If differ is nil, any
// change matters.
func Wake[K any](wake func(), differ func(before, after K) bool) Handler[K] {
	return Handler[K]{Listed: wake, Changed: func(c Change[K]) {
		if differ == nil || c.Came || c.Gone || differ(c.Before, c.After) {
			wake()
		}
	}}
}

// Source is where a watch gets its objects from. It is called when the first follower comes.
type Source func() (cache.ListerWatcher, error)

// API is the part of a typed client for one kind.
type API[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (apiwatch.Interface, error)
}

// From is the objects of an API that the selectors of only select. The client that has the
// API knows whether lists can be streamed: a fake one cannot.
func From[L runtime.Object](client any, api API[L], only metav1.ListOptions) Source {
	choose := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector, o.LabelSelector = only.FieldSelector, only.LabelSelector
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, choose(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			return api.Watch(ctx, choose(o))
		},
	}, client)
	return func() (cache.ListerWatcher, error) { return lw, nil }
}

// Watch lists and watches the objects of one kind while somebody follows it, once for all
// followers. Upstream's reflector connects, lists again after a gap, and backs off. There is
// no queue, and no goroutine but the reflector's and those of its connection.
type Watch[K any] struct {
	*store[K]
	source Source

	mu    sync.Mutex // of those who come and go
	users int
	stop  func()
}

// NewWatch makes a watch that keeps of each object what keep makes of it.
func NewWatch[T Object, K any](source Source, keep func(T) K) *Watch[K] {
	var none T
	return &Watch[K]{source: source, store: &store[K]{
		kind: none, items: map[cache.ObjectName]K{}, listed: make(chan struct{}),
		reads: func(o any) (K, bool) { return reduce(o, keep) },
	}}
}

// Follow reports to h what there is, and from then on what changes, until leave is called.
// When leave has returned, h is not called again. The last follower to leave ends the watch.
func (w *Watch[K]) Follow(h Handler[K]) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users == 0 {
		lw, err := w.source()
		if err != nil {
			return nil, err
		}
		w.stop = w.run(lw)
	}
	w.users++
	unfollow := w.follow(h)
	return sync.OnceFunc(func() {
		unfollow()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.users--; w.users == 0 {
			w.stop()
			w.clear()
		}
	}), nil
}

// With is the watch and its follower, for the function Follow.
func (w *Watch[K]) With(h Handler[K]) Following {
	return Following{func() (func(), error) { return w.Follow(h) }, func() <-chan struct{} { return w.all() }}
}

// Following is a watch of any kind, and its follower.
type Following struct {
	follow func() (leave func(), err error)
	listed func() <-chan struct{}
}

// Follow follows several watches, and returns when all their objects are known or ctx is
// done. Call leave in any case, also after an error.
func Follow(ctx context.Context, all ...Following) (leave func(), err error) {
	var leaves []func()
	leave = func() {
		for _, l := range leaves {
			l()
		}
	}
	for _, f := range all {
		l, err := f.follow()
		if err != nil {
			return leave, err
		}
		leaves = append(leaves, l)
	}
	for _, f := range all {
		select {
		case <-f.listed():
		case <-ctx.Done():
		}
	}
	return leave, nil
}

// run begins to list and watch; stop ends that. It does not wait for the reflector, which
// may sleep for half a minute where the API is gone, whatever its context says (1.37).
func (w *Watch[K]) run(lw cache.ListerWatcher) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &feed[K]{store: w.store}
	r := cache.NewReflectorWithOptions(lw, w.kind, f, cache.ReflectorOptions{Name: fmt.Sprintf("lite %T", w.kind)})
	go r.RunWithContext(ctx)
	return func() {
		cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended = true
	}
}

// feed is what one reflector writes to: the store, until it is told to stop.
type feed[K any] struct {
	*store[K]
	mu    sync.Mutex
	ended bool
}

// Add implements cache.ReflectorStore.
func (f *feed[K]) Add(o any) error { return f.Update(o) }

// Update implements cache.ReflectorStore.
func (f *feed[K]) Update(o any) error {
	return f.unlessEnded(func() error { return f.store.Update(o) })
}

// Delete implements cache.ReflectorStore.
func (f *feed[K]) Delete(o any) error {
	return f.unlessEnded(func() error { return f.store.Delete(o) })
}

// Replace implements cache.ReflectorStore.
func (f *feed[K]) Replace(objects []any, version string) error {
	return f.unlessEnded(func() error { return f.store.Replace(objects, version) })
}

func (f *feed[K]) unlessEnded(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return nil
	}
	return do()
}

// store is what a watch keeps.
type store[K any] struct {
	kind  runtime.Object
	reads func(any) (K, bool)

	notifying sync.Mutex // held while handlers are called, so that each hears all in order
	handlers  []*Handler[K]

	mu     sync.RWMutex // taken after telling
	items  map[cache.ObjectName]K
	listed chan struct{} // closed when all is known
}

// entry is what is kept of an object, under its name, by which the reflector finds it.
type entry[K any] struct {
	metav1.ObjectMeta
	kept K
}

// reduce is what is kept of an object. One for which keep panics is left out: it would end
// the process, and the datastore with it, again after each start.
func reduce[T Object, K any](o any, keep func(T) K) (kept K, ok bool) {
	object, ok := o.(T)
	if !ok {
		return kept, false
	}
	defer func() {
		if problem := recover(); problem != nil {
			slog.Error("Leaving out an object that lite cannot read", "kind", fmt.Sprintf("%T", o), "namespace", object.GetNamespace(), "name", object.GetName(), "problem", problem)
			ok = false
		}
	}()
	return keep(object), true
}

// read takes an object, or what Transformer has left of it.
func (s *store[K]) read(o any) (key cache.ObjectName, kept K, ok bool) {
	if e, is := o.(*entry[K]); is {
		return cache.MetaObjectToName(e), e.kept, true
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return key, kept, false
	}
	kept, ok = s.reads(o)
	return cache.MetaObjectToName(m), kept, ok
}

// Transformer implements cache.TransformingStore: while a long list is streamed, only what is
// kept is held in memory.
func (s *store[K]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		key, kept, ok := s.read(o)
		if !ok {
			return nil, fmt.Errorf("%s is left out", key)
		}
		return &entry[K]{metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, kept}, nil
	}
}

// Add implements cache.ReflectorStore.
func (s *store[K]) Add(o any) error { return s.Update(o) }

// Update implements cache.ReflectorStore.
func (s *store[K]) Update(o any) error {
	s.notifying.Lock()
	defer s.notifying.Unlock()
	key, kept, ok := s.read(o)
	s.put(key, kept, ok)
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *store[K]) Delete(o any) error {
	key, err := cache.DeletionHandlingObjectToName(o)
	if err != nil {
		return err
	}
	s.notifying.Lock()
	defer s.notifying.Unlock()
	var none K
	s.put(key, none, false)
	return nil
}

// Replace implements cache.ReflectorStore: a list begins or repairs the watch.
func (s *store[K]) Replace(objects []any, _ string) error {
	s.notifying.Lock()
	defer s.notifying.Unlock()
	there := make(map[cache.ObjectName]bool, len(objects))
	for _, o := range objects {
		if key, kept, ok := s.read(o); ok {
			there[key] = true
			s.put(key, kept, true)
		}
	}
	var none K
	for _, key := range s.keys() {
		if !there[key] {
			s.put(key, none, false)
		}
	}
	if !s.Listed() {
		close(s.all())
	}
	for _, h := range s.handlers {
		if h.Listed != nil {
			h.Listed()
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (*store[K]) Resync() error { return nil }

// put keeps an object, or forgets it if it is not there, and reports that if it is a change.
func (s *store[K]) put(key cache.ObjectName, kept K, there bool) {
	s.mu.Lock()
	before, was := s.items[key]
	if there {
		s.items[key] = kept
	} else {
		delete(s.items, key)
	}
	s.mu.Unlock()
	if !was && !there || was && there && reflect.DeepEqual(before, kept) {
		return
	}
	for _, h := range s.handlers {
		h.Changed(Change[K]{Key: key, Before: before, After: kept, Came: !was, Gone: !there})
	}
}

// follow reports to a handler what there is, and adds it to the others.
func (s *store[K]) follow(h Handler[K]) (unfollow func()) {
	s.notifying.Lock()
	defer s.notifying.Unlock()
	for _, key := range s.keys() {
		h.Changed(Change[K]{Key: key, After: s.items[key], Came: true})
	}
	if h.Listed != nil && s.Listed() {
		h.Listed()
	}
	mine := &h
	s.handlers = append(s.handlers, mine)
	return func() {
		s.notifying.Lock()
		defer s.notifying.Unlock()
		for i, other := range s.handlers {
			if other == mine {
				s.handlers = append(s.handlers[:i:i], s.handlers[i+1:]...)
				return
			}
		}
	}
}

func (s *store[K]) keys() []cache.ObjectName {
	s.mu.RLock()
	defer s.mu.RUnlock()
	keys := make([]cache.ObjectName, 0, len(s.items))
	for key := range s.items {
		keys = append(keys, key)
	}
	return keys
}

// clear forgets everything: nothing keeps it up to date any more.
func (s *store[K]) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items, s.listed = map[cache.ObjectName]K{}, make(chan struct{})
}

// Listed reports whether all objects are known.
func (s *store[K]) Listed() bool {
	select {
	case <-s.all():
		return true
	default:
		return false
	}
}

// all is closed when all objects are known.
func (s *store[K]) all() chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listed
}

// List is what is kept of all objects, in no order.
func (s *store[K]) List() []K {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]K, 0, len(s.items))
	for _, kept := range s.items {
		all = append(all, kept)
	}
	return all
}

// Get is what is kept of one object.
func (s *store[K]) Get(namespace, name string) (kept K, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	kept, ok = s.items[cache.ObjectName{Namespace: namespace, Name: name}]
	return kept, ok
}
