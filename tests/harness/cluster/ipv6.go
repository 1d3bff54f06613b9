package cluster

import (
	"strings"
	"testing"
)

// DualStack is the networks of a cluster that has addresses of both families, as its server's configuration names them.
const DualStack = "cluster-cidr: 10.42.0.0/16,fd42::/48\nservice-cidr: 10.43.0.0/16,fd43::/112\n"

// IPv6 is the address that AddIPv6 gives a node. It ends as the node's other does.
func (n *Node) IPv6() string { return "fd99::" + n.IP[strings.LastIndex(n.IP, ".")+1:] }

// AddIPv6 gives a node an address of the other family as well.
func (n *Node) AddIPv6(t *testing.T) {
	t.Helper()
	n.Output(t, "ip", "-6", "address", "add", n.IPv6()+"/64", "dev", "eth0", "nodad")
}
