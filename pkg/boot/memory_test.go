package boot

import (
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestGovernor(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for _, c := range []struct {
		name    string
		percent int
		apart   []time.Duration // the collections
		want    int
		given   bool // memory is given back
	}{
		{"one collection soon after another is nothing", leanGC, []time.Duration{time.Minute, time.Second}, leanGC, false},
		{"two are a busy node", leanGC, []time.Duration{time.Minute, time.Second, time.Second}, busyGC, false},
		{"a start that goes over into work", startGC, []time.Duration{time.Minute, time.Second, time.Second}, busyGC, false},
		{"a busy node that pauses stays busy", busyGC, []time.Duration{time.Second, 20 * time.Second}, busyGC, false},
		{"a busy node becomes idle", busyGC, []time.Duration{time.Second, 2 * time.Minute}, leanGC, true},
		{"an idle node stays lean", leanGC, []time.Duration{20 * time.Second, 2 * time.Minute, 10 * time.Second}, leanGC, false},
	} {
		now := time.Now()
		given := make(chan bool, 1)
		g := governor{percent: c.percent, last: now, giveBack: func() { given <- true }}
		synctest.Test(t, func(t *testing.T) {
			for _, d := range c.apart {
				now = now.Add(d)
				g.collected(now)
			}
			synctest.Wait()
		})
		if (len(given) > 0) != c.given {
			t.Errorf("%s: memory is given back: %v, want %v", c.name, !c.given, c.given)
		}
		if g.percent != c.want {
			t.Errorf("%s: %d %%, want %d %%", c.name, g.percent, c.want)
		}
	}
	if apart := busyWithin * busyGC / leanGC; apart > idleBeyond {
		t.Errorf("a node between idle and busy swings: its collections are %s apart at %d %%", apart, busyGC)
	}
}

func TestAtEachCollection(t *testing.T) {
	calls := make(chan int, 10)
	n := 0
	atEachCollection(func() bool {
		n++
		calls <- n
		return n < 3
	})
	// A call asks for the next one after it began: one collection may be too early.
	collect := func() (call int) {
		for range 100 {
			runtime.GC()
			select {
			case call := <-calls:
				return call
			case <-time.After(20 * time.Millisecond):
			}
		}
		return 0
	}
	for want := 1; want <= 3; want++ {
		if got := collect(); got != want {
			t.Fatalf("call %d, want %d", got, want)
		}
	}
	for range 3 {
		runtime.GC()
	}
	select {
	case <-calls:
		t.Error("called again after it returned false")
	case <-time.After(50 * time.Millisecond):
	}
}
