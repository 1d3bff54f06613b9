package nodes

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/tests/harness/cluster"
)

// TestMember runs what needs one server and one agent. The policy on both is that
// of TestNodes, set by the other iptables.
func TestMember(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.Output(t, "iptables-legacy", "-P", "FORWARD", "DROP")
	}))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	s.ns.Apply(t, daemonSet)
	s.ns.WaitRollout(t, "daemonset/web")
	s.findPods(t)
	t.Run("Watches", s.testWatches)
	t.Run("LegacyDrop", s.testPodToPod)
	t.Run("OtherName", s.testOtherName)
	t.Run("ChangedHostName", s.testChangedHostName)
	t.Run("AuthorityEnds", s.testAuthorityEnds)
	t.Run("AgentMoves", s.testAgentMoves)
	t.Run("CopyOfTheMachine", s.testCopy)
}

// names returns those of all nodes.
func names(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	return c.Server().Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
}

// A start looks for as many inotify instances as a node opens, no more and no less.
func (s *suite) testWatches(t *testing.T) {
	for n, want := range map[*cluster.Node]int{s.cluster.Server(): agent.ServerWatches, s.cluster.Agents[0]: agent.Watches} {
		cluster.Eventually(t, time.Minute, func() error { // some are opened after a node is ready
			out := n.Output(t, "sh", "-c", fmt.Sprintf("ls -l /proc/%d/fd | grep -c anon_inode:inotify", n.PID(t)))
			if got := strings.TrimSpace(out); got != strconv.Itoa(want) {
				return fmt.Errorf("the %s has %s inotify instances, and a start looks for %d", n.Role, got, want)
			}
			return nil
		})
	}
}

// A machine that is a node already is said another name: it is told so, and stays
// what it is.
func (s *suite) testOtherName(t *testing.T) {
	agent := s.cluster.Agents[0]
	agent.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := agent.Command(ctx, "lite", "agent", "--node-name", "other").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lite: node-name") || !strings.Contains(string(out), agent.Name) {
		t.Errorf("%v\n%s", err, out)
	}
	agent.Start(t)
}

// A machine stays the node that it is when it is given another name.
func (s *suite) testChangedHostName(t *testing.T) {
	agent := s.cluster.Agents[0]
	agent.Stop(t)
	agent.Output(t, "hostname", "renamed")
	agent.Start(t)
	if nodes := names(t, s.cluster); nodes != s.cluster.Server().Name+" "+agent.Name {
		t.Errorf("nodes are %s", nodes)
	}
}

// A copy of an agent's disk runs as a second machine. Both say so; the copy becomes a
// node of its own as they tell.
func (s *suite) testCopy(t *testing.T) {
	agent := s.cluster.Agents[0]
	clone := cluster.NewNode(t, cluster.On(s.cluster.Network))
	clone.Role = "agent"
	for _, name := range []string{"node-name", "agent/cluster.json", "agent/ca.crt", "agent/joined.conf", "agent/servers.json", "agent/kubelet"} {
		if out, err := exec.Command("cp", "-a", agent.Path(cluster.DataDir+"/"+name), clone.Path(cluster.DataDir+"/"+name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	clone.Launch(t)
	for at, n := range map[string]*cluster.Node{clone.IP: agent, agent.IP: clone} {
		cluster.Eventually(t, time.Minute, func() error { // each writes every 30 s at the most
			out, _ := n.Command(t.Context(), "lite", "status").CombinedOutput()
			if want := "another machine, at " + at + ", claims to be this node"; !strings.Contains(string(out), want) {
				return fmt.Errorf("lite status on %s does not say %q:\n%s", n.IP, want, out)
			}
			return nil
		})
	}
	clone.Kill(t)
	clone.Output(t, "lite", "killall")
	clone.Output(t, "sh", "-ec", "rm -r "+cluster.DataDir+"/node-name "+cluster.DataDir+"/agent")
	clone.Start(t, "--token", strings.TrimSpace(s.cluster.Server().Output(t, "lite", "token", "create")))
	soon(t, func() error {
		if nodes, want := names(t, s.cluster), []string{s.cluster.Server().Name, agent.Name, clone.Name}; nodes != strings.Join(want, " ") {
			return fmt.Errorf("nodes are %s, want %s", nodes, want)
		}
		return nil
	})
	// The address of the node is the agent's again, and all three are ready.
	soon(t, func() error {
		got := s.cluster.Server().Kubectl(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.status.addresses[?(@.type=="InternalIP")].address} {.status.conditions[?(@.type=="Ready")].status},{end}`)
		if want := fmt.Sprintf("%s True,%s True,%s True,", s.cluster.Server().IP, agent.IP, clone.IP); got != want {
			return fmt.Errorf("nodes are %s want %s", got, want)
		}
		return nil
	})
}
