package kube

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"lite.io/lite/pkg/layout"
)

// The timing of the election. A leader that was killed is replaced 7 s after it has last
// renewed the Lease, and one that stops as soon as it has: the others watch.
//
// A term outlives its last renewal by 5 s: as long as etcd needs to choose another leader
// (2 s), though a request that was under way to the old one gets no answer (1 s, then it is
// made again). Until another server may lead there are 2 s to end what is guarded.
//
// Renewing every 2 s is 1,800 writes an hour for all servers together, and none as long as
// there is one server. Upstream's elector (client-go 0.37) makes as many, but finds a leader
// dead up to 4.4 periods later than the Lease says, since candidates only ask now and then,
// and has no way to keep the term of a server that led alone.
const (
	leaseDuration  = 7 * time.Second
	renewDeadline  = 5 * time.Second
	renewPeriod    = 2 * time.Second
	attemptTimeout = time.Second // of the first request to renew; the second has what is left
	retryPeriod    = 250 * time.Millisecond
)

// errLost is that another server holds the Lease.
var errLost = errors.New("another server holds the Lease")

// lease is the Lease of the leader as one server sees it.
//
// No clock of another machine counts, and none that can be set: a server may take the Lease
// when it has seen no change of it for as long as it lasts, on its own monotonic clock, and a
// holder counts from before it asked for the renewal. The API accepts a change only of what
// was read last, so of several that try one succeeds.
type lease struct {
	api      coordinationv1.LeaseInterface
	identity string
	// seen is called whenever the Lease was read or written. renewed: another server is alive,
	// since it has changed the Lease that it holds.
	seen func(holder string, renewed bool)

	last   *v1.Lease // nil: there is none
	looked bool      // last is known
	since  time.Time // when last was first seen so
}

// holder is who holds the Lease; "" if it was released, or there is none.
func (l *lease) holder() string {
	if l.last == nil || l.last.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.last.Spec.HolderIdentity
}

// free is how long the Lease is still another's; at most 0 if it may be taken.
func (l *lease) free() time.Duration {
	switch holder := l.holder(); {
	case l.last != nil && (holder == "" || holder == l.identity):
		return 0
	case l.since.IsZero():
		return 0 // there never was one
	}
	return time.Until(l.since.Add(leaseDuration))
}

func (l *lease) observe(now *v1.Lease) {
	if l.looked && revision(now) == revision(l.last) {
		return
	}
	holder := l.holder()
	// Somebody may have deleted the Lease of a server that still leads, and writes another.
	if now != nil || l.looked {
		l.since = time.Now()
	}
	l.last, l.looked = now, true
	l.seen(l.holder(), holder != "" && l.holder() == holder && holder != l.identity)
}

func revision(l *v1.Lease) (v struct {
	uid      types.UID
	revision string
}) {
	if l != nil {
		v.uid, v.revision = l.UID, l.ResourceVersion
	}
	return v
}

// read asks the API, not its cache.
func (l *lease) read(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, renewDeadline)
	defer stop()
	now, err := l.api.Get(ctx, layout.Lease, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l.observe(nil)
	case err != nil:
		return err
	default:
		l.observe(now)
	}
	return nil
}

// write makes holder the one who holds the Lease, if nobody has changed it since it was read.
func (l *lease) write(ctx context.Context, holder string) error {
	next, write := &v1.Lease{ObjectMeta: metav1.ObjectMeta{Name: layout.Lease, Namespace: metav1.NamespaceSystem}}, l.create
	if l.last != nil {
		next, write = l.last.DeepCopy(), l.update
	}
	now := metav1.NowMicro()
	if next.Spec.LeaseTransitions == nil {
		next.Spec.LeaseTransitions = new(int32)
	}
	if holder != "" && l.holder() != holder {
		next.Spec.AcquireTime = &now
		*next.Spec.LeaseTransitions++
	}
	next.Spec.HolderIdentity, next.Spec.RenewTime, next.Spec.LeaseDurationSeconds = &holder, &now, new(int32(leaseDuration/time.Second))
	written, err := write(ctx, next)
	if err == nil {
		l.observe(written)
	}
	return err
}

func (l *lease) create(ctx context.Context, next *v1.Lease) (*v1.Lease, error) {
	return l.api.Create(ctx, next, metav1.CreateOptions{})
}

func (l *lease) update(ctx context.Context, next *v1.Lease) (*v1.Lease, error) {
	return l.api.Update(ctx, next, metav1.UpdateOptions{})
}

// acquire waits until this server holds the Lease, and returns the time until which it may count
// on it; ctx ends it.
func (l *lease) acquire(ctx context.Context) (time.Time, error) {
	for {
		err := l.read(ctx)
		if err == nil && l.free() <= 0 {
			asked := time.Now()
			if err = l.write(ctx, l.identity); err == nil {
				return asked.Add(renewDeadline), nil
			}
		} else if err == nil {
			err = l.watch(ctx)
		}
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
		if err != nil {
			Sleep(ctx, retryPeriod)
		}
	}
}

// watch returns when the Lease may be free.
func (l *lease) watch(ctx context.Context) error {
	opts := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, layout.Lease).String()}
	if l.last != nil {
		opts.ResourceVersion = l.last.ResourceVersion
	}
	w, err := l.api.Watch(ctx, opts)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		left := l.free()
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case event, open := <-w.ResultChan():
			timer.Stop()
			now, ok := event.Object.(*v1.Lease)
			switch {
			case !open || !ok:
				return errors.New("the watch of the Lease has ended")
			case event.Type == watch.Deleted:
				now = nil
			}
			l.observe(now)
		}
	}
}

// renew keeps the Lease. It returns the time until which this server may count on it, or what has kept it
// from renewing the Lease until then.
func (l *lease) renew(ctx context.Context, until time.Time) (time.Time, error) {
	ctx, stop := context.WithDeadline(ctx, until)
	defer stop()
	for timeout := attemptTimeout; ; timeout = renewDeadline {
		asked := time.Now()
		err := l.attempt(ctx, timeout)
		switch {
		case err == nil:
			return asked.Add(renewDeadline), nil
		case errors.Is(err, errLost):
			return time.Time{}, err
		}
		if !Sleep(ctx, retryPeriod) {
			return time.Time{}, err
		}
	}
}

// attempt renews the Lease if it is this server's, or was deleted.
func (l *lease) attempt(ctx context.Context, timeout time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	err := l.write(ctx, l.identity)
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
		return err
	}
	// Somebody has edited it, or an earlier attempt had succeeded after all.
	if err := l.read(ctx); err != nil {
		return err
	}
	if l.last != nil && l.holder() != l.identity {
		return errLost
	}
	return l.write(ctx, l.identity)
}

// release lets another server take the Lease at once.
func (l *lease) release(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, renewPeriod)
	defer stop()
	if l.holder() != l.identity {
		return nil
	}
	err := l.write(ctx, "")
	if apierrors.IsConflict(err) {
		if err = l.read(ctx); err == nil && l.holder() == l.identity {
			err = l.write(ctx, "")
		}
	}
	return err
}
