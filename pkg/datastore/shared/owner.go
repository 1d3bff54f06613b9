package shared

import (
	"context"
	"errors"
	"fmt"

	"lite.io/lite/pkg/layout"
)

// Keys is as much of a store as Own needs.
type Keys interface {
	// Get returns nil for a key that is not there.
	Get(ctx context.Context, key string) ([]byte, error)
	// Create does nothing if the key is there.
	Create(ctx context.Context, key string, value []byte) error
	// Used reports whether the store holds objects of a cluster.
	Used(ctx context.Context) (bool, error)
}

// Own marks a store as that of the cluster with an ID, and refuses one that is another's: a server with other keys could
// not read its Secrets, and both would write over each other's objects.
func Own(ctx context.Context, keys Keys, id string) error {
	owner, err := keys.Get(ctx, layout.DatastoreOwner)
	if err != nil {
		return err
	}
	if owner == nil {
		used, err := keys.Used(ctx)
		if err != nil {
			return err
		}
		if used {
			return Lasting(errors.New("it contains the objects of a cluster that this server is not part of"), "use an empty database")
		}
		if err := keys.Create(ctx, layout.DatastoreOwner, []byte(id)); err != nil {
			return err
		}
		// Of two that begin at once, one was first.
		if owner, err = keys.Get(ctx, layout.DatastoreOwner); err != nil {
			return err
		}
	}
	if string(owner) != id {
		return Lasting(fmt.Errorf("it belongs to another cluster, whose authority is %s; that of this server is %s", owner, id),
			"to make this machine another server of that cluster, use a new --data-dir and a token that `lite token create --role server` prints there; "+
				"for a cluster of its own, use an empty database")
	}
	return nil
}
