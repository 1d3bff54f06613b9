package images

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An import that takes long is told of while it goes on, and no longer.
func TestWorkIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &work{size: 295e6}
		var told []string
		done := w.report(tellEvery, func(doing string) { told = append(told, doing) })
		time.Sleep(tellEvery - time.Second)
		w.read(120e6)
		time.Sleep(tellEvery)
		w.unpack("registry.test/big:1")
		time.Sleep(tellEvery)
		done()
		time.Sleep(10 * tellEvery)
		if want := []string{"reading, 120.0 MB of 295.0 MB", "unpacking registry.test/big:1"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
