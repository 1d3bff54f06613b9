package kubelet

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

// client is an identity.
type client struct{ kubernetes.Interface }

func (c client) Clientset() (kubernetes.Interface, error) { return c.Interface, nil }

// The kubelet gives pods in the node's network the addresses that it finds in the Node when
// it begins, which a machine that was given others does not have any more.
func TestNodeIsMovedBeforeTheKubeletBegins(t *testing.T) {
	internal := func(ips ...string) (all []v1.NodeAddress) {
		for _, ip := range ips {
			all = append(all, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
		}
		return append(all, v1.NodeAddress{Type: v1.NodeHostName, Address: "node-a"})
	}
	cloud := sample()
	cloud.ExtraArgs = []string{"cloud-provider=external"}
	found := sample()
	found.ExtraArgs = []string{"node-ip=0.0.0.0"}
	for name, test := range map[string]struct {
		config Config
		before []v1.NodeAddress
		after  []v1.NodeAddress
		writes int
	}{
		"as it was":             {sample(), internal("192.0.2.10"), internal("192.0.2.10"), 0},
		"another address":       {sample(), internal("192.0.2.1"), internal("192.0.2.10"), 1},
		"one family less":       {sample(), internal("192.0.2.10", "2001:db8::1"), internal("192.0.2.10"), 1},
		"both families, a flag": {full(), internal("192.0.2.1", "2001:db8::1"), internal("192.0.2.11"), 1},
		"a cloud's":             {cloud, internal("198.51.100.1"), internal("198.51.100.1"), 0},
		"found by the kubelet":  {found, internal("192.0.2.1"), internal("192.0.2.1"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			server, _, err := parse(test.config)
			if err != nil {
				t.Fatal(err)
			}
			set := fake.NewClientset(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Status: v1.NodeStatus{Addresses: test.before}})
			k := &Kubelet{server: server, client: client{set}}
			if err := k.move(t.Context()); err != nil {
				t.Fatal(err)
			}
			node, err := set.CoreV1().Nodes().Get(t.Context(), "node-a", metav1.GetOptions{})
			if err != nil || !slices.Equal(node.Status.Addresses, test.after) {
				t.Errorf("the Node has %v, %v", node.Status.Addresses, err)
			}
			writes := 0
			for _, a := range set.Actions() {
				if a.GetVerb() == "patch" {
					writes++
				}
			}
			if writes != test.writes {
				t.Errorf("written %d times, want %d", writes, test.writes)
			}
		})
	}
	server, _, err := parse(sample())
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Kubelet{server: server, client: client{fake.NewClientset()}}).move(t.Context()); err == nil {
		t.Error("a node that is not there was moved")
	}
}
