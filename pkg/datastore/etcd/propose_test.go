package etcd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// A change that was lost with the leader is made again.
func TestPropose(t *testing.T) {
	other := errors.New("other")
	for name, c := range map[string]struct {
		answers []error // nil = none comes
		want    error
		took    time.Duration
	}{
		"at once":                {[]error{other}, other, 0},
		"lost once":              {[]error{nil, other}, other, proposeFor},
		"lost, but it arrived":   {[]error{nil, nil, membership.ErrIDRemoved}, nil, 2 * proposeFor},
		"added, but lost":        {[]error{nil, membership.ErrIDExists}, nil, proposeFor},
		"removed by others":      {[]error{membership.ErrIDRemoved}, membership.ErrIDRemoved, 0},
		"until nobody waits":     {[]error{nil, nil, nil, nil, nil}, context.DeadlineExceeded, 30 * time.Second},
		"there is no such thing": {[]error{membership.ErrIDNotFound}, membership.ErrIDNotFound, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
				defer stop()
				began := time.Now()
				err := propose(ctx, func(ctx context.Context) error {
					answer := c.answers[0]
					c.answers = c.answers[1:]
					if answer == nil {
						<-ctx.Done()
						return ctx.Err()
					}
					return answer
				})
				if !errors.Is(err, c.want) || c.want == nil && err != nil || time.Since(began) != c.took {
					t.Errorf("got %v after %s", err, time.Since(began))
				}
			})
		})
	}
}
