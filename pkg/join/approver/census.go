package approver

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/join/roll"
)

// proveWithin is the time that a machine with a token has from its admission until
// its Node is ready once. A certificate is good for a year and cannot be made shorter
// by who approves it; one of which no node comes is refused after this time.
const proveWithin = time.Hour

// census keeps the roll and the Nodes in step: whoever was deleted, or has never
// become a node, is no longer let in.
type census struct {
	client  kubernetes.Interface
	nodes   *nodes
	since   time.Time // when it began: while no server ran nobody could become ready
	servers []string  // canonical
	woken   chan struct{}
	timed   atomic.Bool // it will look by itself, not later than who comes now is due
}

func newCensus(client kubernetes.Interface, since time.Time, servers []string) *census {
	c := &census{client: client, since: since, servers: servers, woken: make(chan struct{}, 1)}
	c.nodes = &nodes{byName: map[string]known{}, gone: map[string]time.Time{}, changed: c.wake}
	return c
}

// wake has it look again.
func (c *census) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// expect notes that somebody was admitted.
func (c *census) expect() {
	if !c.timed.Load() {
		c.wake()
	}
}

// run looks whenever somebody came, went or became ready, and when somebody's time is
// over. Otherwise it sleeps.
func (c *census) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.timed.Store(false) // who is admitted from here on may not be seen by this look
		next, err := c.scan(ctx)
		if err != nil && ctx.Err() == nil {
			slog.Warn("Cannot update the record of admitted nodes; retrying", "err", err)
			next = time.Now().Add(5 * time.Second)
		}
		c.timed.Store(!next.IsZero())
		c.sleep(ctx, next)
	}
}

// sleep waits until something happens, or until next, if that is no zero time.
func (c *census) sleep(ctx context.Context, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(max(time.Until(next), time.Second))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-c.woken:
	case <-due:
	}
}

// scan compares the roll with the Nodes once; it returns when to scan again, zero for
// when something happens.
func (c *census) scan(ctx context.Context) (next time.Time, err error) {
	all, err := roll.ListJoined(ctx, c.client)
	if err != nil {
		return next, err
	}
	last := roll.Current(all)
	for name, when := range c.nodes.deleted() {
		if err := c.refuseDeleted(ctx, name, when, last[name]); err != nil {
			return next, err
		}
		c.nodes.seenTo(name, when)
	}
	for _, j := range all {
		at, err := c.scanToken(ctx, j, last)
		if err != nil {
			return next, err
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, nil
}

// refuseDeleted refuses the certificates of a node that was deleted, but for that of a machine
// that was given the name again and is about to register.
func (c *census) refuseDeleted(ctx context.Context, name string, when time.Time, j *roll.Joined) error {
	if slices.Contains(c.servers, name) {
		return nil
	}
	var spared []string
	if j != nil {
		if e := j.Nodes[name]; e.At.After(when) || !e.Lived && e.At.After(when.Add(-registerWithin)) {
			spared = append(spared, e.Key)
		}
	}
	if err := roll.Refuse(ctx, c.client, name, roll.Deleted, when, spared...); err != nil {
		return err
	}
	slog.Info("The node was deleted: its certificates are now refused", "node", name)
	if len(spared) > 0 || j == nil {
		return nil
	}
	delete(j.Nodes, name)
	_, err := roll.Forget(ctx, c.client, name)
	return err
}

// scanToken checks what one token has admitted. What another has admitted since is
// dropped here.
func (c *census) scanToken(ctx context.Context, j *roll.Joined, last map[string]*roll.Joined) (next time.Time, err error) {
	was := maps.Clone(j.Nodes)
	for name, e := range was {
		keep, due, err := e, time.Time{}, error(nil)
		switch node, there := c.nodes.get(name); {
		case last[name] != j:
			delete(j.Nodes, name)
			continue
		case there && node.ready:
			keep.Lived = true
		case e.Lived && !there:
			// It was deleted while nobody looked.
			err = c.refuseDeleted(ctx, name, time.Now(), j)
		case !e.Lived:
			due, err = c.prove(ctx, name, e, j)
		}
		if err != nil {
			return next, err
		}
		if _, ok := j.Nodes[name]; ok {
			j.Nodes[name] = keep
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	due, err := c.settle(ctx, j, !maps.Equal(was, j.Nodes))
	if apierrors.IsConflict(err) {
		c.wake() // somebody was admitted meanwhile
		err = nil
	}
	if !due.IsZero() && (next.IsZero() || due.Before(next)) {
		next = due
	}
	return next, err
}

// settle writes a record back, or removes it when nobody is in it. That of a token that
// has ended stays for a while: by it who is about to admit somebody finds that out.
func (c *census) settle(ctx context.Context, j *roll.Joined, changed bool) (due time.Time, err error) {
	if len(j.Nodes) == 0 {
		if j.Ended.IsZero() || time.Since(j.Ended) > registerWithin {
			return due, j.Close(ctx, c.client)
		}
		due = j.Ended.Add(registerWithin + time.Second)
	}
	if changed {
		err = j.Save(ctx, c.client)
	}
	return due, err
}

// prove gives up a node that has not become ready in time and does not live. One
// that lives waits for a pod network, perhaps.
func (c *census) prove(ctx context.Context, name string, e roll.Entry, j *roll.Joined) (due time.Time, err error) {
	began := e.At
	if began.Before(c.since) {
		began = c.since
	}
	if due = began.Add(proveWithin); time.Now().Before(due) {
		return due, nil
	}
	lease, err := c.client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return due, err
	}
	if _, there := c.nodes.get(name); there && err == nil && time.Since(renewed(lease)) < 10*leaseDuration {
		return time.Now().Add(proveWithin), nil
	}
	if err := roll.Refuse(ctx, c.client, name, roll.Unused, time.Now()); err != nil {
		return due, err
	}
	delete(j.Nodes, name)
	slog.Warn("The node did not become ready: its certificate is now refused",
		"node", name, "token", j.Token, "admitted", e.At.UTC().Format(time.RFC3339))
	return time.Time{}, nil
}
