package join

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"lite.io/lite/pkg/kube"
)

const (
	firstPause   = 250 * time.Millisecond
	longestPause = 5 * time.Second
	// settling is how long a token may not be known after it was made: the API
	// server and the signer learn of it from watches.
	settling = 3 * time.Second
)

// Await discovers the cluster and checks the token, again while what is wrong
// can heal by itself. say is told each problem once that is waited for.
func Await(ctx context.Context, t Token, server string, role Role, say func(string)) (Cluster, error) {
	return persist(ctx, say, func() (Cluster, error) {
		c, err := Discover(ctx, t, server)
		if err != nil {
			return Cluster{}, err
		}
		return c, Check(ctx, c, t, role)
	})
}

// persist tries until it succeeds or there is no hope.
func persist[T any](ctx context.Context, say func(string), try func() (T, error)) (T, error) {
	var (
		none    T
		said    = map[string]bool{}
		last    error
		refused time.Time // since when the token has not been known
	)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		got, err := try()
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return none, stopped(ctx, last)
		}
		var e *Error
		if !errors.As(err, &e) {
			return none, err
		}
		last = err
		switch {
		case e.Retry:
			refused = time.Time{}
			e.announce(said, say)
		case !e.recent:
			return none, err
		case refused.IsZero():
			refused = time.Now()
		case time.Since(refused) >= settling:
			return none, err
		}
		if !kube.Sleep(ctx, jitter(pause)) {
			return none, stopped(ctx, last)
		}
	}
}

// announce passes a problem to say once.
func (e *Error) announce(said map[string]bool, say func(string)) {
	topic := e.topic
	if topic == "" {
		topic = e.Problem
	}
	if !said[topic] {
		said[topic] = true
		say(e.Error())
	}
}

func stopped(ctx context.Context, last error) error {
	if last == nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w; last error: %w", ctx.Err(), last)
}

// jitter keeps machines that were started together from asking together.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }
