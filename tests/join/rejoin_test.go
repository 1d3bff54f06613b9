package join

import (
	"testing"

	"lite.io/lite/tests/cluster"
)

// TestDeletedNodeComesBack deletes the node of an agent, which comes back and is
// given another range: its pods are reached all the same.
func TestDeletedNodeComesBack(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1))
	agent := c.Agents[0]
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], agent)}
	s.ns.Apply(t, daemonSet)
	s.ns.WaitRollout(t, "daemonset/web")
	agent.Stop(t)
	c.Server().Kubectl(t, "delete", "node", agent.Name)
	s.ns.Kubectl(t, "wait", "--for=delete", "--timeout=100s", "pod", "-l", "app=web", "--field-selector", "spec.nodeName="+agent.Name)
	agent.Start(t)
	s.ns.Kubectl(t, "rollout", "status", "--timeout=30s", "daemonset/web")
	s.findPods(t)
	s.testPodToPod(t)
}
