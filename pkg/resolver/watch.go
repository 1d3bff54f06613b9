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
		// What /etc/resolv.conf links to may have changed, or come to be.
		// So may the directories on the way, before they are watched.
		for before, now := []string(nil), f.dirs(); !slices.Equal(before, now); before, now = now, f.dirs() {
			watch(w, now)
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

// watch watches these directories and no others: one that only stood in for a
// directory that was not there may be busy.
func watch(w *fsnotify.Watcher, dirs []string) {
	for _, dir := range w.WatchList() {
		if !slices.Contains(dirs, dir) {
			_ = w.Remove(dir)
		}
	}
	for _, dir := range dirs {
		if !slices.Contains(w.WatchList(), dir) {
			_ = w.Add(dir)
		}
	}
}
