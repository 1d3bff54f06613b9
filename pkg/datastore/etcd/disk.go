package etcd

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// slowAt is what etcd's documentation calls a disk too slow from: a write is acknowledged
	// when it is on the disk, and a heartbeat waits for it.
	slowAt = 100 * time.Millisecond
	// samplesKept is over how many looks of upkeep the writes of the log are judged.
	samplesKept = 10
	// leastSyncs is how many writes there must be: of fewer, the slowest one is not typical. An idle server
	// makes twice as many in ten minutes.
	leastSyncs = 100
)

// disk judges how long the log takes to be on the disk, by what etcd counts anyway. The figures are
// of the process, which has one member.
type disk struct {
	syncs prometheus.Metric // nil where etcd does not count them

	mu      sync.Mutex
	samples []*dto.Histogram // cumulative, the oldest first
}

func newDisk() *disk {
	syncs, err := syncHistogram()
	if err != nil {
		slog.Debug("Nobody will be told that the disk is slow", "because", err)
	}
	return &disk{syncs: syncs}
}

// syncHistogram is etcd's own (3.7), which it does not export: a registry that is offered another
// of the same name returns the one that it has. To gather all families of the process, of which
// there are hundreds, would cost a thousand times as much.
func syncHistogram() (prometheus.Metric, error) {
	same := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "etcd_disk_wal_fsync_duration_seconds", Help: "The latency distributions of fsync called by WAL.",
	})
	err := prometheus.Register(same)
	var known prometheus.AlreadyRegisteredError
	if !errors.As(err, &known) {
		prometheus.Unregister(same)
		return nil, fmt.Errorf("etcd does not count how long its disk takes: %w", err)
	}
	metric, ok := known.ExistingCollector.(prometheus.Metric)
	if !ok {
		return nil, fmt.Errorf("etcd counts how long its disk takes in a %T", known.ExistingCollector)
	}
	return metric, nil
}

// sample remembers what has been counted by now.
func (d *disk) sample() {
	now := d.read()
	if now == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.samples = append(d.samples, now)
	if len(d.samples) > samplesKept {
		d.samples = slices.Delete(d.samples, 0, len(d.samples)-samplesKept)
	}
}

func (d *disk) read() *dto.Histogram {
	var m dto.Metric
	if d.syncs == nil || d.syncs.Write(&m) != nil {
		return nil
	}
	return m.GetHistogram()
}

// note says that the disk is slow, judged by what has been written since the oldest sample.
func (d *disk) note() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.samples) == 0 {
		return ""
	}
	p99, n := quantile(d.samples[0], d.read(), 0.99)
	if n < leastSyncs || p99 < slowAt {
		return ""
	}
	return fmt.Sprintf("the disk is slow: of %d writes in the last minutes, one in a hundred took %s or longer until it was safe, and the datastore needs less than %s; put the data directory on another disk, or find what else writes to this one",
		n, p99.Round(time.Millisecond), slowAt)
}

// quantile is that of the n observations between two states of a histogram, interpolated as Prometheus does.
func quantile(before, after *dto.Histogram, q float64) (d time.Duration, n uint64) {
	if after == nil {
		return 0, 0
	}
	was := map[float64]uint64{}
	for _, b := range before.GetBucket() {
		was[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	n = after.GetSampleCount() - before.GetSampleCount()
	rank, lower, below := q*float64(n), 0.0, 0.0
	for _, b := range after.GetBucket() {
		upper, within := b.GetUpperBound(), float64(b.GetCumulativeCount()-was[b.GetUpperBound()])
		if within >= rank && within > below {
			seconds := lower + (upper-lower)*(rank-below)/(within-below)
			return time.Duration(seconds * float64(time.Second)), n
		}
		lower, below = upper, within
	}
	return time.Duration(lower * float64(time.Second)), n // longer than the last bound
}
