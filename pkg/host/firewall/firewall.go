// Package firewall notices when somebody removes what the node has in the machine's packet
// filter, and has it restored: after `nft flush ruleset`, `iptables -F`, or the reload of a
// firewall. It does the same for the bridge with its addresses and routes, and for
// forwarding.
//
// There is one Watcher per process. The kernel reports every transaction of nftables to it.
// It collects what these have removed, and asks the parts of the node whose rules that may
// have been: only a part knows what it has. So a transaction of lite's own, or of another
// program in its tables, costs reading a message and a few comparisons, and rules are
// checked only when somebody removes some.
//
// The kernel does not report changes of the older interface, which iptables-legacy uses.
// While a part has rules there, its tables are counted every two seconds.
package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Part is what one part of the node has in the packet filter, or beside it.
type Part struct {
	// Missing finds and names what is gone, as far as lost is a reason to check. It is
	// called often on a machine whose rules others change, so it is cheap when lost has
	// nothing of the part's.
	Missing func(ctx context.Context, lost Lost) ([]string, error)
	// Restore restores what is missing. It may return before that is complete.
	Restore func(ctx context.Context) error
	// Older is set if rules are, or may be, in tables of the older interface.
	Older bool
}

const (
	// A check waits until nothing was removed for quiet, since whoever flushes one table
	// usually continues with the next, but not longer than patience.
	quiet, patience = 100 * time.Millisecond, time.Second
	// retryAfter is when everything is checked again after something was restored.
	retryAfter = 3 * time.Second
	// restoreWithin is how long a part may take to restore.
	restoreWithin = 10 * time.Second
	// restoreAgain is when it is restored again if it is not.
	restoreAgain = time.Second
	// After burst times, what is removed is restored only once every pause: where another
	// program removes what it sees, the two would do nothing else.
	burst, pause = 30, 5 * time.Second
	// noteFor is how long the note shows an incident.
	noteFor = time.Hour
	// blindEvery is how often everything is checked where the kernel reports nothing.
	blindEvery = 30 * time.Second
)

// Watcher is the component. A nil one watches nothing.
type Watcher struct {
	wake  chan struct{} // holds one; there is something to check
	older chan struct{} // closed when the first part has rules in older tables
	once  sync.Once

	mu    sync.Mutex
	parts []*Part
	lost  Lost
	first time.Time // when the first of lost was reported

	subscribed bool
	blind      error     // why the kernel reports nothing
	incident   *incident // the last one
}

// incident is something that was removed.
type incident struct {
	gone   []string
	by     string
	at     time.Time
	back   time.Duration // how long it was gone; 0 as long as it is
	reason error         // why it cannot be restored
}

// New makes the component; nothing is touched before Run.
func New() *Watcher {
	return &Watcher{wake: make(chan struct{}, 1), older: make(chan struct{})}
}

// Keep has the watcher protect a part until the returned function is called. What the part
// has must be there.
func (w *Watcher) Keep(p Part) (leave func()) {
	if w == nil {
		return func() {}
	}
	w.mu.Lock()
	w.parts = append(w.parts, &p)
	w.mu.Unlock()
	if p.Older {
		w.FollowOlder()
	}
	return func() {
		w.mu.Lock()
		w.parts = slices.DeleteFunc(w.parts, func(other *Part) bool { return other == &p })
		w.mu.Unlock()
	}
}

// FollowOlder has tables of the older interface counted: a part has rules there by now.
func (w *Watcher) FollowOlder() {
	if w != nil {
		w.once.Do(func() { close(w.older) })
	}
}

// Name implements component.Component.
func (*Watcher) Name() string { return "firewall" }

// Ready implements component.Component.
func (w *Watcher) Ready(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch i := w.incident; {
	case !w.subscribed && w.blind == nil:
		return errors.New("subscribing to changes of the packet filter")
	case i == nil || i.back > 0:
		return nil
	case i.reason != nil:
		return fmt.Errorf("%s; cannot restore it: %w", i.removed(), i.reason)
	default:
		return fmt.Errorf("%s; restoring it", i.removed())
	}
}

// Note implements component.Noter.
func (w *Watcher) Note() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blind != nil {
		return fmt.Sprintf("checked only every %s, because the kernel does not report changes: %v", blindEvery, w.blind)
	}
	if i := w.incident; i != nil && i.back > 0 && time.Since(i.at) < noteFor {
		return fmt.Sprintf("%s; restored after %s", i.removed(), i.back.Round(10*time.Millisecond))
	}
	return ""
}

func (i *incident) removed() string {
	const few = 4
	text := strings.Join(i.gone[:min(few, len(i.gone))], ", ")
	if more := len(i.gone) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	by := ""
	if i.by != "" {
		by = " by the program " + i.by
	}
	return fmt.Sprintf("removed at %s%s: %s", i.at.Format(time.TimeOnly), by, text)
}

// Run implements component.Component.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	if err := w.listen(ctx, &readers); err != nil {
		readers.Go(func() { w.grope(ctx, err) })
	} else {
		w.mu.Lock()
		w.subscribed = true
		w.mu.Unlock()
	}
	readers.Go(func() { w.followOlder(ctx) })
	w.checkParts(ctx)
	return nil
}

// listen subscribes to events of nftables, and of interfaces with their addresses and routes.
func (w *Watcher) listen(ctx context.Context, readers *sync.WaitGroup) error {
	rules, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return err
	}
	links, err := listen(unix.NETLINK_ROUTE, wayGroups...)
	if err != nil {
		return errors.Join(err, rules.Close())
	}
	unknown := func() { w.add(Lost{Unknown: true}) }
	readers.Go(func() {
		var t transaction
		w.grope(ctx, read(ctx, rules, func(m syscall.NetlinkMessage) {
			if changes, by, done := t.read(m); done && len(changes) > 0 {
				w.add(Lost{Changes: changes, By: by})
			}
		}, func() {
			t = transaction{}
			unknown()
		}))
	})
	names := listInterfaces()
	readers.Go(func() {
		w.grope(ctx, read(ctx, links, func(m syscall.NetlinkMessage) {
			if lost := names.lost(m); !lost.empty() {
				w.add(lost)
			}
		}, unknown))
	})
	return nil
}

// grope checks everything periodically where the kernel does not report changes.
func (w *Watcher) grope(ctx context.Context, why error) {
	if why == nil {
		return
	}
	slog.Warn("The kernel does not report changes of the packet filter; checking it periodically", "every", blindEvery, "err", why)
	w.mu.Lock()
	w.blind = why
	w.mu.Unlock()
	for wait(ctx, blindEvery) {
		w.add(Lost{Unknown: true})
	}
}

// followOlder counts older tables once a part has rules there, and until then looks now
// and then whether there are any: others that drop packets there keep pods from theirs.
func (w *Watcher) followOlder(ctx context.Context) {
	before, tick := olderNames(), time.NewTicker(olderAppear)
	defer tick.Stop()
	for followed := false; !followed; {
		select {
		case <-w.older:
			followed = true
		case <-tick.C:
			if now := olderNames(); now != before {
				before = now
				w.add(Lost{Older: true})
			}
		case <-ctx.Done():
			return
		}
	}
	tick.Stop()
	o := openOlder()
	defer o.close()
	o.follow(ctx, func() { w.add(Lost{Older: true}) })
}

// CheckSettings has the kernel settings checked that the kernel does not report itself.
func (w *Watcher) CheckSettings() {
	if w != nil {
		w.add(Lost{Settings: true})
	}
}

// add adds to what the next check has to cover.
func (w *Watcher) add(more Lost) {
	const most = 1000 // changes; beyond that it is cheaper to check everything
	w.mu.Lock()
	if w.lost.empty() {
		w.first = time.Now()
	}
	w.lost.By = cmp.Or(w.lost.By, more.By)
	w.lost.Changes = append(w.lost.Changes, more.Changes...)
	w.lost.Links = append(w.lost.Links, more.Links...)
	for _, way := range more.Ways {
		if !slices.Contains(w.lost.Ways, way) {
			w.lost.Ways = append(w.lost.Ways, way)
		}
	}
	w.lost.Settings = w.lost.Settings || more.Settings
	w.lost.Older = w.lost.Older || more.Older
	w.lost.Unknown = w.lost.Unknown || more.Unknown
	if len(w.lost.Changes) > most {
		w.lost.Changes, w.lost.Unknown = nil, true
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// checkParts has the parts check whenever something was removed.
func (w *Watcher) checkParts(ctx context.Context) {
	settled := time.NewTimer(0)
	settled.Stop()
	budget, refilled, fight := burst, time.Now(), false
	for {
		select {
		case <-w.wake:
			w.mu.Lock()
			left := patience - time.Since(w.first)
			w.mu.Unlock()
			settled.Reset(max(0, min(quiet, left)))
			continue
		case <-settled.C:
		case <-ctx.Done():
			return
		}
		if !w.repair(ctx, fight) {
			continue
		}
		budget = min(burst, budget+int(time.Since(refilled)/pause)) - 1
		refilled = time.Now()
		if budget > 0 {
			fight = false
		} else {
			if !fight {
				slog.Warn("Another program removes rules as soon as they are restored; from now on lite restores them less often, and no longer logs it", "every", pause)
			}
			fight = true
			wait(ctx, pause)
		}
		time.AfterFunc(retryAfter, func() { w.add(Lost{Unknown: true}) })
	}
}

// repair asks every part what is missing and has it restored; it returns whether
// anything was. In a fight it does not log what is known.
func (w *Watcher) repair(ctx context.Context, fight bool) bool {
	warn, info := slog.LevelWarn, slog.LevelInfo
	if fight {
		warn, info = slog.LevelDebug, slog.LevelDebug
	}
	w.mu.Lock()
	lost, at := w.lost, w.first
	w.lost = Lost{}
	parts := slices.Clone(w.parts)
	i := incident{by: lost.By, at: at}
	if before := w.incident; before != nil && before.back == 0 {
		i.by, i.at = before.by, before.at // it goes on
	}
	w.mu.Unlock()
	gone, hit := missing(ctx, parts, lost)
	if len(gone) == 0 || ctx.Err() != nil {
		w.over()
		return false
	}
	i.gone = gone
	w.publish(i)
	slog.Log(ctx, warn, "Somebody has removed rules of this node; restoring them", "gone", strings.Join(gone, ", "), "by", lost.By)
	i.reason = restore(ctx, hit)
	if ctx.Err() != nil {
		return true
	}
	if i.reason == nil {
		i.back = max(time.Since(i.at), time.Millisecond)
		slog.Log(ctx, info, "Restored rules of this node", "after", i.back.Round(time.Millisecond))
	} else {
		slog.Error("Cannot restore rules of this node", "err", i.reason)
	}
	w.publish(i)
	return true
}

// over ends incidents that could not be restored, if nothing is missing any more.
func (w *Watcher) over() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := w.incident; i != nil && i.back == 0 {
		ended := *i
		ended.back = max(time.Since(i.at), time.Millisecond)
		w.incident = &ended
	}
}

func (w *Watcher) publish(i incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.incident = &i
}

// missing asks parts what they miss, and returns those that do.
func missing(ctx context.Context, parts []*Part, lost Lost) (gone []string, hit []*Part) {
	for _, p := range parts {
		what, err := p.Missing(ctx, lost)
		if err != nil && ctx.Err() == nil {
			slog.Warn("Cannot check the rules of this node", "err", err)
		}
		if len(what) > 0 {
			gone, hit = append(gone, what...), append(hit, p)
		}
	}
	return gone, hit
}

// restore has parts restore what is missing and waits until it is complete; again if it is
// removed meanwhile. The error is why something is still missing.
func restore(ctx context.Context, parts []*Part) error {
	deadline := time.Now().Add(restoreWithin)
	for {
		var errs []error
		for _, p := range parts {
			errs = append(errs, p.Restore(ctx))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		for again := time.Now().Add(restoreAgain); time.Now().Before(again); {
			var gone []string
			if gone, parts = missing(ctx, parts, Lost{Unknown: true}); len(parts) == 0 {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("not there after %s: %s", restoreWithin, strings.Join(gone, ", "))
			}
			if !wait(ctx, 50*time.Millisecond) {
				return ctx.Err()
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
