package approver

import (
	"context"
	"fmt"
	"slices"
	"time"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

const (
	// leaseDuration is the kubelet's default.
	leaseDuration = 40 * time.Second
	// registerWithin is the time a machine has from the approval of its
	// certificate until its node holds the name.
	registerWithin = time.Minute
)

// remedy is what a person can do about a name that is held.
const remedy = "if this machine had the name before, it will get it back then; otherwise join with another --node-name"

// joining decides about a certificate that the API server knows a node by.
func (j judge) joining(ctx context.Context, r *request) (*verdict, error) {
	refusal, err := roll.RefusalOf(ctx, j.client, r.name)
	if err != nil {
		return nil, err
	}
	if !r.joins {
		return j.renewing(ctx, r, refusal)
	}
	others := j.requests.others(r)
	if last := lastIssued(others); last != nil && last.key == r.key() {
		if !refusal.Admits(last.key) {
			return denied(nodeRefused, "node %s %s, and the request has its old key; restart the machine: it will then use a new key", r.name, refusal.Text()), nil
		}
		return approved("client certificate of node %s, requested again with the same key", r.name), nil
	}
	defer j.tokens.hold(r.token())()
	joined, v, err := j.byToken(ctx, r)
	if v != nil || err != nil {
		return v, err
	}
	for _, o := range others {
		until := o.approved.Add(registerWithin)
		if left := time.Until(until); left > 0 && o.key != r.key() && refusal.Admits(o.key) {
			return waiting(left, NameHeld, "another machine got the name %q at %s, and may register until %s; %s",
				r.name, clock(o.approved), clock(until), remedy), nil
		}
	}
	// A kubelet that restarts while it waits asks again, with another key
	// (1.37), and looks only at what it asked last. Between machines none comes first.
	for _, o := range others {
		if o.joins && !o.decided && o.from == r.from() && o.newer(r) {
			return waiting(10*time.Second, NameHeld, "a newer request for the name %q, %s, takes precedence", r.name, o.object), nil
		}
	}
	// Of a node whose certificates are refused, a fresh lease says nothing.
	if refusal == nil || len(refusal.Keys) > 0 {
		v, err := j.held(ctx, r.name)
		if v != nil && slices.ContainsFunc(others, func(o entry) bool { return o.joins && !o.decided && o.from != r.from() && !o.newer(r) }) {
			v.retryAfter += time.Second // all are free to get the name at the same instant: who asked first has it first
		}
		if v != nil || err != nil {
			return v, err
		}
	}
	return j.admit(ctx, r, joined, refusal)
}

// readmit has the new key accepted where the older ones are refused. If they are not,
// there is nothing to say: a refusal that comes now is for the new one as well.
func (j judge) readmit(ctx context.Context, r *request, refusal *roll.Refusal) error {
	if refusal == nil {
		return nil
	}
	return roll.Admit(ctx, j.client, r.name, r.key(), refusal)
}

// refusedOf denies what a node has asked with a certificate that is refused: it may
// have asked before.
func refusedOf(r *request, refusal *roll.Refusal) *verdict {
	if refusal.Admits(extra(r.object, layout.KeyExtra)) {
		return nil
	}
	return denied(nodeRefused, "node %s %s, and its certificate is refused since then", r.name, refusal.Text())
}

// renewing decides about what a node asks with its certificate.
func (j judge) renewing(ctx context.Context, r *request, refusal *roll.Refusal) (*verdict, error) {
	if v := refusedOf(r, refusal); v != nil {
		return v, nil
	}
	if err := j.readmit(ctx, r, refusal); err != nil {
		return nil, err
	}
	return approved("client certificate of node %s, renewed", r.name), nil
}

// byToken denies what is asked with a token that has ended since, or has admitted as
// many nodes as it may; else it returns what that is.
func (j judge) byToken(ctx context.Context, r *request) (*roll.Joined, *verdict, error) {
	// The record is read before the token is looked for: who takes a token away
	// changes the record after that.
	joined, err := roll.ReadJoined(ctx, j.client, r.token())
	if err != nil {
		return nil, nil, err
	}
	there, err := join.Valid(ctx, j.client, r.token())
	if err != nil {
		return nil, nil, err
	}
	if !there {
		return nil, denied(tokenEnded, "token %s has expired or was deleted since the request; join with another one (`lite token create`)", r.token()), nil
	}
	now := time.Now()
	recent := joined.Since(now.Add(-time.Hour))
	limit := j.perHour
	// A tenth is kept for addresses that nobody has come from yet: who floods by a
	// token that others have too takes all but that.
	if slices.ContainsFunc(recent, func(name string) bool { return joined.Nodes[name].From == r.from() }) {
		limit -= j.perHour / 10
	}
	if j.perHour == 0 || len(recent) < limit || slices.Contains(recent, r.name) {
		return joined, nil, nil
	}
	free := joined.Nodes[recent[len(recent)-limit]].At.Add(time.Hour)
	return nil, denied(tooManyNodes, "token %s has admitted %d nodes within an hour, and may not admit more before %s; if they are yours, "+
		"join with another token or raise token-nodes-per-hour of the server; if not, revoke the token and these nodes with `lite token revoke --nodes %[1]s`",
		r.token(), len(recent), clock(free)), nil
}

// admit puts the node on the roll, and then approves.
func (j judge) admit(ctx context.Context, r *request, joined *roll.Joined, refusal *roll.Refusal) (*verdict, error) {
	joined.Nodes[r.name] = roll.Entry{At: time.Now(), Key: r.key(), From: r.from()}
	if err := joined.Save(ctx, j.client); err != nil {
		return nil, err
	}
	if err := j.readmit(ctx, r, refusal); err != nil {
		return nil, err
	}
	j.admitted()
	return approved("client certificate of node %s, which joins with token %s", r.name, r.token()), nil
}

// Held says why a node's name is not free, "" if it is.
func Held(ctx context.Context, client kubernetes.Interface, name string) (why string, err error) {
	v, err := judge{client: client}.held(ctx, name)
	if v != nil {
		why = v.message
	}
	return why, err
}

// held returns a verdict if the name is, or may be, a living node's. A lease
// counts without its node: that is a living node that somebody has deleted.
func (j judge) held(ctx context.Context, name string) (*verdict, error) {
	node, err := j.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	lease, err := j.client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lease of node %s: %w", name, err)
	}
	if node == nil && lease == nil {
		return nil, nil
	}
	seen, how, lasts := j.seen(node, lease)
	// Whole seconds are what the API keeps.
	until := seen.Add(lasts + time.Second)
	left := time.Until(until)
	if left <= 0 {
		return nil, nil
	}
	return waiting(left, NameHeld, "the name %q is held by another node, which %s at %s; this request waits until %s, unless the node comes back; %s",
		name, how, clock(seen), clock(until), remedy), nil
}

// seen is when the node was last known to live, how that is known, and for how
// long it is believed.
func (j judge) seen(node *v1.Node, lease *coordination.Lease) (at time.Time, how string, lasts time.Duration) {
	lasts = leaseDuration
	if lease == nil {
		at, how = node.CreationTimestamp.Time, "registered"
	} else {
		at, how = renewed(lease), "renewed its lease"
		if d := lease.Spec.LeaseDurationSeconds; d != nil {
			lasts = time.Duration(*d) * time.Second
		}
	}
	// While no server ran, no node could renew its lease.
	if at.Before(j.since) {
		at, how = j.since, "could not renew its lease before this server became the leader,"
	}
	return at, how, lasts
}

// renewed is when a lease was last renewed. A node writes that by its own
// clock, which may be wrong; the API server notes by its own when anything was
// written.
func renewed(lease *coordination.Lease) (at time.Time) {
	for _, f := range lease.ManagedFields {
		if f.Time != nil && f.Time.After(at) {
			at = f.Time.Time
		}
	}
	if at.IsZero() && lease.Spec.RenewTime != nil {
		at = lease.Spec.RenewTime.Time
	}
	return at
}

// clock is a time for people.
func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) + " UTC" }
