package badstart

import (
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestChangedRanges starts a node with other ranges of addresses than it was
// made with, which its pods, Services and certificates have been given
// addresses of: it is refused, and with the old ranges all is as it was.
func TestChangedRanges(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.Start(t)
	n.Kubectl(t, "create", "configmap", "precious")
	n.Stop(t)
	for name, a := range map[string]attempt{
		"pods":     {args: []string{"--cluster-cidr=10.52.0.0/16"}, want: []string{"cluster-cidr", "10.52.0.0/16", "10.42.0.0/16"}},
		"services": {args: []string{"--service-cidr=10.53.0.0/16"}, want: []string{"service-cidr", "10.53.0.0/16", "10.43.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) { a.check(t, n) })
	}
	n.Start(t)
	n.Kubectl(t, "get", "configmap", "precious")
	n.Stop(t)
}
