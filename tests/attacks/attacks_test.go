// Package attacks keeps what somebody has done to a cluster of lite's, under the
// name of the attack: it worked once, and does no longer.
package attacks

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is far more than a controller needs to see what has changed.
const soon = time.Minute

type suite struct {
	*cluster.Cluster
	server, agent *cluster.Node
	honest        *cluster.Node // an agent that joins in the course of the tests
	ns            *cluster.Namespace
}

// TestNode is what a machine with a token, or an agent that was taken over, does with
// its identity.
func TestNode(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.Output(t, "install", "-d", "-m", "700", "/etc/lite") // as the installer does
		if n.Role == "server" {
			n.WriteFile(t, "/etc/lite/config.yaml", fmt.Sprintf("token-nodes-per-hour: %d\n", perHour))
		}
	}))
	s := &suite{Cluster: c, server: c.Server(), agent: c.Agents[0], ns: c.Server().Namespace(t)}
	s.honest = c.NewAgent(t) // here, for it is to outlive the step that starts it
	t.Run("TakesARangeOfPods", s.testRange)
	t.Run("HasTakenARangeOfPods", s.testContest)
	t.Run("TakesAddressesOfServices", s.testAddresses)
	t.Run("DrawsLoadBalancingToItself", s.testLabels)
	t.Run("BreaksDNSOfOthers", s.testDNS)
	t.Run("TakesAForeignService", s.testForeignService)
	t.Run("StaysWhenItIsDeleted", s.testStays)
	t.Run("EndsTheControlPlaneByFigures", s.testFigures)
	t.Run("FillsTheDatastore", s.testDatastore)
	t.Run("FillsTheAuditLog", s.testAuditLog)
	t.Run("Reach", s.testReach)
	t.Run("FloodsByOneToken", s.testFlood)
	t.Run("IsOneOfManyOfAToken", s.testToken)
	t.Run("IsShutOut", s.testNode)
}

// as does as a node does, by what the API server makes of its certificate.
func (s *suite) as(t *testing.T, node, stdin string, args ...string) (string, error) {
	t.Helper()
	args = append([]string{"kubectl", "--as=system:node:" + node, "--as-group=system:nodes", "--as-group=system:authenticated"}, args...)
	cmd := s.server.Command(t.Context(), "lite", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *suite) refused(t *testing.T, why, node, stdin string, args ...string) {
	t.Helper()
	if out, err := s.as(t, node, stdin, args...); err == nil || !strings.Contains(out, why) {
		t.Errorf("%s may %s: %v, %s", node, strings.Join(args, " "), err, out)
	}
}

func (s *suite) ranges(t *testing.T, node string) string {
	t.Helper()
	return strings.TrimSpace(s.server.Kubectl(t, "get", "node", node, "-o", "jsonpath={.spec.podCIDR}"))
}

// claims is a Node with a range and a place in the overlay.
func claims(name, pods string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Node, metadata: {name: %s, annotations: {%s: %q}}, spec: {podCIDR: %s, podCIDRs: [%s]}}`,
		name, layout.OverlayAnnotation, `{"backend":"vxlan","ip":"10.99.0.254","mac":"a6:7a:c3:ec:08:07","port":8472}`, pods, pods)
}

func (s *suite) testRange(t *testing.T) {
	pods := s.ranges(t, s.agent.Name)
	s.refused(t, "may not choose its pod CIDRs", "a0", claims("a0", pods), "create", "-f", "-")
}

// A range was taken before anybody refused that: the older node keeps its pods.
func (s *suite) testContest(t *testing.T) {
	s.ns.Apply(t, cluster.Web(1))
	s.ns.WaitRollout(t, "deployment/web")
	pods := s.ranges(t, s.agent.Name)
	s.server.KubectlStdin(t, claims("a0", pods), "create", "-f", "-")
	defer s.server.Kubectl(t, "delete", "node", "a0")
	cluster.Eventually(t, soon, func() error {
		out := s.server.Kubectl(t, "get", "events", "-n", "default", "-o", "jsonpath={range .items[?(@.reason==\"PodsUnreachable\")]}{.message}{\"\\n\"}{end}")
		if !strings.Contains(out, "node a0: has the pod CIDR "+pods) {
			return fmt.Errorf("no event tells of the contest: %s", out)
		}
		return nil
	})
	table := s.server.Output(t, "bridge", "fdb", "show", "dev", "lite-vxlan")
	if !strings.Contains(table, "dst "+s.agent.IP) || strings.Contains(table, "10.99.0.254") {
		t.Errorf("the packets for %s go to\n%s", pods, table)
	}
}

// reports is the status of a Node that is ready, at addresses such as "InternalIP 192.0.2.77".
func reports(addresses ...string) string {
	var list []string
	for _, a := range addresses {
		kind, address, _ := strings.Cut(a, " ")
		list = append(list, fmt.Sprintf(`{"type":%q,"address":%q}`, kind, address))
	}
	return fmt.Sprintf(`"status":{"conditions":[{"type":"Ready","status":"True","reason":"x","message":"x","lastHeartbeatTime":%q,"lastTransitionTime":%[1]q}],
		"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}},"addresses":[%s]}`, time.Now().UTC().Format(time.RFC3339), strings.Join(list, ","))
}

// The addresses of Services and of loopback, of another node, and one outside of the
// cluster, such as that of a database: kube-proxy on every node would lead packets for
// it to a Service.
func (s *suite) testAddresses(t *testing.T) {
	const name, outside, carrier = "a2", "192.0.2.77", "192.0.2.78"
	const external = "may not give itself external addresses"
	s.refused(t, external, "a1", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"a1"},`+reports("ExternalIP "+outside)+"}", "create", "-f", "-")
	s.server.Kubectl(t, "delete", "node", "a1", "--ignore-not-found")
	if out, err := s.as(t, name, "{apiVersion: v1, kind: Node, metadata: {name: a2}}", "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	defer s.server.Kubectl(t, "delete", "node", name)
	node := s.client(t, func(c *rest.Config) { // kubectl reads before it patches, which a node may not do here
		admin := s.server.Config(t)
		c.CertData, c.KeyData = admin.CertData, admin.KeyData
		c.Impersonate = rest.ImpersonationConfig{UserName: layout.NodeUser + name, Groups: []string{layout.NodesGroup, "system:authenticated"}}
	})
	writes := func(addresses ...string) error {
		_, err := node.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, []byte("{"+reports(addresses...)+"}"), metav1.PatchOptions{}, "status")
		return err
	}
	if err := writes("InternalIP "+outside, "ExternalIP "+outside); err == nil || !strings.Contains(err.Error(), external) {
		t.Errorf("a node gives itself an external address: %v", err)
	}
	s.server.Kubectl(t, "patch", "node", name, "--subresource=status", "-p", "{"+reports("ExternalIP 127.0.0.1", "ExternalIP "+s.server.IP)+"}") // as once
	s.server.Kubectl(t, "annotate", "node", name, layout.OverlayAnnotation+`={"backend":"vxlan","ip":"`+carrier+`"}`)
	s.ns.Apply(t, "{apiVersion: v1, kind: Service, metadata: {name: evil}, spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 443}]}}")
	want := s.server.IP + " " + s.agent.IP
	cluster.Eventually(t, soon, func() error {
		err := writes("InternalIP 10.43.0.1", "InternalIP 10.43.0.10", "InternalIP "+outside, "InternalIP "+s.agent.IP, "ExternalIP 127.0.0.1", "ExternalIP "+s.server.IP)
		if err != nil {
			return fmt.Errorf("what it has it may keep: %w", err)
		}
		got := s.ns.Field(t, "service/evil", ".status.loadBalancer.ingress[*].ip")
		if strings.Contains(got, outside) {
			t.Fatalf("the Service has %q", got)
		}
		if got != want {
			return fmt.Errorf("the Service has %q, want %q", got, want)
		}
		status, _ := s.server.Command(t.Context(), "lite", "status").CombinedOutput()
		for _, refused := range []string{
			"10.43.0.1 is an address of Services", "127.0.0.1 cannot be the address of a host", s.server.IP + " is an address of",
			outside + " is not proven", carrier + " is not proven", s.agent.IP + " is not proven to be its address: ask the kubelet at port 10250: \"system:node:" + s.agent.Name + "\" answers there",
		} {
			if !strings.Contains(string(status), refused) {
				return fmt.Errorf("the status does not say %q:\n%s", refused, status)
			}
		}
		return nil
	})
	s.refused(t, "may change only lite.io/overlay and lite.io/storage-path", name, "", "annotate", "node", name, layout.ProvenAnnotation+"="+outside, "--overwrite")
	s.server.Kubectl(t, "annotate", "node", name, layout.ProvenAnnotation+"="+outside, "--overwrite") // which an administrator may vouch for
	cluster.Eventually(t, soon, func() error {
		if got := s.ns.Field(t, "service/evil", ".status.loadBalancer.ingress[*].ip"); got != outside+" "+want {
			return fmt.Errorf("the Service has %q, want %s as well", got, outside)
		}
		return nil
	})
	s.ns.Kubectl(t, "delete", "service", "evil")
}

func (s *suite) testLabels(t *testing.T) {
	name := s.agent.Name
	s.refused(t, "may change only lite.io/storage", name, "", "label", "node", name, "lite.io/lb=true")
	s.refused(t, "not allowed to modify labels", name, "", "label", "node", name, "node-restriction.kubernetes.io/lite-lb=true")
	s.refused(t, "only lite.io/overlay and lite.io/storage-path", name, "", "annotate", "node", name, "lite.io/anything=true")
	if out, err := s.as(t, name, "", "label", "node", name, "lite.io/storage=true", "--overwrite"); err != nil {
		t.Errorf("what a node says of its own volumes: %s", out)
	}
}

func (s *suite) testDNS(t *testing.T) {
	for i, pods := range []string{"127.0.0.0/24", "10.43.0.0/24", "224.0.0.0/24"} {
		name := fmt.Sprintf("bad%d", i)
		s.server.KubectlStdin(t, claims(name, pods), "create", "-f", "-") // as a node could once
		defer s.server.Kubectl(t, "delete", "node", name)
	}
	s.server.Kubectl(t, "delete", "endpointslice", "-n", "kube-system", "-l", "kubernetes.io/service-name=kube-dns")
	var want []string
	for _, n := range []*cluster.Node{s.server, s.agent} {
		want = append(want, netip.MustParsePrefix(s.ranges(t, n.Name)).Addr().Next().String())
	}
	cluster.Eventually(t, soon, func() error {
		got := s.server.Kubectl(t, "get", "endpointslice", "-n", "kube-system", "-l", "kubernetes.io/service-name=kube-dns", "-o", "jsonpath={.items[*].endpoints[*].addresses[*]}")
		if got != strings.Join(want, " ") {
			return fmt.Errorf("the nodes answer at %q, want %q", got, want)
		}
		return nil
	})
}
