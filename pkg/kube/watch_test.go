package kube

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

func nodeOf(name, value string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"value": value}}}
}

// story keeps what a handler is told, as lines.
type story []string

func (l *story) handler() Handler[string] {
	return Handler[string]{
		Changed: func(c Change[string]) {
			switch {
			case c.Came:
				*l = append(*l, fmt.Sprintf("+%s=%s", c.Key, c.After))
			case c.Gone:
				*l = append(*l, fmt.Sprintf("-%s=%s", c.Key, c.Before))
			default:
				*l = append(*l, fmt.Sprintf("%s=%s→%s", c.Key, c.Before, c.After))
			}
		},
		Listed: func() { *l = append(*l, "listed") },
	}
}

// take returns what was heard since, in order of the names.
func (l *story) take() string {
	synctest.Wait()
	lines := *l
	*l = nil
	slices.Sort(lines)
	return fmt.Sprint([]string(lines))
}

func valueOf(n *v1.Node) string { return n.Labels["value"] }

func TestWatchTellsOfChangesOfWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(nodeOf("a", "1"), nodeOf("b", "1"))
		w := NewWatch(From(client, client.CoreV1().Nodes(), metav1.ListOptions{}), valueOf)
		var first story
		leave, err := Follow(t.Context(), w.With(first.handler()))
		if err != nil || !w.Listed() {
			t.Fatal(w.Listed(), err)
		}
		expect := func(l *story, want string) {
			t.Helper()
			if got := l.take(); got != want {
				t.Errorf("heard %s, want %s", got, want)
			}
		}
		expect(&first, "[+a=1 +b=1 listed]")
		api := client.CoreV1().Nodes()
		change := func(n *v1.Node) {
			if _, err := api.Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		change(nodeOf("a", "2"))
		expect(&first, "[a=1→2]")
		heartbeat := nodeOf("a", "2")
		heartbeat.Status.Phase = "a moment later"
		change(heartbeat)
		expect(&first, "[]")

		// Another part of the process costs no other watch, and hears all there is.
		var second story
		leaveToo, err := w.Follow(second.handler())
		if err != nil {
			t.Fatal(err)
		}
		expect(&second, "[+a=2 +b=1 listed]")
		if err := api.Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect(&first, "[-b=1]")
		leave()
		leave() // does nothing
		change(nodeOf("a", "3"))
		expect(&first, "[]")
		expect(&second, "[-b=1 a=2→3]")
		watches := 0
		for _, a := range client.Actions() {
			if a.GetVerb() == "watch" {
				watches++
			}
		}
		if got, ok := w.Get("", "a"); watches != 1 || !ok || got != "3" || len(w.List()) != 1 {
			t.Errorf("%d watches, %q, %v", watches, got, w.List())
		}

		// The last who leaves ends it; who comes then hears what has happened since.
		leaveToo()
		if w.Listed() || len(w.List()) != 0 {
			t.Errorf("it keeps %v though nobody keeps it up to date", w.List())
		}
		change(nodeOf("a", "4"))
		if leave, err = w.Follow(second.handler()); err != nil {
			t.Fatal(err)
		}
		defer leave()
		expect(&second, "[+a=4 listed]")
	})
}

// What breaks a watch: it is told of what was missed when all is listed again.
func TestWatchListsAgain(t *testing.T) {
	withoutPauses(t)
	for name, breaks := range map[string]func(*apiwatch.FakeWatcher){
		"the version is too old": func(w *apiwatch.FakeWatcher) {
			e := apierrors.NewResourceExpired("too old resource version").Status()
			w.Error(&e)
		},
		"the API has gone away":        func(w *apiwatch.FakeWatcher) { w.Stop() },
		"an object that is none":       func(w *apiwatch.FakeWatcher) { w.Modify(&v1.Pod{}); w.Stop() },
		"a version that never existed": func(w *apiwatch.FakeWatcher) { w.Error(&metav1.Status{Code: 410, Reason: metav1.StatusReasonGone}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				there := &v1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []v1.Node{*nodeOf("a", "1"), *nodeOf("b", "1"), *nodeOf("c", "1")}}
				var open *apiwatch.FakeWatcher
				lw := notStreaming{&cache.ListWatch{
					ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) { return there.DeepCopy(), nil },
					WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
						if open != nil && o.ResourceVersion == "1" {
							return nil, apierrors.NewResourceExpired("too old resource version")
						}
						open = apiwatch.NewFakeWithChanSize(4, false)
						return open, nil
					},
				}}
				w := NewWatch(func() (cache.ListerWatcher, error) { return lw, nil }, valueOf)
				var l story
				leave, err := w.Follow(l.handler())
				if err != nil {
					t.Fatal(err)
				}
				defer leave()
				l.take()
				// The node is suspended, and wakes up.
				there = &v1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "9"}, Items: []v1.Node{*nodeOf("b", "1"), *nodeOf("c", "2"), *nodeOf("d", "1")}}
				breaks(open)
				time.Sleep(2 * time.Minute)
				if got, want := l.take(), "[+d=1 -a=1 c=1→2 listed]"; got != want {
					t.Errorf("heard %s, want %s", got, want)
				}
			})
		})
	}
}

// withoutPauses has upstream not sleep until what it takes for the time of its last error,
// which in a synctest's world is decades ahead (1.37).
func withoutPauses(t *testing.T) {
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
}

// notStreaming has a list where others stream it.
type notStreaming struct{ *cache.ListWatch }

func (notStreaming) IsWatchListSemanticsUnSupported() bool { return true }

// What a list brings is written by many; one that cannot be read is left out, by itself.
func TestWatchSurvivesABadObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(nodeOf("a", "1"), nodeOf("bad", "boom"), nodeOf("c", "1"))
		w := NewWatch(From(client, client.CoreV1().Nodes(), metav1.ListOptions{}), func(n *v1.Node) string {
			if n.Labels["value"] == "boom" {
				panic("no " + n.Name)
			}
			return n.Labels["value"]
		})
		var l story
		leave, err := Follow(t.Context(), w.With(l.handler()))
		if err != nil || !w.Listed() {
			t.Fatal(w.Listed(), err)
		}
		defer leave()
		if got, want := l.take(), "[+a=1 +c=1 listed]"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
		for _, n := range []*v1.Node{nodeOf("c", "boom"), nodeOf("a", "2"), nodeOf("bad", "2")} {
			if _, err := client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := l.take(), "[+bad=2 -c=1 a=1→2]"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
		// A list that is streamed goes through the same.
		o, err := w.Transformer()(nodeOf("bad", "boom"))
		if err == nil {
			t.Errorf("got %v of one that cannot be read", o)
		}
		if o, err = w.Transformer()(nodeOf("d", "7")); err != nil {
			t.Fatal(err)
		}
		if err := w.Replace([]any{o}, ""); err != nil {
			t.Fatal(err)
		}
		if got, want := l.take(), "[+d=7 -a=2 -bad=2 listed]"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	})
}

// Who may not watch yet, or whose kind does not exist yet, has the objects once that
// has changed.
func TestWatchThatIsRefused(t *testing.T) {
	withoutPauses(t)
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(nodeOf("a", "1"))
		var allowed atomic.Bool
		client.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !allowed.Load(), nil, apierrors.NewForbidden(v1.Resource("nodes"), "", nil)
		})
		w := NewWatch(From(client, client.CoreV1().Nodes(), metav1.ListOptions{}), valueOf)
		var l story
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		leave, err := Follow(ctx, w.With(l.handler()))
		if err != nil || w.Listed() {
			t.Fatal(w.Listed(), err)
		}
		defer leave()
		if got := l.take(); got != "[]" || w.Listed() {
			t.Errorf("heard %s", got)
		}
		allowed.Store(true)
		time.Sleep(time.Minute)
		if got, want := l.take(), "[+a=1 listed]"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	})
}

// A watch that was left tells nothing more, even if its reflector wakes up much later.
func TestNothingComesAfterTheEnd(t *testing.T) {
	w := NewWatch(nil, valueOf)
	f := &feed[string]{store: w.store, ended: true}
	for _, err := range []error{f.Add(nodeOf("a", "1")), f.Update(nodeOf("a", "1")), f.Replace([]any{nodeOf("a", "1")}, ""), f.Delete(nodeOf("a", "1"))} {
		if err != nil {
			t.Error(err)
		}
	}
	if len(w.List()) != 0 || w.Listed() {
		t.Errorf("it keeps %v", w.List())
	}
}

func TestWake(t *testing.T) {
	woken := 0
	h := Wake(func() { woken++ }, func(before, after string) bool { return before[0] != after[0] })
	for _, c := range []struct {
		change Change[string]
		want   int
	}{
		{Change[string]{After: "a1", Came: true}, 1},
		{Change[string]{Before: "a1", After: "a2"}, 0},
		{Change[string]{Before: "a2", After: "b2"}, 1},
		{Change[string]{Before: "b2", Gone: true}, 1},
	} {
		woken = 0
		if h.Changed(c.change); woken != c.want {
			t.Errorf("%+v woke %d times", c.change, woken)
		}
	}
}

func TestTrimNode(t *testing.T) {
	n := nodeOf("a", "1")
	n.Annotations = map[string]string{"much": "more"}
	for _, name := range annotations {
		n.Annotations[name] = "x"
	}
	n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	n.Status.Images = []v1.ContainerImage{{Names: []string{"large"}}}
	n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, LastHeartbeatTime: metav1.Now()}, {Type: v1.NodeDiskPressure}}
	small := TrimNode(n)
	if len(small.Annotations) != len(annotations) || small.ManagedFields != nil || small.Status.Images != nil || len(small.Labels) != 1 ||
		len(small.Status.Conditions) != 1 || !small.Status.Conditions[0].LastHeartbeatTime.IsZero() {
		t.Errorf("kept %+v", small)
	}
	if len(n.Annotations) != len(annotations)+1 {
		t.Error("the object itself has changed")
	}
}
