package join

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// testNameOfALivingNode lets a machine ask for the name of another. It waits as
// long as that one lives, and says so. That one's disk is wiped then: as it lives
// no more, whoever has its name in the end is what asks for it, here itself.
func (d *door) testNameOfALivingNode(t *testing.T) {
	first, second := d.agents[0], d.agents[1]
	good, _, _ := d.create(t)
	for _, agent := range []*cluster.Node{first, second} {
		agent.WriteFile(t, cluster.TokenFile, good)
	}
	names := func() string { return d.server.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}") }
	before := names()
	uid := d.server.Kubectl(t, "get", "node", first.Name, "-o", "jsonpath={.metadata.uid}")
	second.Launch(t, "--token-file", cluster.TokenFile, "--node-name", first.Name)
	soon(t, func() error { return saysWhyItWaits(t, second, first.Name) })
	if _, err := os.Stat(second.Path(cluster.DataDir + "/agent/kubelet.conf")); err == nil {
		t.Error("it has got the identity of a living node")
	}
	second.Stop(t)

	first.Kill(t)
	first.Output(t, "find", cluster.DataDir, "-mindepth", "1", "-delete")
	first.Launch(t, "--token-file", cluster.TokenFile)
	soon(t, func() error { return saysWhyItWaits(t, first, first.Name) })
	first.WaitReady(t)
	if got := d.server.Kubectl(t, "get", "node", first.Name, "-o", "jsonpath={.metadata.uid}"); got != uid {
		t.Errorf("it is another node: %s, and was %s", got, uid)
	}
	if after := names(); after != before {
		t.Errorf("nodes are %s, and were %s", after, before)
	}
}

// saysWhyItWaits looks for the name in the log and in lite status.
func saysWhyItWaits(t *testing.T, n *cluster.Node, name string) error {
	status, err := n.Command(t.Context(), "lite", "status").CombinedOutput()
	if err == nil {
		t.Errorf("lite status finds nothing:\n%s", status)
	}
	for _, text := range []string{n.Log(), string(status)} {
		if !strings.Contains(text, "the name ") || !strings.Contains(text, name) || !strings.Contains(text, "--node-name") {
			return fmt.Errorf("does not say why it waits:\n%s", text)
		}
	}
	return nil
}
