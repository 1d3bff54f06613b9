package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file has to be without a server before that counts: whoever rewrites
// it empties it first.
const settle = 200 * time.Millisecond

// Watch calls found with what Servers returns now and whenever it returns
// something else, until ctx is done.
func (f Files) Watch(ctx context.Context, found func([]netip.Addr)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", f.Usual, err)
	}
	defer w.Close()
	var before []netip.Addr
	var emptied <-chan time.Time
	report := func(now []netip.Addr) {
		before, emptied = now, nil
		found(now)
	}
	for first := true; ; first = false {
		// What /etc/resolv.conf links to may have changed, or come to be.
		// So may the directories on the way, before they are watched.
		for before, now := []string(nil), f.dirs(); !slices.Equal(before, now); before, now = now, f.dirs() {
			watch(w, now)
		}
		f.watchMounted(w)
		switch now := f.Servers(); {
		case slices.Equal(now, before) && !first:
			emptied = nil
		case len(now) > 0 || first:
			report(now)
		case emptied == nil:
			emptied = time.After(settle)
		}
		select {
		case <-w.Events:
		case <-w.Errors: // events were lost: look
		case <-emptied:
			if len(f.Servers()) == 0 {
				report(nil)
			}
			emptied = nil
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

// watchMounted watches the files themselves. In a container /etc/resolv.conf is
// mounted from elsewhere, and what is written to it shows in that directory only.
// They may differ from the last time, and are watched again.
func (f Files) watchMounted(w *fsnotify.Watcher) {
	for _, path := range []string{f.Usual, f.BehindResolved} {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue
		}
		_ = w.Remove(real)
		_ = w.Add(real)
	}
}
