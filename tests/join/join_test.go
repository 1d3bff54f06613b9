// Package join shows how machines become nodes of a cluster, and who does not.
package join

import (
	"strings"
	"testing"

	"lite.io/lite/tests/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func TestAgentJoins(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1))
	agent := c.Agents[0]
	nodes := c.Server().Kubectl(t, "get", "nodes", "-o", "wide", "--no-headers")
	t.Log("\n" + nodes)
	t.Log("\n" + agent.Output(t, "lite", "status"))
	t.Log("\n" + c.Server().Kubectl(t, "get", "csr"))
	if !strings.Contains(nodes, agent.Name) {
		t.Errorf("%s is not among the nodes", agent.Name)
	}
}
