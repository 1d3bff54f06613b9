// Package servers has clusters of several servers.
package servers

import (
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestThree grows a cluster from one server to three.
func TestThree(t *testing.T) {
	c := cluster.New(t, cluster.Servers(3))
	for _, s := range c.Servers {
		out := s.Kubectl(t, "get", "nodes", "--no-headers")
		if n := strings.Count(out, " Ready "); n != 3 {
			t.Errorf("%s knows %d nodes that are ready:\n%s", s.Name, n, out)
		}
		t.Log(s.Kubectl(t, "get", "--raw", "/lite/v1/members"))
		t.Log(s.Kubectl(t, "get", "endpointslices", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses}"))
	}
}
