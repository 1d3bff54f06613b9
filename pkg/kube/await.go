package kube

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
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

// AwaitNode is Await for the Node of a name.
func AwaitNode(ctx context.Context, client kubernetes.Interface, name string, done func(*v1.Node) bool) (*v1.Node, error) {
	self := fields.OneTermEqualSelector(metav1.ObjectNameField, name)
	return Await(ctx, cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", self), done)
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

// IsClosed reports whether a channel that nobody sends to is closed; a nil one never is.
func IsClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
