package kube

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/watch"
)

// Await lists and watches until an object satisfies done, and returns it. It
// reconnects by itself; it ends with an error only when ctx does or the API
// refuses.
func Await[T runtime.Object](ctx context.Context, lw cache.ListerWatcher, done func(T) bool) (T, error) {
	var none T
	event, err := watch.UntilWithSync(ctx, lw, none, nil, func(e apiwatch.Event) (bool, error) {
		o, ok := e.Object.(T)
		return ok && e.Type != apiwatch.Deleted && done(o), nil
	})
	if err != nil {
		return none, err
	}
	return event.Object.(T), nil
}

// Sleep reports whether d passed before ctx was done.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
