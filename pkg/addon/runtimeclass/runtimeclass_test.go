package runtimeclass

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	node "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestTrim(t *testing.T) {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"much": "more"}}}
	for _, name := range []string{"", "runc", "nvidia", "mine"} {
		n.Status.RuntimeHandlers = append(n.Status.RuntimeHandlers, v1.NodeRuntimeHandler{Name: name})
	}
	o, err := trim(n)
	if err != nil {
		t.Fatal(err)
	}
	small := o.(*v1.Node)
	if len(small.Labels) > 0 || len(small.Status.RuntimeHandlers) != 2 || small.Status.RuntimeHandlers[0].Name != "nvidia" || small.Status.RuntimeHandlers[1].Name != "mine" {
		t.Errorf("got %+v", small)
	}
}

// Whoever refuses one, such as a webhook, is asked again; what is there stays as it is.
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
		handlers := make(chan string)
		go makeClasses(ctx, client, handlers)
		for _, h := range []string{"nvidia", "crun", "spin"} {
			handlers <- h
		}
		synctest.Wait()
		if got := classes(t, client); !slices.Equal(got, []string{"crun=crun-of-mine", "spin=spin"}) {
			t.Errorf("got %v", got)
		}
		for range 2 {
			time.Sleep(tryAgain + time.Millisecond)
			synctest.Wait()
		}
		if got := classes(t, client); !slices.Equal(got, []string{"crun=crun-of-mine", "nvidia=nvidia", "spin=spin"}) {
			t.Errorf("got %v", got)
		}
		// Somebody does not want it.
		if err := client.NodeV1().RuntimeClasses().Delete(ctx, "spin", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		handlers <- "spin"
		synctest.Wait()
		if got := classes(t, client); !slices.Equal(got, []string{"crun=crun-of-mine", "nvidia=nvidia"}) {
			t.Errorf("got %v", got)
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
