package proof

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// network is who answers where.
type network struct {
	mu    sync.Mutex
	at    map[string]string // an address -> the node
	asked map[string]int
}

func (n *network) ask(_ context.Context, c claim) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := c.at.Addr().String()
	n.asked[text]++
	switch n.at[text] {
	case c.node:
		return nil
	case "":
		return errors.New("no answer")
	}
	return fmt.Errorf("%q answers there", n.at[text])
}

func (n *network) set(address, node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[address] = node
}

func (n *network) tries(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[address]
}

// machine is a Node that is ready, at these addresses.
func machine(name string, addresses ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a})
	}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = 10250
	return is(n, v1.ConditionTrue)
}

func is(n *v1.Node, ready v1.ConditionStatus) *v1.Node {
	n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: ready}}
	return n
}

func with(n *v1.Node, annotation, value string) *v1.Node {
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, annotation, value)
	return n
}

type bed struct {
	*Prover
	*network
	client *fake.Clientset
}

// run serves until the test ends, in a bubble.
func run(t *testing.T, at map[string]string, nodes ...runtime.Object) *bed {
	b := &bed{network: &network{at: at, asked: map[string]int{}}, client: fake.NewClientset(nodes...)}
	b.Prover = New(Config{Addresses: kube.NodeAddresses{
		Pods: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, Services: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		API: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Own: "s1",
	}, NodePorts: utilnet.PortRange{Base: 30000, Size: 2768}})
	b.start(t)
	return b
}

func (b *bed) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	b.config.Nodes = kube.NodesOf(b.client)
	go func() {
		if err := b.serve(ctx, b.client, b.ask); err != nil {
			t.Error(err)
		}
		close(done)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// has waits, and wants an annotation; "-" is none.
func (b *bed) has(t *testing.T, after time.Duration, node, want string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	n, err := b.client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, ok := n.Annotations[layout.ProvenAnnotation]
	if !ok {
		got = "-"
	}
	if got != want {
		t.Errorf("proven of node %s is %q, want %q", node, got, want)
	}
}

func (b *bed) update(t *testing.T, name string, change func(*v1.Node)) {
	t.Helper()
	n, err := b.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n = n.DeepCopy()
	change(n)
	if _, err := b.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) count(verb, resource string) (n int) {
	for _, a := range b.client.Actions() {
		if a.Matches(verb, resource) {
			n++
		}
	}
	return n
}

// A node has its own addresses, and nobody else's: neither that of a database, nor that
// of another node, were it the older one, nor those of the cluster.
func TestWhoseAddressesAreProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t, map[string]string{"192.0.2.7": "h1", "2001:db8::7": "h1", "192.0.2.8": "h2", "198.51.100.8": "h2"},
			machine("h1", "192.0.2.7", "2001:db8::7"),
			with(machine("h2", "192.0.2.8"), layout.OverlayAnnotation, `{"backend":"host-gw","ip":"198.51.100.8"}`),
			machine("taken", "8.8.8.8", "192.0.2.7", "10.42.0.9", "10.43.0.1", "192.0.2.1", "127.0.0.1"),
			is(with(machine("carried"), layout.OverlayAnnotation, `{"backend":"host-gw","ip":"8.8.4.4"}`), v1.ConditionTrue),
		)
		b.has(t, time.Second, "h1", "192.0.2.7,2001:db8::7")
		b.has(t, 0, "h2", "192.0.2.8,198.51.100.8")
		b.has(t, 0, "taken", "-") // nobody knows yet
		if n := b.count("create", "events"); n > 0 {
			t.Errorf("%d events of what may still come", n)
		}
		b.has(t, 2*grace, "taken", "")
		b.has(t, 0, "carried", "")
		for _, want := range []string{
			"8.8.4.4 is not proven to be its address: no answer", "8.8.8.8 is not proven to be its address: no answer", `192.0.2.7 is not proven to be its address: "h1" answers there`,
			"10.42.0.9 is an address of pods", "10.43.0.1 is an address of Services",
		} {
			if !strings.Contains(b.Note(), want) {
				t.Errorf("the note is %q, and not %q", b.Note(), want)
			}
		}
		if !strings.HasSuffix(b.Note(), "and 2 more") {
			t.Errorf("the note is %q", b.Note())
		}
		for _, address := range []string{"10.42.0.9", "10.43.0.1", "192.0.2.1", "127.0.0.1"} {
			if b.tries(address) > 0 {
				t.Errorf("%s is asked who it is", address)
			}
		}
		if n := b.count("create", "events"); n != 3 {
			t.Errorf("%d events, want one for each claim that was tried", n)
		}
		if n := b.tries("192.0.2.8"); n != 1 {
			t.Errorf("what is proven is asked %d times", n)
		}
	})
}

// A node answers at the address of another: by a Service that leads to it from there. Who has
// the address keeps it, until that Node is gone; and a port that every Service may have shows
// nothing, were nobody the address's owner yet.
func TestWhoAnswersThroughAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		viaService := machine("by-port", "192.0.2.9")
		viaService.Status.DaemonEndpoints.KubeletEndpoint.Port = 30443
		b := run(t, map[string]string{"192.0.2.8": "h2", "192.0.2.9": "by-port", "192.0.2.2": "a0"},
			machine("h2", "192.0.2.8"), machine("a0", "192.0.2.7"), viaService, is(machine("s1", "192.0.2.2"), v1.ConditionTrue))
		b.has(t, time.Second, "h2", "192.0.2.8")
		b.has(t, 0, "by-port", "")
		if n := b.tries("192.0.2.9"); n > 0 {
			t.Errorf("a port of Services is asked %d times", n)
		}
		b.set("192.0.2.8", "a0")
		b.update(t, "a0", func(n *v1.Node) {
			n.Status.Addresses[0].Address = "192.0.2.8"
			n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: "192.0.2.2"})
		})
		b.has(t, time.Minute, "a0", "")
		b.has(t, 0, "h2", "192.0.2.8")
		for _, want := range []string{"node a0: 192.0.2.8 is an address of node h2", "node a0: 192.0.2.2 is an address of node s1"} {
			if !strings.Contains(b.Note(), want) {
				t.Errorf("the note is %q, and not %q", b.Note(), want)
			}
		}
		if n := b.tries("192.0.2.8"); n != 2 {
			t.Errorf("whoever is refused is asked %d times", n)
		}
		if err := b.client.CoreV1().Nodes().Delete(t.Context(), "h2", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.has(t, time.Minute, "a0", "192.0.2.8")
	})
}

// What is proven, or an administrator has vouched for, stays while it is claimed: through
// another start, and while the node is down. Another Node of that name has nothing.
func TestWhatIsProvenStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t, map[string]string{"192.0.2.7": "h1"}, machine("h1", "192.0.2.7"), with(machine("nat", "192.0.2.9"), layout.ProvenAnnotation, "192.0.2.9"))
		b.has(t, time.Second, "h1", "192.0.2.7")
		b.set("192.0.2.7", "")
		b.update(t, "h1", func(n *v1.Node) { is(n, v1.ConditionUnknown) })
		b.start(t) // another server leads
		b.has(t, time.Hour, "h1", "192.0.2.7")
		b.has(t, 0, "nat", "192.0.2.9")
		if n := b.tries("192.0.2.9"); n > 0 {
			t.Errorf("what is vouched for is asked %d times", n)
		}

		b.update(t, "h1", func(n *v1.Node) { n.Status.Addresses[0].Address = "192.0.2.70" })
		b.has(t, time.Second, "h1", "")
		b.update(t, "h1", func(n *v1.Node) { n.Status.Addresses[0].Address = "192.0.2.7" })
		b.has(t, time.Second, "h1", "")

		if err := b.client.CoreV1().Nodes().Delete(t.Context(), "nat", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		again := machine("nat", "192.0.2.9")
		again.UID = "another"
		if _, err := b.client.CoreV1().Nodes().Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.has(t, time.Hour, "nat", "")
	})
}

// Nothing is said of a node before all that it claims is known, so that a Service keeps
// what it has; a node that is not ready is not asked.
func TestUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := run(t, map[string]string{"192.0.2.7": "h1"}, machine("h1", "192.0.2.7", "192.0.2.77"), is(machine("down", "192.0.2.8"), v1.ConditionFalse), machine("silent"))
		b.has(t, time.Second, "h1", "-")
		b.has(t, 2*grace, "h1", "192.0.2.7")
		b.has(t, time.Hour, "down", "-")
		b.has(t, 0, "silent", "-")
		if n := b.tries("192.0.2.8"); n > 0 {
			t.Errorf("a node that is down is asked %d times", n)
		}
		// What could not be proven is tried every half a minute.
		before := b.tries("192.0.2.77")
		time.Sleep(10 * time.Minute)
		if n := b.tries("192.0.2.77") - before; n < 19 || n > 21 {
			t.Errorf("tried %d times in ten minutes", n)
		}
		b.set("192.0.2.77", "h1")
		b.has(t, time.Minute, "h1", "192.0.2.7,192.0.2.77")
		if b.Note() != "" {
			t.Errorf("the note is %q", b.Note())
		}
	})
}

// Who has a server has the cluster; it is asked nothing.
func TestServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := is(machine("s2", "192.0.2.2"), v1.ConditionFalse)
		other.Labels = map[string]string{kube.ServerLabel: "true"}
		b := run(t, nil, machine("s1", "192.0.2.1"), other) // the first has no label yet
		b.has(t, time.Second, "s1", "192.0.2.1")
		b.has(t, 0, "s2", "192.0.2.2")
	})
}

// A Node that claims thousands of addresses costs no more than others.
func TestManyClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := machine("h1")
		for i := range 1000 {
			n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: fmt.Sprintf("192.0.%d.%d", 3+i/250, 1+i%250)})
		}
		b := run(t, nil, n)
		b.has(t, time.Minute, "h1", "")
		if got := len(b.asked); got != mostClaims {
			t.Errorf("%d addresses are asked", got)
		}
		if !strings.Contains(b.Note(), "and 4 more") {
			t.Errorf("the note is %q", b.Note())
		}
	})
}

func TestAWriteThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{network: &network{at: map[string]string{"192.0.2.7": "h1"}, asked: map[string]int{}}, client: fake.NewClientset(machine("h1", "192.0.2.7")), Prover: New(Config{})}
		failures := 5
		b.client.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			failures--
			return failures >= 0, nil, errors.New("the datastore is full")
		})
		b.start(t)
		b.has(t, time.Second, "h1", "-")
		b.has(t, time.Minute, "h1", "192.0.2.7")
		for range 5 { // heartbeats
			b.update(t, "h1", func(n *v1.Node) { n.Status.Conditions[0].LastHeartbeatTime = metav1.Now() })
			time.Sleep(time.Second)
		}
		if n := b.count("patch", "nodes"); n != 6 {
			t.Errorf("written %d times", n)
		}
	})
}
