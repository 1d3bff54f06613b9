package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// Watch calls found with what Servers returns now and whenever it returns
// something else, until ctx is done.
func (f Files) Watch(ctx context.Context, found func([]netip.Addr)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", f.Usual, err)
	}
	defer w.Close()
	var before []netip.Addr
	for first := true; ; first = false {
		// What /etc/resolv.conf links to may have changed, or come to be. A
		// directory that does not exist cannot be watched and holds nothing.
		for _, dir := range f.dirs() {
			if !slices.Contains(w.WatchList(), dir) {
				_ = w.Add(dir)
			}
		}
		if now := f.Servers(); first || !slices.Equal(now, before) {
			before = now
			found(now)
		}
		select {
		case <-w.Events:
		case <-w.Errors: // events were lost: look
		case <-ctx.Done():
			return nil
		}
	}
}
