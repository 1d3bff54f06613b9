package images

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An import that takes long is reported while it runs, and no longer.
func TestWorkIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &work{size: 295e6}
		var reported []string
		done := w.report(reportEvery, func(doing string) { reported = append(reported, doing) })
		time.Sleep(reportEvery - time.Second)
		w.read(120e6)
		time.Sleep(reportEvery)
		w.unpack("registry.test/big:1")
		time.Sleep(reportEvery)
		done()
		time.Sleep(10 * reportEvery)
		if want := []string{"reading, 120.0 MB of 295.0 MB", "unpacking registry.test/big:1"}; !slices.Equal(reported, want) {
			t.Errorf("reported %q, want %q", reported, want)
		}
	})
}
