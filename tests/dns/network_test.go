package dns

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"lite.io/lite/tests/harness/cluster"
)

// TestOtherNetwork has pods on a network that the user brings: there is no bridge
// of ours, and the node answers at its own address.
func TestOtherNetwork(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	serveUpstream(t, n.Network())
	n.WriteFile(t, "/etc/cni/net.d/10-theirs.conflist", `{
  "cniVersion": "1.0.0", "name": "theirs",
  "plugins": [{
    "type": "bridge", "bridge": "theirs0", "isDefaultGateway": true, "ipMasq": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}
  }]
}`)
	n.Start(t, "--disable=cni")
	ns := n.Namespace(t)
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]
`)
	ns.WaitFor(t, "condition=Ready", "pod/asks")
	from := ns.PodNetwork(t, "asks")
	for name, want := range map[string]string{"kubernetes.default.svc.cluster.local": "A 10.43.0.1", "www.outside.test": "A 192.0.2.80"} {
		for _, network := range []string{"udp", "tcp"} {
			m, err := ask(t.Context(), from, network, clusterDNS, name, dns.TypeA)
			if err != nil || answer(m, name) != want {
				t.Errorf("by %s, %s is %v, %v", network, name, m, err)
			}
		}
	}
	at := n.Kubectl(t, "get", "endpointslices", "--namespace=kube-system", "--selector=kubernetes.io/service-name=kube-dns", "-o", "jsonpath={.items[*].endpoints[*].addresses[*]}")
	if at != n.IP {
		t.Errorf("the endpoints are %s, not %s", at, n.IP)
	}
	if links := n.Output(t, "ip", "-o", "link"); strings.Contains(links, "cni0") {
		t.Errorf("there is a bridge of ours:\n%s", links)
	}
}
