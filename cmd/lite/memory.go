package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The garbage collector may let the heap grow by a percentage of what lives
// before it works again. An idle node allocates little: a small percentage
// costs it nothing and keeps it small. A busy one would do little else.
const (
	startGC = 40 // what a start throws away must not lie between what stays
	leanGC  = 20
	busyGC  = 100
	gcEvery = 10 * time.Second // how often to look

	// More collections than this in gcEvery are a busy node's.
	busyCycles = 4
)

// tuneGC makes the garbage collector lean while the node is idle and generous
// while it works, until ctx is done.
func tuneGC(ctx context.Context) {
	tick := time.NewTicker(gcEvery)
	defer tick.Stop()
	percent, last := leanGC, gcCycles()
	debug.SetGCPercent(percent)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := gcCycles()
		if next := nextGC(percent, now-last); next != percent {
			percent = next
			debug.SetGCPercent(percent)
		}
		last = now
	}
}

// nextGC decides by how many collections there were since the last look. Between
// the two bounds it stays as it is, so that it does not swing.
func nextGC(percent int, cycles uint64) int {
	switch {
	case cycles > busyCycles:
		return busyGC
	case cycles <= 1:
		return leanGC
	}
	return percent
}

func gcCycles() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
