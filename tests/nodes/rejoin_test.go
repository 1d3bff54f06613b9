package nodes

import (
	"fmt"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestDeletedNodesComeBack deletes the nodes of two agents. One comes back at once,
// the other when the cluster has forgotten its pods as well, both by the token: what
// they were known by went with their nodes. Both are given other ranges: their pods are
// reached all the same.
func TestDeletedNodesComeBack(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(2))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	s.ns.Apply(t, daemonSet)
	s.ns.WaitRollout(t, "daemonset/web")
	s.findPods(t)
	early, late := s.pods[1], s.pods[2]
	for _, p := range []pod{early, late} {
		p.node.Stop(t)
		c.Server().Kubectl(t, "delete", "node", p.node.Name)
	}
	early.node.Start(t, "--token-file", cluster.TokenFile)
	s.ns.Kubectl(t, "wait", "--for=delete", "--timeout=100s", "pod", late.name)
	late.node.Start(t, "--token-file", cluster.TokenFile)
	s.ns.WaitRollout(t, "daemonset/web")
	soon(t, func() error {
		for _, p := range []pod{early, late} {
			if ips := s.ns.Kubectl(t, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+p.node.Name, "-o", "jsonpath={.items[*].status.podIP}"); ips == p.IP {
				return fmt.Errorf("the pod on %s still has %s", p.node.Name, ips)
			}
		}
		return nil
	})
	s.findPods(t)
	s.testPodToPod(t)
}
