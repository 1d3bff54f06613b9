package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// proposeFor is how long a change of the members may take before it is taken for lost; etcd's own
// requests have as long.
const proposeFor = 7 * time.Second

// propose makes a change of the members, again for as long as ctx lasts: etcd (3.7) forwards it to the leader
// that it knows, where it is lost if that has just died, and waits for it until ctx is done. People remove a member
// right after it died.
func propose(ctx context.Context, change func(context.Context) error) error {
	for lost := false; ; lost = true {
		attempt, stop := context.WithTimeout(ctx, proposeFor)
		err := change(attempt)
		again := err != nil && attempt.Err() != nil && ctx.Err() == nil
		stop()
		switch {
		case again:
		case lost && (errors.Is(err, membership.ErrIDRemoved) || errors.Is(err, membership.ErrIDNotFound) || errors.Is(err, membership.ErrIDExists)):
			return nil // an attempt before has arrived after all
		default:
			return err
		}
	}
}
