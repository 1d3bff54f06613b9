// Package runtimeclass makes a RuntimeClass for each way to run containers that a node
// has beside the usual one, such as NVIDIA's: so a pod can ask for it by name.
package runtimeclass

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	node "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
)

// defaultHandler runs pods that do not ask for a handler.
const defaultHandler = "runc"

// Classes is the component. It costs no watch but that of Nodes, which others have too.
type Classes struct {
	client  *kube.Client
	nodes   *kube.Nodes
	problem atomic.Pointer[string] // what keeps classes from being made, "" if nothing does
}

// New makes the component; nothing is touched before Run.
func New(client *kube.Client, nodes *kube.Nodes) *Classes {
	return &Classes{client: client, nodes: nodes}
}

// Name implements component.Component.
func (*Classes) Name() string { return "runtime-classes" }

// Ready implements component.Component. Nothing waits for a class: who forbids to make
// one keeps nothing else from working.
func (*Classes) Ready(context.Context) error { return nil }

// Note implements component.Noter: which classes pods ask for in vain, and why.
func (c *Classes) Note() string {
	if problem := c.problem.Load(); problem != nil {
		return *problem
	}
	return ""
}

// complain records the problem, and logs it when it changes.
func (c *Classes) complain(failed map[string]error, full bool) {
	var problems []error
	if full {
		problems = append(problems, fmt.Errorf("nodes report more than %d runtimes, and the others get no RuntimeClass", mostClasses))
	}
	for _, handler := range slices.Sorted(maps.Keys(failed)) {
		problems = append(problems, fmt.Errorf("create RuntimeClass %s: %w", handler, failed[handler]))
	}
	text := component.Line(problems...)
	if text != "" && text != c.Note() {
		slog.Warn("Cannot create all RuntimeClasses; retrying", "why", text)
	}
	c.problem.Store(&text)
}

// Run implements component.Component.
func (c *Classes) Run(ctx context.Context) error {
	client, err := c.client.Clientset()
	if err != nil {
		return err
	}
	return c.run(ctx, client)
}

func (c *Classes) run(ctx context.Context, client kubernetes.Interface) error {
	changed := make(chan struct{}, 1)
	leave, err := c.nodes.Follow(kube.Wake(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}, func(before, after *v1.Node) bool { return !slices.Equal(special(before), special(after)) }))
	if err != nil {
		return err
	}
	defer leave()
	return c.makeClasses(ctx, client, changed, func() []string { return special(c.nodes.List()...) })
}

// special is the names of what nodes run containers by beside the usual, each once.
func special(nodes ...*v1.Node) (names []string) {
	for _, n := range nodes {
		for _, h := range n.Status.RuntimeHandlers {
			if h.Name != "" && h.Name != defaultHandler && !slices.Contains(names, h.Name) {
				names = append(names, h.Name)
			}
		}
	}
	return names
}

const (
	// retryEvery is the pause after a class could not be created.
	retryEvery = 10 * time.Second
	// mostClasses is more than a cluster has runtimes. A node reports any names, as often as it
	// likes, and without a limit it would fill the datastore with classes.
	mostClasses = 64
)

// makeClasses creates a class for each handler, once. An existing class is left alone, and
// one that somebody has deleted is not recreated before the next start.
func (c *Classes) makeClasses(ctx context.Context, client kubernetes.Interface, changed <-chan struct{}, handlers func() []string) error {
	made, failed := map[string]bool{}, map[string]error{}
	var again <-chan time.Time
	full := false
	try := func(handler string) {
		if made[handler] {
			return
		}
		if failed[handler] == nil && len(made)+len(failed) >= mostClasses {
			full = true
			return
		}
		if err := makeClass(ctx, client, handler); err != nil {
			failed[handler], again = err, time.After(retryEvery)
			return
		}
		made[handler] = true
		delete(failed, handler)
	}
	for {
		select {
		case <-changed:
			for _, handler := range handlers() {
				if failed[handler] == nil { // that one has its time
					try(handler)
				}
			}
		case <-again:
			again = nil
			for _, handler := range slices.Sorted(maps.Keys(failed)) {
				try(handler)
			}
		case <-ctx.Done():
			return nil
		}
		if ctx.Err() == nil {
			c.complain(failed, full)
		}
	}
}

// makeClass creates a class, unless it exists or its name is not valid.
func makeClass(ctx context.Context, client kubernetes.Interface, handler string) error {
	_, err := client.NodeV1().RuntimeClasses().Create(ctx, &node.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: handler, Labels: map[string]string{"app.kubernetes.io/managed-by": "lite"}},
		Handler:    handler,
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		slog.Info("Created a RuntimeClass for a runtime of a node", "class", handler)
	case apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsInvalid(err):
		slog.Warn("The name of a node's runtime cannot be the name of a RuntimeClass", "name", handler, "err", err)
		return nil
	}
	return err
}
