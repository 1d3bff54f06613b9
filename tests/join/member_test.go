package join

import (
	"context"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/cluster"
)

// TestMember runs what needs one server and one agent. The policy on both is that
// of TestNodes, set by the other iptables.
func TestMember(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.Output(t, "iptables-legacy", "-P", "FORWARD", "DROP")
	}))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	s.ns.Apply(t, daemonSet)
	s.ns.WaitRollout(t, "daemonset/web")
	s.findPods(t)
	t.Run("LegacyDrop", s.testPodToPod)
	t.Run("OtherName", s.testOtherName)
	t.Run("ChangedHostName", s.testChangedHostName)
	t.Run("AgentMoves", s.testAgentMoves)
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
