package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/status"
	"lite.io/lite/tests/harness/cluster"
)

const (
	poll = 10 * time.Millisecond
	// statusPoll is longer, as lite asks all of its parts for each answer.
	statusPoll = 50 * time.Millisecond
)

// started is how long after exec something was so.
type started struct {
	api     time.Duration // /readyz of the API server says ok
	node    time.Duration // the Node is Ready, and not just since before
	status  time.Duration // `lite status` says that all is ready
	pod     time.Duration // a pod, created as soon as the API takes it, is Running
	version string
}

// start starts lite and observes it. It creates a pod of the given name.
func start(b *testing.B, node *cluster.Node, pod string) started {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()

	var s started
	exec := time.Now()
	node.Launch(b)
	lite := processOf(b, node)
	go func() { // it need not be waited for once it is dead
		defer cancel()
		for ctx.Err() == nil && lite.alive() {
			time.Sleep(statusPoll)
		}
	}()
	client, err := awaitClient(ctx, node)
	if err != nil {
		b.Fatal(err)
	}
	var observers sync.WaitGroup
	observe := func(took *time.Duration, what string, f func() error) {
		observers.Go(func() {
			if err := f(); err != nil {
				b.Errorf("%s: %v", what, err)
			}
			*took = time.Since(exec)
		})
	}
	observe(&s.api, "/readyz", func() error { return awaitAPI(ctx, client) })
	observe(&s.node, "node Ready", func() error { return awaitNode(ctx, client, node.Name, exec) })
	observe(&s.status, "lite status", func() error {
		n, err := awaitStatus(ctx, node)
		s.version = n.Version
		return err
	})
	observe(&s.pod, "pod "+pod, func() error { return awaitPod(ctx, client, pod, podSpec()) })
	observers.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return s
}

// restConfig reads the administrator's kubeconfig. Nothing is held back or
// tried again by the client: that would be measured too.
func restConfig(node *cluster.Node) (*rest.Config, error) {
	kubeconfig, err := os.ReadFile(node.Path(cluster.Kubeconfig))
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Dial = node.DialContext
	config.QPS = -1
	return config, nil
}

// awaitClient waits for the kubeconfig.
func awaitClient(ctx context.Context, node *cluster.Node) (client kubernetes.Interface, err error) {
	err = try(ctx, poll, func(context.Context) error {
		config, err := restConfig(node)
		if err != nil {
			return err
		}
		client, err = kubernetes.NewForConfig(config)
		return err
	})
	return client, err
}

func awaitAPI(ctx context.Context, client kubernetes.Interface) error {
	return try(ctx, poll, func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").MaxRetries(0).Do(ctx).Error()
	})
}

// awaitNode waits until the node is Ready by a heartbeat of after exec. One of
// the same second as exec counts: lite did not run in that second before.
func awaitNode(ctx context.Context, client kubernetes.Interface, name string, exec time.Time) error {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	return await(ctx, func(ctx context.Context) (watch.Interface, error) {
		return client.CoreV1().Nodes().Watch(ctx, options)
	}, func(n *corev1.Node) bool {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(exec.Truncate(time.Second))
			}
		}
		return false
	})
}

// awaitStatus asks lite's own socket.
func awaitStatus(ctx context.Context, node *cluster.Node) (n status.Node, err error) {
	err = try(ctx, statusPoll, func(ctx context.Context) error {
		if n, err = status.Get(ctx, node.Path(layout.Default().Run.Socket())); err != nil {
			return err
		}
		if !n.Ready {
			return errors.New("not all parts are ready")
		}
		return nil
	})
	return n, err
}

// awaitPod creates a pod and waits until it is Running.
func awaitPod(ctx context.Context, client kubernetes.Interface, name string, spec corev1.PodSpec) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	pods := client.CoreV1().RESTClient()
	if err := try(ctx, poll, func(ctx context.Context) error {
		err := pods.Post().Namespace(metav1.NamespaceDefault).Resource("pods").Body(pod).MaxRetries(0).Do(ctx).Error()
		if apierrors.IsAlreadyExists(err) {
			return nil // an earlier attempt has succeeded, unheard
		}
		return err
	}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	return await(ctx, func(ctx context.Context) (watch.Interface, error) {
		return client.CoreV1().Pods(metav1.NamespaceDefault).Watch(ctx, options)
	}, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
}

// podSpec is what all pods here run.
func podSpec() corev1.PodSpec {
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64),
		Containers: []corev1.Container{{
			Name: "main", Image: "lite.test/busybox:1", Command: []string{"sleep", "1000000"},
		}},
	}
}

// try calls f at an interval until it returns nil or ctx is done. A single call
// may take 5 s.
func try(ctx context.Context, interval time.Duration, f func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := f(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(interval):
		}
	}
}

// await watches until done says yes to an object, and opens the watch again,
// which shows first what is there, whenever it fails or ends.
func await[T any](ctx context.Context, open func(context.Context) (watch.Interface, error), done func(T) bool) error {
	for {
		w, err := open(ctx)
		if err == nil {
			for event := range w.ResultChan() {
				if object, ok := event.Object.(T); ok && event.Type != watch.Deleted && done(object) {
					w.Stop()
					return nil
				}
			}
			w.Stop()
			err = errors.New("it has not happened")
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(poll):
		}
	}
}
