package kube

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/component"
)

// worker records when it runs.
type worker struct {
	name   string
	mu     sync.Mutex
	events []string
	fail   error
}

func (w *worker) add(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf(format, args...))
}

// seen is what has been recorded so far.
func (w *worker) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

func (w *worker) Name() string                { return w.name }
func (w *worker) Ready(context.Context) error { return nil }
func (w *worker) Run(ctx context.Context) error {
	w.add("start")
	defer w.add("stop")
	if w.fail != nil {
		return w.fail
	}
	<-ctx.Done()
	return nil
}

// server is an election and what it guards, as in a server.
func server(t *testing.T, client *fake.Clientset, name string, w *worker) (stop func() error) {
	g := &component.Group{}
	e := newElection(name, func() (kubernetes.Interface, error) { return client, nil })
	g.Add(e.Guard(w), g.Add(e))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func TestOneServerLeadsAndAnotherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		a, b := &worker{name: "a"}, &worker{name: "b"}
		stopA := server(t, client, "a", a)
		time.Sleep(time.Minute)
		stopB := server(t, client, "b", b)
		time.Sleep(time.Minute)
		if !slices.Equal(a.seen(), []string{"start"}) || len(b.seen()) != 0 {
			t.Fatalf("a %q, b %q: want a alone to run", a.seen(), b.seen())
		}
		if err := stopA(); err != nil {
			t.Error(err)
		}
		// A released lease is taken at the next try, not after it expires.
		time.Sleep(2 * retryPeriod)
		if !slices.Equal(a.seen(), []string{"start", "stop"}) || !slices.Equal(b.seen(), []string{"start"}) {
			t.Errorf("a %q, b %q: want b to have taken over", a.seen(), b.seen())
		}
		if err := stopB(); err != nil {
			t.Error(err)
		}
	})
}

func TestALostLeaseStopsTheWorkNotTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var mu sync.Mutex
		away := false
		client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return true, nil, apierrors.NewServiceUnavailable("cut off")
			}
			return false, nil, nil
		})
		set := func(v bool) { mu.Lock(); away = v; mu.Unlock() }

		w := &worker{name: "w"}
		stop := server(t, client, "a", w)
		time.Sleep(time.Minute)
		set(true)
		time.Sleep(time.Minute)
		if want := []string{"start", "stop"}; !slices.Equal(w.seen(), want) {
			t.Fatalf("events = %q, want %q while the API is away", w.seen(), want)
		}
		set(false)
		time.Sleep(time.Minute)
		if want := []string{"start", "stop", "start"}; !slices.Equal(w.seen(), want) {
			t.Errorf("events = %q, want %q after it is back", w.seen(), want)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAGuardedFailureIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		g := &component.Group{}
		e := newElection("a", func() (kubernetes.Interface, error) { return fake.NewClientset(), nil })
		g.Add(e.Guard(&worker{name: "w", fail: boom}), g.Add(e))
		if err := g.Run(t.Context()); !errors.Is(err, boom) {
			t.Errorf("Run = %v, want boom", err)
		}
	})
}

// An election is made while a server is put together, before its kubeconfig is written.
func TestAnElectionBeforeThereIsAKubeconfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lite.conf")
	e := NewElection(NewClient(path, "election"), "a")
	if err := e.Ready(t.Context()); err == nil {
		t.Error("it knows who leads before it has run")
	}
	if err := e.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "set up the election: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("Run without a kubeconfig = %v", err)
	}
}

func TestNoElectionGuardsNothing(t *testing.T) {
	w := &worker{name: "w"}
	if got := (*Election)(nil).Guard(w); got != component.Component(w) {
		t.Errorf("Guard = %v, want the component itself", got)
	}
}
