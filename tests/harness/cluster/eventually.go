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

// retry calls f, ever less often, until it returns nil or the timeout is over.
func retry(timeout time.Duration, f func() error) error {
	pause := 20 * time.Millisecond
	for deadline := time.Now().Add(timeout); ; {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
		pause = min(2*pause, 500*time.Millisecond)
	}
}
