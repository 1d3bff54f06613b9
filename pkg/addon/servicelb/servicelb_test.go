package servicelb

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

func object(name string, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, CreationTimestamp: metav1.NewTime(start)},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}},
		},
	}
}

func machine(heartbeat time.Time) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{layout.ProvenAnnotation: "10.0.0.1"}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(heartbeat)}},
		},
	}
}

// run serves until the test ends, in a bubble.
func run(t *testing.T, client *fake.Clientset) *LoadBalancer {
	l := New(Config{APIPort: 6443, Nodes: kube.NodesOf(client)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		if err := l.serve(ctx, client); err != nil {
			t.Error(err)
		}
		close(done)
	}()
	t.Cleanup(func() { cancel(); <-done })
	time.Sleep(time.Second)
	return l
}

func given(t *testing.T, client *fake.Clientset, name string) (addresses []string) {
	t.Helper()
	s, err := client.CoreV1().Services("ns").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		addresses = append(addresses, in.IP)
	}
	return addresses
}

// count counts the actions of a kind.
func count(client *fake.Clientset, verb, resource string) (n int) {
	for _, a := range client.Actions() {
		if a.Matches(verb, resource) {
			n++
		}
	}
	return n
}

// A node with impossible addresses does not hide a Service without addresses.
func TestNoteTellsOfNodesAndServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		liar := machine(start)
		liar.Name, liar.Status.Addresses[0].Address, liar.Annotations[layout.ProvenAnnotation] = "liar", "127.0.0.5", "127.0.0.5"
		l := run(t, fake.NewClientset(object("a", 80), object("b", 80), object("c", 80), machine(start), liar))
		if err := l.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		node, services, _ := strings.Cut(l.Note(), "; ")
		if node != "node liar: 127.0.0.5 cannot be the address of a host" || !strings.HasPrefix(services, "Service ns/b has no address: ") || !strings.HasSuffix(services, " (and 1 more)") {
			t.Errorf("the note is %q", l.Note())
		}
	})
}

func TestOnlyChangesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(object("a", 80), object("b", 80), machine(start))
		l := run(t, client)
		if err := l.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		if got := given(t, client, "a"); !slices.Equal(got, []string{"10.0.0.1"}) {
			t.Errorf("a has %v", got)
		}
		if want := "Service ns/b has no address: port 80/TCP is used by Service ns/a, which is older; use another port, or remove that Service"; l.Note() != want {
			t.Errorf("the note is %q, want %q", l.Note(), want)
		}
		for i := range 5 { // heartbeats
			if _, err := client.CoreV1().Nodes().Update(t.Context(), machine(start.Add(time.Duration(i)*time.Minute)), metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if patches, events := count(client, "patch", "services"), count(client, "create", "events"); patches != 1 || events != 1 {
			t.Errorf("%d patches and %d events, want one of each", patches, events)
		}
		if err := client.CoreV1().Services("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := given(t, client, "b"); !slices.Equal(got, []string{"10.0.0.1"}) || l.Note() != "" {
			t.Errorf("when a has gone b has %v, and the note is %q", got, l.Note())
		}
	})
}

func TestAWriteThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(object("a", 80), object("b", 81), machine(start))
		var fail atomic.Bool
		fail.Store(true)
		client.PrependReactor("patch", "services", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if fail.Load() && a.(clienttesting.PatchAction).GetName() == "a" {
				return true, nil, errors.New("a webhook is down")
			}
			return false, nil, nil
		})
		l := run(t, client)
		if err := l.Ready(t.Context()); err != nil {
			t.Errorf("one Service's problem affects all: %v", err)
		}
		if got := given(t, client, "b"); !slices.Equal(got, []string{"10.0.0.1"}) {
			t.Errorf("while a cannot be written b has %v", got)
		}
		fail.Store(false)
		time.Sleep(2 * retryMax)
		if got := given(t, client, "a"); !slices.Equal(got, []string{"10.0.0.1"}) {
			t.Errorf("a has %v", got)
		}
	})
}

// A Service that changes while its addresses are written, such as to ClusterIP, is synced
// again: nobody would remove the addresses of a Service of another type.
func TestAServiceThatHasChangedIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := object("s", 80)
		s.UID, s.ResourceVersion = "u", "7"
		client := fake.NewClientset(s, machine(start))
		var patches []string
		client.PrependReactor("patch", "services", func(a clienttesting.Action) (bool, runtime.Object, error) {
			patches = append(patches, string(a.(clienttesting.PatchAction).GetPatch()))
			return true, nil, apierrors.NewConflict(corev1.Resource("services"), "s", errors.New("it has changed"))
		})
		run(t, client)
		time.Sleep(2 * retryMax)
		synctest.Wait()
		if len(patches) != 1 || !strings.Contains(patches[0], `"metadata":{"resourceVersion":"7","uid":"u"}`) {
			t.Errorf("written is %q, want once what holds for this version alone", patches)
		}
		s = s.DeepCopy()
		s.ResourceVersion = "8"
		if err := client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), s, "ns"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(patches) != 2 {
			t.Errorf("the newer version is written %d times", len(patches)-1)
		}
	})
}

func TestWithdraw(t *testing.T) {
	by := func(manager, subresource, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Subresource: subresource, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const ingress = `{"f:status":{"f:loadBalancer":{"f:ingress":{}}}}`
	for _, test := range []struct {
		name  string
		entry metav1.ManagedFieldsEntry
		want  bool
	}{
		{"ours", by(fieldManager, "status", ingress), true},
		{"another's", by("metallb", "status", ingress), false},
		{"ours in name only", by(fieldManager, "", ingress), false},
		{"ours, but for the addresses", by(fieldManager, "status", `{"f:status":{"f:conditions":{}}}`), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := object("s", 80)
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
			s.ManagedFields = []metav1.ManagedFieldsEntry{test.entry}
			client := fake.NewSimpleClientset(s)
			if err := withdraw(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			if got := given(t, client, "s"); (len(got) == 0) != test.want {
				t.Errorf("has %v afterwards", got)
			}
		})
	}
}

// An older Service that takes a younger one's port gets it when that has lost it.
func TestAPortIsNeverTwoServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		young := object("young", 80)
		young.CreationTimestamp = metav1.NewTime(start.Add(time.Minute))
		client := fake.NewClientset(object("old", 81), young, machine(start))
		run(t, client)
		client.ClearActions()
		s, err := client.CoreV1().Services("ns").Get(t.Context(), "old", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Spec.Ports[0].Port, s.Status = 80, corev1.ServiceStatus{}
		if _, err := client.CoreV1().Services("ns").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		var patched []string
		for _, a := range client.Actions() {
			if p, ok := a.(clienttesting.PatchAction); ok {
				patched = append(patched, p.GetName())
			}
		}
		if want := []string{"young", "old"}; !slices.Equal(patched, want) {
			t.Errorf("written are %v, want %v", patched, want)
		}
		if got := given(t, client, "young"); len(got) > 0 {
			t.Errorf("young has %v", got)
		}
	})
}
