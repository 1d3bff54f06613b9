package approver

import (
	"context"
	"fmt"
	"time"

	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

const (
	// leaseDuration is the kubelet's default.
	leaseDuration = 40 * time.Second
	// registerWithin is the time a machine has from the approval of its
	// certificate until its node holds the name.
	registerWithin = time.Minute
)

// remedy is what a person can do about a name that is held.
const remedy = "if this machine had the name before, it gets it back then; otherwise join with another --node-name"

// joining decides about a certificate that the API server knows a node by.
func (j judge) joining(ctx context.Context, r *request) (*verdict, error) {
	if !r.joins {
		return approved("client certificate of node %s, renewed", r.name), nil
	}
	others, err := j.others(ctx, r)
	if err != nil {
		return nil, err
	}
	if last := lastIssued(others); last != nil && last.sameKey(r) {
		return approved("client certificate of node %s, asked for again with the same key", r.name), nil
	}
	for _, o := range others {
		until := o.approvedAt().Add(registerWithin)
		if left := time.Until(until); left > 0 && !o.sameKey(r) {
			return waiting(left, NameHeld, "the name %q was given to another machine at %s, which may register until %s; %s",
				r.name, clock(o.approvedAt()), clock(until), remedy), nil
		}
	}
	if v, err := j.held(ctx, r.name); v != nil || err != nil {
		return v, err
	}
	// A kubelet that starts again while it waits asks anew, with another key
	// (1.37), and looks only at what it asked last.
	for _, o := range others {
		if o.joins && pending(o.object) && o.newer(r) {
			return waiting(10*time.Second, NameHeld, "a newer request for the name %q, %s, comes first", r.name, o.object.Name), nil
		}
	}
	return approved("client certificate of node %s, which joins", r.name), nil
}

// others returns the other requests for a client certificate of the same name.
func (j judge) others(ctx context.Context, r *request) ([]*request, error) {
	list, err := j.client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", certificates.KubeAPIServerClientKubeletSignerName).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list the other requests: %w", err)
	}
	var others []*request
	for i := range list.Items {
		object := &list.Items[i]
		if object.Name == r.object.Name || object.Spec.SignerName != r.object.Spec.SignerName {
			continue
		}
		if other, wrong := parse(object); wrong == nil && other.name == r.name {
			others = append(others, other)
		}
	}
	return others, nil
}

// lastIssued is the request whose certificate is the newest, or nil.
func lastIssued(requests []*request) (last *request) {
	for _, r := range requests {
		if len(r.object.Status.Certificate) > 0 && (last == nil || r.approvedAt().After(last.approvedAt())) {
			last = r
		}
	}
	return last
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
	return waiting(left, NameHeld, "the name %q is held by another node, which %s at %s; this waits until %s, unless the node shows life again; %s",
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
		at, how = j.since, "could not renew its lease before this server led,"
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
