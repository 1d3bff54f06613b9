package join

import (
	"testing"

	"lite.io/lite/tests/cluster"
)

// TestLegacyDrop is TestNodes' policy, set by the other iptables.
func TestLegacyDrop(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.Output(t, "iptables-legacy", "-P", "FORWARD", "DROP")
	}))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	s.ns.Apply(t, daemonSet)
	s.ns.WaitRollout(t, "daemonset/web")
	s.findPods(t)
	s.testPodToPod(t)
}
