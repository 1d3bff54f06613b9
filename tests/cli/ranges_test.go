package cli

import (
	"errors"
	"os"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// testChangedRanges starts a node with other ranges of addresses than it was
// made with, which its pods, Services and certificates have been given
// addresses of: it is refused, and with the old ranges all is as it was.
func testChangedRanges(t *testing.T, n *cluster.Node) {
	for name, a := range map[string]attempt{
		"pods":     {args: []string{"--cluster-cidr=10.52.0.0/16"}, want: []string{"cluster-cidr", "10.52.0.0/16", "10.42.0.0/16"}},
		"services": {args: []string{"--service-cidr=10.53.0.0/16"}, want: []string{"service-cidr", "10.53.0.0/16", "10.43.0.0/16"}},
		"all at once": {args: []string{"--service-cidr=10.53.0.0/16", "--cluster-cidr=10.52.0.0/16", "--cluster-domain=Other.Test."},
			want: []string{`cluster-cidr "10.52.0.0/16" (flag --cluster-cidr), but the cluster has "10.42.0.0/16"; service-cidr "10.53.0.0/16"`, `cluster-domain "other.test"`, `"cluster.local"; set them to`}},
	} {
		t.Run(name, func(t *testing.T) { a.check(t, n) })
	}
	asOlder(t, n)
	t.Run("of an older version", func(t *testing.T) {
		attempt{args: []string{"--cluster-cidr=10.52.0.0/16"}, want: []string{"cluster-cidr", "10.52.0.0/16", "10.42.0.0/16"}}.check(t, n)
	})
	n.Start(t)
	n.Kubectl(t, "get", "configmap", "precious")
	if role := n.ReadFile(t, cluster.DataDir+"/role"); role != "server\n" {
		t.Errorf("the data directory is stamped %q", role)
	}
	if facts := n.ReadFile(t, cluster.DataDir+"/server/facts.json"); !strings.Contains(facts, `"clusterDomain": "cluster.local"`) {
		t.Errorf("the facts are remembered as %s", facts)
	}
	n.Stop(t)
}

// asOlder leaves the data directory as versions until 1.37 did: without a stamp, and of the
// facts the ranges alone.
func asOlder(t *testing.T, n *cluster.Node) {
	t.Helper()
	server := n.Path(cluster.DataDir + "/server")
	if err := errors.Join(os.Remove(n.Path(cluster.DataDir+"/role")), os.Remove(server+"/facts.json"),
		os.WriteFile(server+"/ranges.json", []byte(`{"clusterCIDR":["10.42.0.0/16"],"serviceCIDR":["10.43.0.0/16"]}`), 0o600)); err != nil {
		t.Fatal(err)
	}
}
