package nodes

import (
	"fmt"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// The only server is given another address while agents run. They are told at
// their next start, and are the nodes that they were, with the pods that they had.
func (s *suite) testServerMoves(t *testing.T) {
	c, server := s.cluster, s.cluster.Server()
	s.findPods(t)
	before, nodes, old := s.containers(t), s.uidsOfNodes(t), server.IP

	server.Stop(t)
	c.Network.Readdress(t, server.Host)
	server.Start(t)
	reach(t, "between agents", s.pods[1], "http://"+s.pods[2].IP+":8080/hostname", s.pods[2].name)

	url := "https://" + server.IP + ":6443"
	told, byEnvironment := c.Agents[0], c.Agents[1]
	told.Stop(t)
	told.Start(t, "--server", url)
	byEnvironment.Kill(t)
	byEnvironment.Env = []string{"LITE_URL=" + url}
	byEnvironment.Start(t, "--token-file", cluster.TokenFile) // in which is the old address
	byEnvironment.Env = nil

	soon(t, func() error { return s.nodesReady(t) })
	for _, n := range c.Agents {
		soon(t, func() error { return uses(t, n, server) })
	}
	if after := s.uidsOfNodes(t); after != nodes {
		t.Errorf("nodes are %s, and were %s", after, nodes)
	}
	if after := s.containers(t); after != before {
		t.Errorf("the pods are\n%s\nthey were\n%s", after, before)
	}
	s.testPodToPod(t)
	s.testHostNetwork(t)
	soon(t, func() error { return s.knowsOnly(t, server.IP, old) })
	for _, p := range s.pods {
		if got := s.ns.Exec(t, p.name, "hostname"); got != p.name+"\n" {
			t.Errorf("exec in %s: %q", p, got)
		}
	}

	// What it was told it remembers, and who comes new finds the server.
	told.Stop(t)
	told.Start(t)
	c.NewAgent(t).Start(t, "--token-file", cluster.TokenFile)
}

// An agent is given another address, once while it runs and once while it does
// not. Nobody has to do anything for its pods to be reached, nor for the API
// server to reach its kubelet, which has a certificate for its address.
func (s *suite) testAgentMoves(t *testing.T) {
	c, agent := s.cluster, s.cluster.Agents[0]
	s.findPods(t)
	before, nodes, pid := s.containers(t), s.uidsOfNodes(t), agent.PID(t)

	c.Network.Readdress(t, agent.Host)
	s.awaitMoved(t, agent)
	if after := agent.PID(t); after != pid {
		t.Errorf("the agent's process is %d and was %d", after, pid)
	}
	agent.Stop(t)
	c.Network.Readdress(t, agent.Host)
	agent.Start(t)
	s.awaitMoved(t, agent)

	if after := s.uidsOfNodes(t); after != nodes {
		t.Errorf("nodes are %s, and were %s", after, nodes)
	}
	if after := s.containers(t); after != before {
		t.Errorf("the pods are\n%s\nthey were\n%s", after, before)
	}
}

// awaitMoved waits until a node is known by the address that it has now, and
// reached there.
func (s *suite) awaitMoved(t *testing.T, n *cluster.Node) {
	t.Helper()
	soon(t, func() error {
		addresses := s.ns.Node.Kubectl(t, "get", "node", n.Name, "-o", "jsonpath={.status.addresses}{.metadata.annotations}")
		if !strings.Contains(addresses, `"`+n.IP+`"`) {
			return fmt.Errorf("node %s is to be at %s: %s", n.Name, n.IP, addresses)
		}
		return s.nodesReady(t)
	})
	s.testPodToPod(t)
	soon(t, func() error {
		for _, p := range s.pods {
			if got, err := s.ns.KubectlErr(t, "exec", p.name, "--", "hostname"); err != nil || got != p.name+"\n" {
				return fmt.Errorf("exec in %s: %q, %w", p, got, err)
			}
		}
		return nil
	})
}

func (s *suite) uidsOfNodes(t *testing.T) string {
	t.Helper()
	return s.ns.Node.Kubectl(t, "get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}\n{end}")
}

// knowsOnly looks for the address of the server wherever the cluster says it.
func (s *suite) knowsOnly(t *testing.T, now, old string) error {
	t.Helper()
	get := func(args ...string) string {
		return s.ns.Node.Kubectl(t, append([]string{"get"}, args...)...)
	}
	for what, text := range map[string]string{
		"the node":     get("node", s.nodes[0].Name, "-o", "jsonpath={.status.addresses}{.metadata.annotations}"),
		"the Service":  get("endpointslices", "-n", "default", "-o", "jsonpath={.items[*].endpoints}"),
		"cluster-info": get("configmap", "cluster-info", "-n", "kube-public", "-o", "jsonpath={.data.kubeconfig}"),
		"the token":    s.nodes[0].ReadFile(t, cluster.DataDir+"/server/token"),
	} {
		if !strings.Contains(text, now) || strings.Contains(text, old) {
			return fmt.Errorf("%s does not say %s, or still says %s: %s", what, now, old, text)
		}
	}
	// The API is reached by its Service from the pods of all nodes.
	api := s.ns.Node.Kubectl(t, "get", "service", "kubernetes", "-n", "default", "-o", "jsonpath={.spec.clusterIP}") + ":443"
	for _, p := range s.pods {
		conn, err := p.DialContext(t.Context(), "tcp", api)
		if err != nil {
			return fmt.Errorf("%s to the API: %w", p, err)
		}
		conn.Close()
	}
	return nil
}
