package kube

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/layout"
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

// leases is the API of a cluster as far as an election uses it: it refuses to change what is not
// the newest version, which the fake client does not.
type leases struct {
	tracker clienttesting.ObjectTracker
	mu      sync.Mutex
	version int
	writes  int
}

func newLeases() *leases {
	return &leases{version: 1, tracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
}

func (c *leases) get() *coordination.Lease {
	o, err := c.tracker.Get(coordination.SchemeGroupVersion.WithResource("leases"), metav1.NamespaceSystem, layout.Lease)
	if err != nil {
		return nil
	}
	return o.(*coordination.Lease)
}

// react is the API's answer to what is no watch.
func (c *leases) react(a clienttesting.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if change, ok := a.(clienttesting.CreateAction); ok { // an update has its method too
		next, now := change.GetObject().(*coordination.Lease), c.get()
		if a.GetVerb() == "update" && now != nil && next.ResourceVersion != now.ResourceVersion {
			return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), next.Name, errors.New("changed"))
		}
		c.version++
		c.writes++
		next.ResourceVersion = strconv.Itoa(c.version)
	}
	return clienttesting.ObjectReaction(c.tracker)(a)
}

func (c *leases) client(first clienttesting.ReactionFunc) *fake.Clientset {
	client := &fake.Clientset{}
	if first != nil {
		client.AddReactor("*", "leases", first)
	}
	client.AddReactor("*", "leases", c.react)
	client.AddWatchReactor("leases", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := c.tracker.Watch(a.GetResource(), a.GetNamespace())
		return true, w, err
	})
	return client
}

func (c *leases) written() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// machine is a server in a cluster, of which only the election runs.
type machine struct {
	election *Election
	worker   *worker
	shared   chan struct{}
	stop     func() error // in order

	mu  sync.Mutex
	cut func() error // what becomes of its requests; nil: they are answered
}

func (m *machine) cutOff(how func() error) { m.mu.Lock(); m.cut = how; m.mu.Unlock() }

func unavailable() error { return apierrors.NewServiceUnavailable("cut off") }

// hang keeps requests waiting until its caller has long given up.
func hang() error { time.Sleep(time.Minute); return unavailable() }

// server is an election and what it guards, as in a server that is alone.
func (c *leases) server(t *testing.T, name string) *machine {
	return c.start(t, &machine{worker: &worker{name: name}, shared: make(chan struct{})})
}

// member is a server that takes part from its start.
func (c *leases) member(t *testing.T, name string) *machine {
	m := &machine{worker: &worker{name: name}, shared: make(chan struct{})}
	close(m.shared)
	return c.start(t, m)
}

func (c *leases) start(t *testing.T, m *machine) *machine {
	client := c.client(func(clienttesting.Action) (bool, runtime.Object, error) {
		m.mu.Lock()
		cut := m.cut
		m.mu.Unlock()
		if cut != nil {
			return true, nil, cut()
		}
		return false, nil, nil
	})
	g := &component.Group{}
	m.election = newElection(m.worker.name, m.shared, func() (kubernetes.Interface, error) { return client, nil })
	g.Add(m.election.Guard(m.worker), g.Add(m.election))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	m.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Errorf("%s: %v", m.worker.name, err)
		}
	})
	return m
}

func (m *machine) did(t *testing.T, want ...string) {
	t.Helper()
	if got := m.worker.seen(); !slices.Equal(got, want) {
		t.Fatalf("%s: its work was %q, want %q", m.worker.name, got, want)
	}
}

func (m *machine) isHeld() bool { return IsClosed(m.election.held) }

// A lone server renewed a Lease every two seconds, for as long as the flash lasts.
func TestAServerThatIsAloneWritesNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLeases()
		a := c.server(t, "a")
		time.Sleep(time.Hour)
		a.did(t, "start")
		if c.written() != 0 || a.isHeld() || a.election.Note() != "" {
			t.Errorf("%d writes, held %v, note %q", c.written(), a.isHeld(), a.election.Note())
		}
	})
}

func TestAServerThatLedAloneKeepsItsTerm(t *testing.T) {
	for name, stale := range map[string]string{"no Lease": "", "released": "-", "its own": "a", "of a server that is gone": "gone"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newLeases()
				if stale != "" {
					before := c.member(t, stale)
					time.Sleep(time.Second)
					if before.cutOff(unavailable); stale == "-" {
						before.cutOff(nil)
					}
					if err := before.stop(); err != nil {
						t.Fatal(err)
					}
				}
				a := c.server(t, "a")
				time.Sleep(time.Minute)
				close(a.shared)
				held, stop := context.WithTimeout(t.Context(), leaseDuration+time.Second)
				defer stop()
				if err := a.election.Held(held); err != nil {
					t.Fatal(err)
				}
				if l := c.get(); l == nil || *l.Spec.HolderIdentity != "a" {
					t.Fatalf("the Lease is %v", l)
				}
				// What Held is for: others come, and do not lead.
				b := c.member(t, "b")
				time.Sleep(time.Hour)
				a.did(t, "start")
				b.did(t)
				if !b.isHeld() || b.election.Note() != "a leads" || a.election.Note() != "this server leads" {
					t.Errorf("b: held %v, %q; a: %q", b.isHeld(), b.election.Note(), a.election.Note())
				}
			})
		})
	}
}

// While the API does not answer, nobody can have been let in, so the term goes on.
func TestAServerThatCannotWriteTheLeaseYetLeadsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLeases()
		a := c.server(t, "a")
		time.Sleep(time.Second)
		a.cutOff(unavailable)
		close(a.shared)
		time.Sleep(time.Minute)
		a.did(t, "start")
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := a.election.Held(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), layout.Lease) {
			t.Errorf("Held = %v", err)
		}
		a.cutOff(nil)
		if err := a.election.Held(t.Context()); err != nil {
			t.Error(err)
		}
		a.did(t, "start")
	})
}

// The other server must not be there, but if it is, one of the two has to end.
func TestAServerThatLedAloneYieldsToOneThatRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLeases()
		b := c.member(t, "b")
		time.Sleep(time.Minute)
		a := c.server(t, "a")
		time.Sleep(time.Second)
		close(a.shared)
		time.Sleep(leaseDuration)
		a.did(t, "start", "stop")
		b.did(t, "start")
		if !a.isHeld() {
			t.Error("the Lease is not seen to be held")
		}
	})
}

func TestOneServerLeadsAndAnotherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLeases()
		a := c.member(t, "a")
		time.Sleep(time.Minute)
		b := c.member(t, "b")
		before := c.written()
		time.Sleep(time.Hour)
		a.did(t, "start")
		b.did(t)
		if n := c.written() - before; n > 1801 {
			t.Errorf("%d writes in an hour", n)
		}
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		// The others see at once that the Lease is released.
		time.Sleep(100 * time.Millisecond)
		a.did(t, "start", "stop")
		b.did(t, "start")
	})
}

// Whenever a leader dies, another leads within 8 s, and never while the first still does.
func TestALeaderThatIsCutOffIsReplaced(t *testing.T) {
	for name, cut := range map[string]func() error{"refused": unavailable, "no answer": hang} {
		for _, after := range []time.Duration{10 * time.Second, 11*time.Second - time.Millisecond, 11*time.Second + time.Millisecond, 12*time.Second - time.Millisecond} {
			t.Run(name+after.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newLeases()
					a := c.member(t, "a")
					time.Sleep(time.Second)
					b, other := c.member(t, "b"), c.member(t, "c")
					time.Sleep(after)
					a.cutOff(cut)
					began := time.Now()
					for len(b.worker.seen())+len(other.worker.seen()) == 0 {
						if time.Since(began) > 8*time.Second {
							t.Fatal("nobody leads 8 s later")
						}
						if len(a.worker.seen()) == 2 && time.Since(began) < renewDeadline-renewPeriod {
							t.Fatalf("it has given up after %s", time.Since(began))
						}
						time.Sleep(10 * time.Millisecond)
					}
					a.did(t, "start", "stop")
					time.Sleep(time.Hour)
					if b, other := b.worker.seen(), other.worker.seen(); len(b)+len(other) != 1 {
						t.Errorf("b: %q, c: %q", b, other)
					}
					// It is back, and stands by.
					a.cutOff(nil)
					time.Sleep(time.Hour)
					a.did(t, "start", "stop")
				})
			})
		}
	}
}

func TestALostLeaseStopsTheWorkNotTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLeases().member(t, "a")
		time.Sleep(time.Minute)
		a.cutOff(unavailable)
		time.Sleep(time.Minute)
		a.did(t, "start", "stop")
		a.cutOff(nil)
		time.Sleep(time.Minute)
		a.did(t, "start", "stop", "start")
	})
}

// etcd chooses another leader within two seconds. A request that is under way then is never answered, and
// those that follow are refused.
func TestALeaderOutlastsAnElectionOfEtcd(t *testing.T) {
	for name, first := range map[string]time.Duration{"refused": 0, "no answer": attemptTimeout} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newLeases()
				a := c.member(t, "a")
				time.Sleep(time.Minute)
				b := c.member(t, "b")
				for range 20 {
					time.Sleep(7 * renewPeriod / 5)
					wait := first
					a.cutOff(func() error { time.Sleep(wait); wait = 0; return unavailable() })
					time.Sleep(2 * time.Second)
					a.cutOff(nil)
				}
				a.did(t, "start")
				b.did(t)
			})
		})
	}
}

// Somebody deletes the Lease, or writes into it: there is one leader nevertheless.
func TestALeaseThatSomebodyChanges(t *testing.T) {
	for name, change := range map[string]func(*leases, kubernetes.Interface) error{
		"delete": func(c *leases, client kubernetes.Interface) error {
			return client.CoordinationV1().Leases(metav1.NamespaceSystem).Delete(t.Context(), layout.Lease, metav1.DeleteOptions{})
		},
		"label": func(c *leases, client kubernetes.Interface) error {
			l := c.get()
			l.Labels = map[string]string{"a": "b"}
			_, err := client.CoordinationV1().Leases(metav1.NamespaceSystem).Update(t.Context(), l, metav1.UpdateOptions{})
			return err
		},
		"a wrong time": func(c *leases, client kubernetes.Interface) error {
			l := c.get()
			l.Spec.RenewTime = &metav1.MicroTime{}
			_, err := client.CoordinationV1().Leases(metav1.NamespaceSystem).Update(t.Context(), l, metav1.UpdateOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newLeases()
				a := c.member(t, "a")
				time.Sleep(time.Second)
				b := c.member(t, "b")
				time.Sleep(time.Minute) // between two renewals
				if err := change(c, c.client(nil)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				a.did(t, "start")
				b.did(t)
				if l := c.get(); l == nil || *l.Spec.HolderIdentity != "a" {
					t.Errorf("the Lease is %v", l)
				}
			})
		})
	}
}

// By the same way an administrator makes a leader give up.
func TestALeaderWhoseLeaseIsGivenAwayYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLeases()
		a := c.member(t, "a")
		time.Sleep(61 * time.Second) // between two renewals
		l, other := c.get(), "other"
		l.Spec.HolderIdentity = &other
		if _, err := c.client(nil).CoordinationV1().Leases(metav1.NamespaceSystem).Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(renewPeriod + time.Second)
		a.did(t, "start", "stop")
		time.Sleep(leaseDuration)
		a.did(t, "start", "stop", "start")
	})
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func TestAGuardedFailureIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		g := &component.Group{}
		e := newElection("a", closed(), func() (kubernetes.Interface, error) { return fake.NewClientset(), nil })
		g.Add(e.Guard(&worker{name: "w", fail: boom}), g.Add(e))
		if err := g.Run(t.Context()); !errors.Is(err, boom) {
			t.Errorf("Run = %v, want boom", err)
		}
	})
}

// An election is made while a server is put together, before its kubeconfig is written.
func TestAnElectionBeforeThereIsAKubeconfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lite.conf")
	e := NewElection(NewClient(path, "election"), "a", closed())
	if err := e.Ready(t.Context()); err == nil {
		t.Error("it knows who leads before it has run")
	}
	if err := e.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "set up the election: ") || !strings.Contains(err.Error(), path) {
		t.Errorf("Run without a kubeconfig = %v", err)
	}
}

func TestNoElectionGuardsNothing(t *testing.T) {
	w := &worker{name: "w"}
	none := (*Election)(nil)
	if got := none.Guard(w); got != component.Component(w) {
		t.Errorf("Guard = %v, want the component itself", got)
	}
	if err := none.Held(t.Context()); err != nil {
		t.Error(err)
	}
}
