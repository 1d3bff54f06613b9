package runtimeclass

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	node "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/kube"
)

func TestSpecial(t *testing.T) {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"much": "more"}}}
	for _, name := range []string{"", "runc", "nvidia", "mine"} {
		n.Status.RuntimeHandlers = append(n.Status.RuntimeHandlers, v1.NodeRuntimeHandler{Name: name})
	}
	if got := special(kube.TrimNode(n), n); !slices.Equal(got, []string{"nvidia", "mine"}) {
		t.Errorf("got %v", got)
	}
}

// nodes is the handlers of nodes, as makeClasses gets them.
type nodes struct {
	mu       sync.Mutex
	handlers []string
	changed  chan struct{}
}

func (n *nodes) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.handlers)
}

// has a node come with each, one after the other.
func (n *nodes) come(handlers ...string) {
	for _, h := range handlers {
		n.mu.Lock()
		n.handlers = append(n.handlers, h)
		n.mu.Unlock()
		n.changed <- struct{}{}
		synctest.Wait()
	}
}

// A class that is refused, such as by a webhook, is created later; existing ones stay as
// they are.
func TestClassesAreMadeOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := &node.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "crun"}, Handler: "crun-of-mine"}
		client := fake.NewClientset(theirs)
		refusals := 2
		client.PrependReactor("create", "runtimeclasses", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if o := a.(clienttesting.CreateAction).GetObject().(*node.RuntimeClass); o.Name == "nvidia" && refusals > 0 {
				refusals--
				return true, nil, errors.New("a webhook says no")
			}
			return false, nil, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &nodes{changed: make(chan struct{})}
		go New(nil, nil).makeClasses(ctx, client, n.changed, n.list)
		n.come("nvidia", "crun", "spin")
		if got := classes(t, client); !slices.Equal(got, []string{"crun=crun-of-mine", "spin=spin"}) {
			t.Errorf("got %v", got)
		}
		for range 2 {
			time.Sleep(retryEvery + time.Millisecond)
			synctest.Wait()
		}
		if got := classes(t, client); !slices.Equal(got, []string{"crun=crun-of-mine", "nvidia=nvidia", "spin=spin"}) {
			t.Errorf("got %v", got)
		}
		// Somebody does not want it.
		if err := client.NodeV1().RuntimeClasses().Delete(ctx, "spin", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		n.come("spin")
		if got := classes(t, client); !slices.Equal(got, []string{"crun=crun-of-mine", "nvidia=nvidia"}) {
			t.Errorf("got %v", got)
		}
	})
}

// A node reports one name after the other. What there is of classes stays few, and so does
// what is remembered where none can be made.
func TestNamesWithoutEndMakeNoClassesWithoutEnd(t *testing.T) {
	for _, refusal := range []error{nil, errors.New("a webhook says no")} {
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewClientset()
			created := 0
			client.PrependReactor("create", "runtimeclasses", func(clienttesting.Action) (bool, runtime.Object, error) {
				created++
				return refusal != nil, nil, refusal
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := &nodes{changed: make(chan struct{})}
			c := New(nil, nil)
			go c.makeClasses(ctx, client, n.changed, n.list)
			for i := range 3 * mostClasses {
				n.come("r" + strconv.Itoa(i))
			}
			if created != mostClasses {
				t.Errorf("%d were created", created)
			}
			if got := c.Note(); !strings.Contains(got, "more than 64 runtimes") {
				t.Errorf("the note is %q", got)
			}
		})
	}
}

// Status shows a class that cannot be created for as long as that is so; the log shows it
// once for each reason, however often it is retried.
func TestAClassThatCannotBeMadeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		was := slog.Default()
		defer slog.SetDefault(was)
		slog.SetDefault(slog.New(slog.NewTextHandler(&logged, nil)))
		var refusal error
		client := fake.NewClientset()
		client.PrependReactor("create", "runtimeclasses", func(a clienttesting.Action) (bool, runtime.Object, error) {
			name := a.(clienttesting.CreateAction).GetObject().(*node.RuntimeClass).Name
			switch {
			case name == "No_Name":
				return true, nil, apierrors.NewInvalid(node.SchemeGroupVersion.WithKind("RuntimeClass").GroupKind(), name, nil)
			case name == "wasm":
				return false, nil, nil
			}
			return refusal != nil, nil, refusal
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &nodes{changed: make(chan struct{})}
		c := New(nil, nil)
		go c.makeClasses(ctx, client, n.changed, n.list)
		later := func() {
			time.Sleep(3*retryEvery + time.Second)
			synctest.Wait()
		}
		warnings := func() int { return strings.Count(logged.String(), "level=WARN") }

		refusal = errors.New("a webhook says no")
		n.come("nvidia", "wasm", "kata")
		later()
		if got, want := c.Note(), "create RuntimeClass kata: a webhook says no; create RuntimeClass nvidia: a webhook says no"; got != want {
			t.Errorf("the note is %q, want %q", got, want)
		}
		if got := warnings(); got != 2 { // of nvidia, then of both
			t.Errorf("%d warnings:\n%s", got, &logged)
		}
		refusal = errors.New("the quota is used up")
		later()
		if got := warnings(); got != 3 || !strings.Contains(c.Note(), "quota") { // of both at once
			t.Errorf("%d warnings, and the note is %q:\n%s", got, c.Note(), &logged)
		}
		refusal = nil
		later()
		if got := c.Note(); got != "" {
			t.Errorf("all are made, and the note is %q", got)
		}
		n.come("No_Name") // as a node with another runtime than containerd may report
		later()
		if got := warnings(); got != 4 || c.Note() != "" {
			t.Errorf("%d warnings, and the note is %q:\n%s", got, c.Note(), &logged)
		}
	})
}

func classes(t *testing.T, client *fake.Clientset) (all []string) {
	t.Helper()
	list, err := client.NodeV1().RuntimeClasses().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Items {
		all = append(all, c.Name+"="+c.Handler)
	}
	slices.Sort(all)
	return all
}
