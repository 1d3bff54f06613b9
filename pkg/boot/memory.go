package boot

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// The garbage collector may let the heap grow by a percentage of what lives
// before it works again. An idle node allocates little: a small percentage
// costs it nothing and keeps it small. A busy one would do little else.
const (
	startGC = 40 // what a start throws away must not lie between what stays
	leanGC  = 20
	busyGC  = 100

	// Two collections in a row, each this soon after the one before, are a busy
	// node's; one this late is an idle node's. Between, all stays as it is. What
	// makes them busyWithin apart at leanGC makes them less than idleBeyond apart
	// at busyGC: it does not swing.
	busyWithin = 5 * time.Second
	idleBeyond = 30 * time.Second
)

// A governor sets the percentage by the time between collections. It asks at
// each collection, so that a node that becomes busy is generous at once, and an
// idle one is not woken.
type governor struct {
	mu       sync.Mutex
	percent  int
	last     time.Time // of the last collection
	soon     bool      // it came within busyWithin of the one before
	giveBack func()    // to the machine, what the heap no longer needs
}

// watch lets g decide until ctx is done.
func (g *governor) watch(ctx context.Context) {
	atEachCollection(func() bool {
		g.collected(time.Now())
		return ctx.Err() == nil
	})
}

// rest makes g lean, unless the node is busy, and gives back to the machine
// what a start needed and the work after it does not.
func (g *governor) rest() {
	g.mu.Lock()
	if g.percent != busyGC {
		g.set(leanGC)
	}
	g.mu.Unlock()
	g.giveBack()
}

func (g *governor) collected(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	since := now.Sub(g.last)
	soon := since < busyWithin
	switch {
	case soon && g.soon:
		g.set(busyGC)
	case since > idleBeyond && g.percent == busyGC:
		g.set(leanGC)
		// The work is over. By itself the runtime would keep a part of what that needed:
		// it gives back only what is beyond the size that the heap may have.
		go g.giveBack()
	}
	g.last, g.soon = now, soon
}

func (g *governor) set(percent int) {
	g.percent = percent
	debug.SetGCPercent(percent)
}

// atEachCollection calls f after each garbage collection until it returns
// false: an object that nobody holds is found by every one.
func atEachCollection(f func() bool) {
	type unheld struct{ self *unheld } //nolint:unused // a pointer keeps it out of the blocks that several small objects share
	runtime.AddCleanup(&unheld{}, func(f func() bool) {
		if f() {
			atEachCollection(f)
		}
	}, f)
}
