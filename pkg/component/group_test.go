package component

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// journal records what happened, in order.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) add(event string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
}

func (j *journal) index(t *testing.T, event string) int {
	t.Helper()
	i := slices.Index(j.events, event)
	if i < 0 {
		t.Fatalf("%q did not happen; got %q", event, j.events)
	}
	return i
}

// fake is a component that gets ready, dies and stops when it is told to.
type fake struct {
	name       string
	j          *journal
	readyAfter time.Duration // from the start of Run
	diesAfter  time.Duration // 0 = lives until told to stop
	diesWith   error
	stopsIn    time.Duration
	stopErr    error

	mu      sync.Mutex
	started time.Time
}

func (f *fake) Name() string { return f.name }

func (f *fake) Run(ctx context.Context) error {
	f.mu.Lock()
	f.started = time.Now()
	f.mu.Unlock()
	f.j.add("start " + f.name)
	defer f.j.add("end " + f.name)
	var death <-chan time.Time
	if f.diesAfter > 0 {
		death = time.After(f.diesAfter)
	}
	select {
	case <-death:
		return f.diesWith
	case <-ctx.Done():
		f.j.add("stop " + f.name)
		time.Sleep(f.stopsIn)
		return f.stopErr
	}
}

func (f *fake) Ready(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started.IsZero() || time.Since(f.started) < f.readyAfter {
		return errors.New("warming up")
	}
	return nil
}

// A part that says it is ready is not while something else says why it cannot be.
func TestVeto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := errors.New("its certificate ended")
		var valid atomic.Bool
		g := &Group{Veto: func(component string) error {
			if component == "b" && !valid.Load() {
				return ended
			}
			return nil
		}}
		j := &journal{}
		g.Add(&fake{name: "a", j: j})
		g.Add(&fake{name: "b", j: j})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- g.Run(ctx) }()
		time.Sleep(time.Minute)
		if all := g.Status(ctx); all[0].State != Ready || all[1].State != Starting || !errors.Is(all[1].Err, ended) {
			t.Errorf("got %+v", all)
		}
		valid.Store(true)
		time.Sleep(time.Minute)
		valid.Store(false)
		if all := g.Status(ctx); all[0].State != Ready || all[1].State != Failed || !errors.Is(all[1].Err, ended) {
			t.Errorf("after it had been ready: %+v", all)
		}
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// chain adds a, b that needs a, and c that needs b.
func chain(g *Group, a, b, c *fake) {
	na := g.Add(a)
	nb := g.Add(b, na)
	g.Add(c, nb)
}

func TestStartsInOrderAndStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := &Group{}
		chain(g,
			&fake{name: "a", j: j, readyAfter: time.Second, stopsIn: time.Second},
			&fake{name: "b", j: j, readyAfter: time.Second, stopsIn: time.Second},
			&fake{name: "c", j: j, stopsIn: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatalf("Run = %v, want nil after a clean stop", err)
		}
		want := []string{"start a", "start b", "start c", "stop c", "end c", "stop b", "end b", "stop a", "end a"}
		if !slices.Equal(j.events, want) {
			t.Errorf("events = %q, want %q", j.events, want)
		}
	})
}

func TestSlowReadinessHoldsBackOnlyDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := &Group{}
		slow := g.Add(&fake{name: "slow", j: j, readyAfter: 10 * time.Second})
		waits := g.Add(&fake{name: "waits", j: j}, slow)
		free := g.Add(&fake{name: "free", j: j})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()

		time.Sleep(9 * time.Second)
		synctest.Wait()
		for _, c := range []struct {
			node *Node
			want State
		}{{slow, Starting}, {waits, Waiting}, {free, Ready}} {
			if got := c.node.Status(); got.State != c.want {
				t.Errorf("after 9 s %s is %s, want %s", got.Name, got.State, c.want)
			}
		}
		if err := slow.Status().Err; err == nil || err.Error() != "warming up" {
			t.Errorf("reason for waiting = %v, want the error of Ready", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := waits.Status(); got.State != Ready {
			t.Errorf("after 11 s waits is %s, want ready", got.State)
		}
		if took := slow.Status().Took; took < 10*time.Second || took > 11*time.Second {
			t.Errorf("slow took %s, want 10 s", took)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestFailureStopsTheRestAndIsNamed(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		died error
		want string
	}{
		"with an error": {boom, "b: boom"},
		"with nil":      {nil, "b: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{}
				g := &Group{}
				chain(g,
					&fake{name: "a", j: j},
					&fake{name: "b", j: j, diesAfter: time.Minute, diesWith: c.died},
					&fake{name: "c", j: j})
				err := g.Run(t.Context())
				if err == nil || err.Error() != c.want {
					t.Fatalf("Run = %v, want %q", err, c.want)
				}
				if c.died != nil && !errors.Is(err, c.died) {
					t.Errorf("%v does not wrap the component's error", err)
				}
				if j.index(t, "end c") > j.index(t, "stop a") {
					t.Errorf("a was stopped before c had ended: %q", j.events)
				}
			})
		})
	}
}

func TestFailureBeforeReadyNeverStartsDependents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := &Group{}
		chain(g,
			&fake{name: "a", j: j, readyAfter: time.Hour, diesAfter: time.Second, diesWith: errors.New("no disk")},
			&fake{name: "b", j: j},
			&fake{name: "c", j: j})
		if err := g.Run(t.Context()); err == nil || err.Error() != "a: no disk" {
			t.Errorf("Run = %v, want a: no disk", err)
		}
		if want := []string{"start a", "end a"}; !slices.Equal(j.events, want) {
			t.Errorf("events = %q, want %q", j.events, want)
		}
	})
}

func TestStuckStopIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := &Group{}
		chain(g,
			&fake{name: "a", j: j},
			&fake{name: "b", j: j, stopsIn: time.Hour},
			&fake{name: "c", j: j})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err := g.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "b, a still running") {
			t.Errorf("Run = %v, want it to name b first and a that waits for it", err)
		}
		if took := time.Since(began); took != time.Minute+DefaultStopTimeout {
			t.Errorf("Run took %s, want %s", took, time.Minute+DefaultStopTimeout)
		}
		time.Sleep(2 * time.Hour) // let the stuck one go before the bubble ends
	})
}

func TestCancelledBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := &Group{}
		chain(g, &fake{name: "a", j: j}, &fake{name: "b", j: j}, &fake{name: "c", j: j})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if len(j.events) != 0 {
			t.Errorf("events = %q, want none", j.events)
		}
	})
}

func TestErrorWhileStoppingIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := &Group{}
		g.Add(&fake{name: "fine", j: j, stopErr: context.Canceled})
		g.Add(&fake{name: "db", j: j, stopErr: errors.New("fsync failed")})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Run(ctx); err == nil || err.Error() != "stop db: fsync failed" {
			t.Errorf("Run = %v, want stop db: fsync failed", err)
		}
	})
}

// noted has something to tell.
type noted struct{ *fake }

func (n noted) Note() string { return n.name + " is well" }

func TestStatusAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		f := &fake{name: "a", j: j}
		g := &Group{}
		g.Add(noted{f})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		time.Sleep(time.Second)
		if s := g.Status(ctx)[0]; s.State != Ready || s.Err != nil || s.Note != "a is well" {
			t.Errorf("status = %+v, want ready with its note", s)
		}
		f.mu.Lock()
		f.readyAfter = time.Hour
		f.mu.Unlock()
		if s := g.Status(ctx)[0]; s.State != Failed || s.Err == nil {
			t.Errorf("status = %+v, want failed with a reason", s)
		}
		cancel()
		<-done
	})
}

func TestOnChangeTellsEachStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		told := &journal{}
		g := &Group{OnChange: func(s Status) { told.add(string(s.State)) }}
		g.Add(&fake{name: "a", j: j, readyAfter: time.Second}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if want := []string{"starting", "ready", "stopping", "stopped"}; !slices.Equal(told.events, want) {
			t.Errorf("changes = %q, want %q", told.events, want)
		}
	})
}

// The last one starts with the others and works until they have ended, also if
// they never got ready.
func TestTheLastOutlivesAllOthers(t *testing.T) {
	for name, ready := range map[string]time.Duration{"all ready": 0, "one never ready": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{}
				g := &Group{}
				g.AddLast(&fake{name: "last", j: j, readyAfter: ready})
				a := g.Add(&fake{name: "a", j: j, stopsIn: time.Second})
				g.Add(&fake{name: "b", j: j, stopsIn: 2 * time.Second}, a)
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, cancel)
				if err := g.Run(ctx); err != nil {
					t.Fatal(err)
				}
				for _, other := range []string{"a", "b"} {
					j.index(t, "start "+other) // though the last was not ready, maybe
					if j.index(t, "stop last") < j.index(t, "end "+other) {
						t.Errorf("it was told to stop before %s had ended: %q", other, j.events)
					}
				}
			})
		})
	}
}

// configured reports what it runs by, or why not.
type configured struct {
	*fake
	settings Settings
	err      error
}

func (c configured) Settings() (Settings, error) { return c.settings, c.err }

func TestSettingsOfThoseThatHaveThem(t *testing.T) {
	j := &journal{}
	g := &Group{}
	g.Add(&fake{name: "plain", j: j})
	g.Add(configured{&fake{name: "etcd", j: j}, Settings{Arguments: []string{"--name=a"}}, nil})
	g.Add(configured{&fake{name: "guarded", j: j}, Settings{}, errors.ErrUnsupported})
	got, err := g.Settings()
	if err != nil || len(got) != 1 || !slices.Equal(got["etcd"].Arguments, []string{"--name=a"}) {
		t.Errorf("got %v, %v", got, err)
	}
	g.Add(configured{&fake{name: "kubelet", j: j}, Settings{}, errors.New("no codec")})
	if _, err := g.Settings(); err == nil || err.Error() != "settings of kubelet: no codec" {
		t.Errorf("got %v", err)
	}
}
