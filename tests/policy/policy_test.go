// Package policy shows that NetworkPolicies are in force between pods of all
// nodes, and what is not subject to them.
package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestPolicies runs on one server and two agents. Each test leaves no policy.
func TestPolicies(t *testing.T) {
	s := newSuite(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"NoTableWithoutPolicies", s.testNoTable},
		{"Table", s.testTable},
		{"LiveChanges", s.testLiveChanges},
		{"Established", s.testEstablished},
		{"Nodes", s.testNodes},
		{"Probes", s.testProbes},
		{"Services", s.testServices},
		{"NewPods", s.testNewPods},
		{"Away", s.testAway},
		{"NoTableAfterPolicies", s.testNoTable},
		{"Disabled", s.testDisabled},
	} {
		if !t.Run(test.name, test.run) {
			s.showTables(t)
		}
		s.removePolicies(t)
	}
}

// suite is a cluster of both IP families with three pods in each of three
// namespaces. Of every two nodes there are pods of the same namespace and of others,
// on the same node too.
type suite struct {
	cluster *cluster.Cluster
	nodes   []*cluster.Node
	client  kubernetes.Interface
	spaces  []string
	pods    []*pod // a, b, c of the first namespace, then of the second, …
}

// placement is the node of each pod.
var placement = []int{0, 0, 1, 1, 2, 0, 2, 1, 2}

func newSuite(t *testing.T) *suite {
	c := cluster.New(t, cluster.Agents(2), cluster.Prepare(func(n *cluster.Node) {
		n.AddIPv6(t)
		config := "node-ip: " + n.IP + "," + n.IPv6() + "\n"
		if n.Role == "server" {
			config += cluster.DualStack
		}
		n.WriteFile(t, "/etc/lite/config.yaml", config)
	}))
	s := &suite{cluster: c, nodes: append(c.Servers[:1:1], c.Agents...), client: c.Server().Client(t)}
	server := c.Server()
	for _, name := range []string{"red", "green", "blue"} {
		server.KubectlStdin(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {team: %s}}\n", name, name), "apply", "-f", "-")
		s.spaces = append(s.spaces, name)
	}
	for i, node := range placement {
		s.pods = append(s.pods, &pod{space: s.spaces[i/3], name: string(rune('a' + i%3)), node: s.nodes[node]})
	}
	for _, name := range s.spaces {
		ns := &cluster.Namespace{Name: name, Node: server}
		cluster.Eventually(t, time.Minute, func() error { _, err := ns.KubectlErr(t, "get", "serviceaccount", "default"); return err })
		var manifests []string
		for _, p := range s.in(name) {
			manifests = append(manifests, p.manifest())
		}
		ns.Apply(t, strings.Join(manifests, "---"))
	}
	for _, p := range s.pods {
		p.start(t, server)
	}
	return s
}

func (s *suite) in(space string) (pods []*pod) {
	for _, p := range s.pods {
		if p.space == space {
			pods = append(pods, p)
		}
	}
	return pods
}

// pod returns one by namespace and name, "red/a".
func (s *suite) pod(t *testing.T, name string) *pod {
	for _, p := range s.pods {
		if p.String() == name {
			return p
		}
	}
	t.Fatalf("there is no pod %s", name)
	return nil
}

// apply makes a policy, or changes it, from the YAML of its spec.
func (s *suite) apply(t *testing.T, space, name, spec string) {
	t.Helper()
	np := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatalf("policy %s: %v", name, err)
	}
	np.APIVersion, np.Kind = "networking.k8s.io/v1", "NetworkPolicy"
	data, err := yaml.Marshal(np)
	if err == nil {
		_, err = s.client.NetworkingV1().NetworkPolicies(space).Patch(t.Context(), name, types.ApplyPatchType, data,
			metav1.PatchOptions{FieldManager: "test"})
	}
	if err != nil {
		t.Fatalf("policy %s/%s: %v", space, name, err)
	}
}

// showTables logs what the packet filter of each node holds.
func (s *suite) showTables(t *testing.T) {
	for _, n := range s.nodes {
		out, _ := n.Command(t.Context(), "nft", "list", "table", "inet", "lite-policy").CombinedOutput()
		t.Logf("%s:\n%s", n.Name, out)
	}
}

func (s *suite) removePolicies(t *testing.T) {
	t.Helper()
	for _, space := range s.spaces {
		if err := s.client.NetworkingV1().NetworkPolicies(space).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}
