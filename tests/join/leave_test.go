package join

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/cluster"
)

// TestLeaving shows that nothing of a node that was deleted is left on the
// others, and that its range of addresses is given to another. There are four.
func TestLeaving(t *testing.T) {
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

// TestCutLink cuts the cable of an agent until the cluster gives it up, and heals
// it. Pods that may not wait for it are made anew elsewhere; all others stay.
func TestCutLink(t *testing.T) {
	c := cluster.New(t, cluster.Agents(2))
	cut := c.Agents[0]
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	c.Server().Kubectl(t, "cordon", c.Agents[1].Name)
	c.Server().Kubectl(t, "cordon", c.Server().Name)
	s.ns.Apply(t, daemonSet+impatient)
	s.ns.WaitRollout(t, "daemonset/web")
	s.ns.WaitRollout(t, "deployment/impatient")
	c.Server().Kubectl(t, "uncordon", c.Agents[1].Name)
	s.findPods(t)
	before := s.containers(t)

	c.Network.Cut(t, cut.Host)
	began := time.Now()
	s.ns.Node.Kubectl(t, "wait", "--timeout=90s", "--for=condition=Ready=Unknown", "node/"+cut.Name)
	cluster.Eventually(t, 60*time.Second, func() error {
		if got := s.impatient(t, "Running"); !strings.Contains(got, c.Agents[1].Name) {
			return fmt.Errorf("pods run on %s", got)
		}
		return nil
	})
	if _, err := cut.Command(t.Context(), "lite", "status").Output(); err == nil {
		t.Error("lite status on the agent does not tell")
	}
	if got, err := cluster.Get(cut, "http://"+s.pods[1].IP+":8080/hostname"); err != nil || got != s.pods[1].name {
		t.Errorf("the pod on the agent: %q, %v", got, err)
	}
	t.Logf("cut for %s", time.Since(began).Round(time.Second))
	c.Network.Heal(t, cut.Host)

	cluster.Eventually(t, 40*time.Second, func() error { return s.nodesReady(t) })
	cluster.Eventually(t, 40*time.Second, func() error {
		if got := s.impatient(t, ""); got != c.Agents[1].Name {
			return fmt.Errorf("pods are on %s, want one on %s", got, c.Agents[1].Name)
		}
		return nil
	})
	s.testPodToPod(t)
	if after := s.containers(t); after != before {
		t.Errorf("the containers are\n%s\nthey were\n%s", after, before)
	}
	cluster.Eventually(t, 20*time.Second, func() error {
		out, err := cut.Command(t.Context(), "lite", "status").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// impatient lists the nodes of the pods of that Deployment in a phase, or in any.
func (s *suite) impatient(t *testing.T, phase string) string {
	t.Helper()
	args := []string{"get", "pods", "-l", "app=impatient", "-o", "jsonpath={.items[*].spec.nodeName}"}
	if phase != "" {
		args = append(args, "--field-selector", "status.phase="+phase)
	}
	return s.ns.Kubectl(t, args...)
}

// impatient does not wait for a node that is not ready.
const impatient = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: impatient}
spec:
  selector: {matchLabels: {app: impatient}}
  template:
    metadata: {labels: {app: impatient}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
      - name: main
        image: lite.test/busybox:1
        command: [sleep, "3600"]
`
