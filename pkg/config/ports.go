package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// kubeletPort is where the API server reaches the kubelet of every node.
const kubeletPort = 10250

// Port is one that a node listens on.
type Port struct {
	Number   int
	Protocol string     // tcp or udp
	Address  netip.Addr // the unspecified one = all
	Who      string     // a part of the node
}

// otherPorts is who listens on which TCP port of a server besides the API
// server, on all addresses or on loopback.
var otherPorts = []struct {
	number int
	who    string
	role   Role   // "" = every node
	local  bool   // on 127.0.0.1 only
	part   string // of Batteries, without which nobody listens
}{
	{2379, "etcd", Server, true, ""},
	{2380, "etcd", Server, true, ""},
	{kubeletPort, "the kubelet", "", false, ""},
	{10248, "the kubelet", "", true, ""},
	{10249, "kube-proxy", "", true, "kube-proxy"},
	{10256, "kube-proxy", "", false, "kube-proxy"},
	{10257, "the controller manager", Server, true, ""},
	{10259, "the scheduler", Server, true, ""},
	{10349, "the metrics API", Server, true, "metrics"},
}

// Ports returns what the node listens on, whatever is in it of pods. Backend and
// disable are the cluster's, which an agent learns when it joins.
func (c *Config) Ports(backend string, disable []string) []Port {
	loopback, all := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv4Unspecified()
	var ports []Port
	if c.Role == Server {
		ports = append(ports, Port{c.HTTPSListenPort, "tcp", c.BindAddress, "the API server"})
	} else {
		ports = append(ports, Port{6444, "tcp", loopback, "the load balancer to the API"})
	}
	for _, p := range otherPorts {
		if p.role != "" && p.role != c.Role || slices.Contains(disable, p.part) {
			continue
		}
		address := all
		if p.local {
			address = loopback
		}
		ports = append(ports, Port{p.number, "tcp", address, p.who})
	}
	if number := OverlayPort(backend); number > 0 && !slices.Contains(disable, "cni") {
		ports = append(ports, Port{number, "udp", all, "the pod network"})
	}
	return ports
}

// OverlayPort is the UDP port by which a backend carries packets between nodes; 0
// if it has none.
func OverlayPort(backend string) int {
	return map[string]int{"vxlan": 8472, "wireguard-native": 51820}[backend]
}

// nodePorts is what Services are given ports of, unless the API server is told
// another range.
var nodePorts = utilnet.PortRange{Base: 30000, Size: 2768}

// validatePort keeps the API server off the ports of all others. One that is
// taken on another address only is refused too: nobody should have to know.
func (c *Config) validatePort(wrong func(key string, value any, problem, remedy string)) {
	const key, remedy = "https-listen-port", "use another port, like 6443"
	for _, other := range otherPorts {
		if other.number == c.HTTPSListenPort {
			wrong(key, c.HTTPSListenPort, "is a port that "+other.who+" listens on", remedy)
		}
	}
	services := nodePorts
	for _, arg := range c.APIServerArgs {
		if text, ok := strings.CutPrefix(arg, "service-node-port-range="); ok {
			_ = services.Set(text) // kube-apiserver says what is wrong with it
		}
	}
	if services.Contains(c.HTTPSListenPort) {
		wrong(key, c.HTTPSListenPort, fmt.Sprintf("is one of the ports %s, which a Service may be given", services), remedy)
	}
}
