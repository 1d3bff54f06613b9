package firewall

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a part whose one rule somebody removes.
type fake struct {
	gone     atomic.Bool
	fails    atomic.Bool
	looked   atomic.Int32
	restored atomic.Int32
}

func (f *fake) part() Part {
	return Part{
		Missing: func(_ context.Context, lost Lost) ([]string, error) {
			f.looked.Add(1)
			if f.gone.Load() {
				return []string{"chain X"}, nil
			}
			return nil, nil
		},
		Restore: func(context.Context) error {
			if f.fails.Load() {
				return errors.New("no iptables")
			}
			f.restored.Add(1)
			f.gone.Store(false)
			return nil
		},
	}
}

func (f *fake) injure(w *Watcher) {
	f.gone.Store(true)
	w.add(Lost{Changes: []Change{{Table: Table{"ip", "filter"}, Chains: []string{"X"}}}, By: "nft"})
}

// watching runs a test with a watcher whose kernel is the test.
func watching(t *testing.T, test func(t *testing.T, w *Watcher, f *fake)) {
	synctest.Test(t, func(t *testing.T) {
		w, f := New(), &fake{}
		w.subscribed = true
		defer w.Keep(f.part())()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			w.checkParts(ctx)
			close(done)
		}()
		test(t, w, f)
		stop()
		<-done
	})
}

func TestWhatIsRemovedIsPutBackAndTold(t *testing.T) {
	watching(t, func(t *testing.T, w *Watcher, f *fake) {
		f.injure(w)
		time.Sleep(time.Second)
		if f.gone.Load() || f.restored.Load() != 1 {
			t.Errorf("gone %t, put back %d times", f.gone.Load(), f.restored.Load())
		}
		if err := w.Ready(t.Context()); err != nil {
			t.Errorf("not ready: %v", err)
		}
		for _, want := range []string{"removed at ", " by the program nft: chain X; restored after 100ms"} {
			if !strings.Contains(w.Note(), want) {
				t.Errorf("%q is not in note %q", want, w.Note())
			}
		}
		time.Sleep(noteFor)
		if w.Note() != "" {
			t.Errorf("still told: %s", w.Note())
		}
	})
}

func TestWhatIsNobodysIsNotTold(t *testing.T) {
	watching(t, func(t *testing.T, w *Watcher, f *fake) {
		w.add(Lost{Changes: []Change{{Table: Table{"ip", "other"}, Dropped: true}}})
		time.Sleep(time.Hour)
		if f.looked.Load() != 1 || f.restored.Load() != 0 || w.Note() != "" {
			t.Errorf("looked %d times, put back %d times, note %q", f.looked.Load(), f.restored.Load(), w.Note())
		}
	})
}

func TestManyChangesAreOneLook(t *testing.T) {
	watching(t, func(t *testing.T, w *Watcher, f *fake) {
		for range 50 { // longer than patience lasts
			w.add(Lost{Links: []string{"eth0"}})
			time.Sleep(quiet / 2)
		}
		if got := f.looked.Load(); got < 2 || got > 4 {
			t.Errorf("looked %d times in %s", got, 50*quiet/2)
		}
	})
}

func TestWhatCannotBePutBackIsTriedAgain(t *testing.T) {
	watching(t, func(t *testing.T, w *Watcher, f *fake) {
		f.fails.Store(true)
		f.injure(w)
		time.Sleep(time.Minute)
		err := w.Ready(t.Context())
		if err == nil || !strings.Contains(err.Error(), "chain X; cannot restore it: no iptables") {
			t.Errorf("ready says %v", err)
		}
		f.fails.Store(false)
		time.Sleep(time.Minute)
		if err := w.Ready(t.Context()); err != nil || !strings.Contains(w.Note(), "restored after 1m") {
			t.Errorf("ready says %v, note %q", err, w.Note())
		}
	})
}

// Somebody may flush again between restoring and the check.
func TestWhatIsRemovedAgainMeanwhileIsPutBackAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		part := f.part()
		put := part.Restore
		part.Restore = func(ctx context.Context) error {
			defer f.gone.Store(f.restored.Load() == 0)
			return put(ctx)
		}
		f.gone.Store(true)
		start := time.Now()
		if err := restore(t.Context(), []*Part{&part}); err != nil || f.gone.Load() || f.restored.Load() != 2 || time.Since(start) > 2*restoreAgain {
			t.Errorf("got %v after %s, put back %d times, gone %t", err, time.Since(start), f.restored.Load(), f.gone.Load())
		}
	})
}

func TestTwoThatFightDoLittleElse(t *testing.T) {
	watching(t, func(t *testing.T, w *Watcher, f *fake) {
		for range 600 {
			f.injure(w)
			time.Sleep(time.Second)
		}
		if got := f.restored.Load(); got > burst+600/5+1 || got < burst {
			t.Errorf("put back %d times in 10 minutes", got)
		}
	})
}

func TestWhoHasLeftIsNotAsked(t *testing.T) {
	w, f := New(), &fake{}
	leave := w.Keep(f.part())
	leave()
	f.injure(w)
	if w.repair(t.Context(), false) || f.looked.Load() != 0 {
		t.Error("was asked")
	}
	(*Watcher)(nil).Keep(f.part())()
}

func TestManyChangesAreUnknown(t *testing.T) {
	w := New()
	for range 2000 {
		w.add(Lost{Changes: []Change{{Table: Table{"ip", "nat"}}}})
	}
	if !w.lost.Unknown || len(w.lost.Changes) > 1000 {
		t.Errorf("holds %d, unknown: %t", len(w.lost.Changes), w.lost.Unknown)
	}
}

func TestRunEnds(t *testing.T) {
	w := New()
	if err := w.Ready(t.Context()); err == nil {
		t.Error("is ready before it runs")
	}
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, stop)
	if err := w.Run(ctx); err != nil || w.Name() != "firewall" {
		t.Errorf("got %v", err)
	}
}
