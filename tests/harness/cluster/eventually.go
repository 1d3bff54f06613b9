package cluster

import (
	"testing"
	"time"
)

// Eventually waits until f returns nil, and fails the test with f's last error
// if it does not within the timeout. What must succeed at once, f may leave to
// functions that fail the test themselves.
func Eventually(t testing.TB, timeout time.Duration, f func() error) {
	t.Helper()
	start := time.Now()
	if err := retry(timeout, f); err != nil {
		t.Fatalf("still after %s: %v", time.Since(start).Round(time.Second), err)
	}
}

// retry calls f, ever less often, until it returns nil or the timeout is over. Most of
// what tests ask starts a program. Who has waited for long already is not in a hurry,
// and leaves the processor to those who are.
func retry(timeout time.Duration, f func() error) error {
	pause, start := 20*time.Millisecond, time.Now()
	for {
		err := f()
		waited := time.Since(start)
		if err == nil || waited > timeout {
			return err
		}
		time.Sleep(pause)
		pause = min(2*pause, max(500*time.Millisecond, min(waited/20, time.Second)))
	}
}
