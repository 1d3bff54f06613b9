package nodes

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// TestLeaving shows that nothing of a node that was deleted is left on the
// others, and that its range of addresses is given to another. There are four.
func TestLeaving(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(2), cluster.Prepare(func(n *cluster.Node) {
		if n.Role == "server" {
			n.WriteFile(t, "/etc/lite/config.yaml", "cluster-cidr: 10.42.0.0/22\n")
		}
	}))
	gone, others := c.Agents[0], []*cluster.Node{c.Server(), c.Agents[1]}
	cidr := podCIDR(t, c, gone)
	for _, n := range others {
		soon(t, func() error {
			if ways := waysTo(t, n, gone, cidr); len(ways) < 3 {
				return fmt.Errorf("%s reaches %s by %q, want a route, a neighbour and a forwarding entry", n.Name, gone.Name, ways)
			}
			return nil
		})
	}
	gone.Stop(t)
	c.Server().Kubectl(t, "delete", "node", gone.Name)
	for _, n := range others {
		cluster.Eventually(t, 5*time.Second, func() error {
			if ways := waysTo(t, n, gone, cidr); len(ways) > 0 {
				return fmt.Errorf("%s still has %q", n.Name, ways)
			}
			return nil
		})
	}

	heir := false
	for range 2 {
		agent := c.NewAgent(t)
		agent.Start(t, "--token-file", cluster.TokenFile)
		heir = heir || podCIDR(t, c, agent) == cidr
	}
	if !heir {
		t.Errorf("nobody has got %s", cidr)
	}
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents[1:]...)}
	s.ns.Apply(t, daemonSet)
	s.ns.WaitRollout(t, "daemonset/web")
	s.findPods(t)
	s.testPodToPod(t)
}

func podCIDR(t *testing.T, c *cluster.Cluster, n *cluster.Node) string {
	t.Helper()
	return c.Server().Kubectl(t, "get", "node", n.Name, "-o", "jsonpath={.spec.podCIDR}")
}

// waysTo lists what the kernel of a node has to reach another: its range, the
// first address of that, and its own.
func waysTo(t *testing.T, from, to *cluster.Node, cidr string) (ways []string) {
	t.Helper()
	first := strings.TrimSuffix(cidr, "/24")
	for _, command := range []string{"ip -d route show table all", "bridge fdb show dev lite-vxlan", "ip neigh show dev lite-vxlan nud all"} {
		args := strings.Fields(command)
		for line := range strings.Lines(from.Output(t, args[0], args[1:]...)) {
			for _, field := range strings.Fields(line) {
				if field == cidr || field == first || field == to.IP {
					ways = append(ways, strings.TrimSpace(line))
					break
				}
			}
		}
	}
	return ways
}
