package upgrade

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// turn is the right of one of several servers to be stopped for an upgrade or a rollback: a Lease. It is not renewed,
// because the API of the server is away meanwhile; so it lasts as long as all of it may take. Who took it and died finds
// itself in it again, and others get it when it has expired.
type turn struct {
	leases   coordinationv1.LeaseInterface
	nodeName string
}

// turnTimeout bounds one request about it.
const turnTimeout = 10 * time.Second

func newTurn(kubeconfig, nodeName string) (turn, error) {
	client, err := kube.NewClient(kubeconfig, "upgrade").Clientset()
	if err != nil {
		return turn{}, err
	}
	return turn{client.CoordinationV1().Leases(metav1.NamespaceSystem), nodeName}, nil
}

// turnLasts is more than an upgrade takes that fails at the last moment, and the way back.
func turnLasts(healthTimeout time.Duration) time.Duration {
	return healthTimeout + 2*max(healthTimeout, returnTimeout)
}

// take takes the turn for a while, or names who has it.
func (t turn) take(ctx context.Context, lasts time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	now := metav1.NowMicro()
	spec := v1.LeaseSpec{HolderIdentity: &t.nodeName, AcquireTime: &now, RenewTime: &now, LeaseDurationSeconds: new(int32(lasts / time.Second))}
	lease, err := t.leases.Get(ctx, layout.UpgradeLease, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = t.leases.Create(ctx, &v1.Lease{ObjectMeta: metav1.ObjectMeta{Name: layout.UpgradeLease}, Spec: spec}, metav1.CreateOptions{})
	case err == nil:
		if until, other := heldUntil(lease, t.nodeName); now.Time.Before(until) {
			return fmt.Errorf("server %s is being upgraded or rolled back; wait for its end: servers go one at a time (if it was interrupted, this ends at %s, or run `kubectl delete lease -n %s %s`)",
				other, until.Format(time.RFC3339), metav1.NamespaceSystem, layout.UpgradeLease)
		}
		lease.Spec = spec
		_, err = t.leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		return fmt.Errorf("another server has begun to be upgraded at this moment; wait for its end: %w", err)
	}
	if err != nil {
		return fmt.Errorf("take the turn among the servers: %w", err)
	}
	return nil
}

// heldUntil is until when another server has the turn; the zero time if none has.
func heldUntil(lease *v1.Lease, nodeName string) (until time.Time, other string) {
	s := lease.Spec
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || *s.HolderIdentity == nodeName || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return time.Time{}, ""
	}
	return s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds) * time.Second), *s.HolderIdentity
}

// end lets others have their turn. The API is asked as long as a request takes: if it does not answer, the turn ends by itself.
func (t turn) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	lease, err := t.leases.Get(ctx, layout.UpgradeLease, metav1.GetOptions{})
	if err == nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == t.nodeName {
		err = t.leases.Delete(ctx, layout.UpgradeLease, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &lease.ResourceVersion}})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
