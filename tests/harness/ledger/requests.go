package ledger

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// Requests makes requests to a Service all the time, each on a connection of its own,
// and counts those that fail.
type Requests struct {
	stop func()

	mu     sync.Mutex
	right  int
	failed []string
}

// between is how long each place waits from one request to the next.
const between = 100 * time.Millisecond

// Count begins to request a URL from places, which have names. It ends with Stop.
func Count(url string, places map[string]cluster.Dialer) *Requests {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Requests{}
	var work sync.WaitGroup
	for name, from := range places {
		work.Go(func() {
			for tick := time.NewTicker(between); ; {
				select {
				case <-ctx.Done():
					tick.Stop()
					return
				case <-tick.C:
					began := time.Now()
					_, err := cluster.Get(from, url)
					r.note(name, began, err)
				}
			}
		})
	}
	r.stop = func() { cancel(); work.Wait() }
	return r
}

func (r *Requests) note(from string, began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.right++
		return
	}
	took := time.Since(began).Round(time.Millisecond)
	r.failed = append(r.failed, fmt.Sprintf("%s from %s, after %s: %v", began.Format("15:04:05.000"), from, took, err))
}

// Stop ends it, and waits for the last answers.
func (r *Requests) Stop() { r.stop() }

// Taken returns how many requests were answered since it was last called, and how the
// others failed.
func (r *Requests) Taken() (right int, failed []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	right, failed = r.right, r.failed
	r.right, r.failed = 0, nil
	return right, failed
}
