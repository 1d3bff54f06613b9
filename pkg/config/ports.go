package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// kubeletPort is where the API server reaches the kubelet of every node.
const kubeletPort = 10250

// etcdMetricsPort is where etcd's metrics are, if anywhere. It is etcd.MetricsPort.
const etcdMetricsPort = 2381

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
	moved  string // the option and the argument by which a user moves it
}{
	{2379, "etcd", Server, true, "", ""},
	{2380, "etcd", Server, true, "", ""},
	{kubeletPort, "the kubelet", "", false, "", "kubelet-arg port"},
	{10248, "the kubelet", "", true, "", "kubelet-arg healthz-port"},
	{10249, "kube-proxy", "", true, "kube-proxy", "kube-proxy-arg metrics-bind-address"},
	{10256, "kube-proxy", "", false, "kube-proxy", "kube-proxy-arg healthz-bind-address"},
	{10257, "the controller manager", Server, true, "", "kube-controller-manager-arg secure-port"},
	{10259, "the scheduler", Server, true, "", "kube-scheduler-arg secure-port"},
	{10349, "the metrics API", Server, true, "metrics", ""},
	{10350, "containerd", "", true, "", ""},
	{10351, "containerd", "", true, "", ""},
}

// podPorts is where DNS answers pods, on the node's address for them. It is
// dns.Port and dns.MetricsPort.
var podPorts = []int{10053, 9153}

// balancerPort is where an agent's own parts reach the API.
const balancerPort = 6444

// Ports returns what the node listens on, whatever is in it of pods. Backend and
// disable are the cluster's, which an agent learns when it joins.
func (c *Config) Ports(backend string, disable []string) []Port {
	loopback, all := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv4Unspecified()
	var ports []Port
	if c.Role == Server {
		ports = append(ports, Port{c.HTTPSListenPort, "tcp", c.BindAddress, "the API server"})
	} else {
		ports = append(ports, Port{balancerPort, "tcp", loopback, "the load balancer to the API"})
	}
	for _, p := range otherPorts {
		if p.role != "" && p.role != c.Role || slices.Contains(disable, p.part) {
			continue
		}
		address := all
		if p.local {
			address = loopback
		}
		ports = append(ports, Port{c.moved(p.moved, p.number), "tcp", address, p.who})
	}
	if c.EtcdExposeMetrics {
		for _, a := range append([]netip.Addr{loopback}, c.NodeIP...) {
			ports = append(ports, Port{etcdMetricsPort, "tcp", a, "etcd's metrics"})
		}
	}
	if number := OverlayPort(backend); number > 0 && !slices.Contains(disable, "cni") {
		ports = append(ports, Port{number, "udp", all, "the pod network"})
	}
	return ports
}

// moved is the port of a part, which a user may have moved by an argument: a number,
// or an address that ends in one.
func (c *Config) moved(by string, port int) int {
	key, flag, _ := strings.Cut(by, " ")
	_, text := c.said(key, flag)
	if n, err := strconv.Atoi(text[strings.LastIndexByte(text, ':')+1:]); err == nil && n > 0 {
		return n
	}
	return port
}

// said is the last argument of a flag of a component that the user says, and its
// value.
func (c *Config) said(key, flag string) (argument, value string) {
	if all := c.arguments(key, flag); len(all) > 0 {
		argument = all[len(all)-1]
		_, value, _ = strings.Cut(argument, "=")
	}
	return argument, value
}

// arguments is all of a flag of a component that the user says.
func (c *Config) arguments(key, flag string) (all []string) {
	o, _ := lookup(key)
	if o.get == nil {
		return nil
	}
	for _, v := range o.get(c) {
		arg := fmt.Sprint(v)
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.ReplaceAll(name, "_", "-") == flag {
			all = append(all, arg)
		}
	}
	return all
}

// OverlayPort is the UDP port by which a backend carries packets between nodes; 0
// if it has none.
func OverlayPort(backend string) int {
	return map[string]int{"vxlan": 8472, "wireguard-native": 51820}[backend]
}

// nodePorts is what Services are given ports of, unless the API server is told
// another range.
var nodePorts = utilnet.PortRange{Base: 30000, Size: 2768}

// validatePort keeps the API server off the ports of all others, and Services off
// those of all nodes. One that is taken on another address only is refused too:
// nobody should have to know, and a NodePort may be one of every address.
func (c *Config) validatePort(wrong func(key string, value any, problem, remedy string)) {
	if c.HTTPSListenPort == 0 {
		return // parse says what is wrong
	}
	services := nodePorts
	argument, text := c.said("kube-apiserver-arg", "service-node-port-range")
	if argument != "" && services.Set(text) != nil {
		return // kube-apiserver says what is wrong with it
	}
	if services.Size == 0 {
		services = nodePorts
	}
	const key = "https-listen-port"
	others := c.others()
	remedy := fmt.Sprintf("use another port, like %d", freePort(others, services))
	for _, other := range others {
		// The balancer is on agents, where there is no API server.
		if other.Number == c.HTTPSListenPort && other.Protocol == "tcp" && other.Number != balancerPort {
			wrong(key, c.HTTPSListenPort, "is a port that "+other.Who+" listens on", remedy)
			break
		}
	}
	// Who has moved one of the two is told of that.
	if services.Contains(c.HTTPSListenPort) && (argument == "" || c.sources[key] != "default") {
		wrong(key, c.HTTPSListenPort, fmt.Sprintf("is one of the ports %s, which a Service may be given", services), remedy)
	} else {
		others = append(others, Port{Number: c.HTTPSListenPort, Who: "the API server"})
	}
	if argument != "" {
		c.validateNodePorts(argument, services, others, wrong)
	}
}

// validateMoved keeps parts that a user has moved off the ports of others. One of the two
// could not listen, and lite would wait for it, or end when it has begun.
func (c *Config) validateMoved(wrong func(key string, value any, problem, remedy string)) {
	ports := c.Ports(c.FlannelBackend, c.Disable)
	for _, p := range otherPorts {
		key, flag, _ := strings.Cut(p.moved, " ")
		argument, _ := c.said(key, flag)
		number := c.moved(p.moved, p.number)
		if argument == "" || number == p.number {
			continue
		}
		var there []string
		for _, port := range ports {
			if port.Number == number && port.Protocol == "tcp" {
				there = append(there, port.Who)
			}
		}
		if len(there) > 1 {
			other := there[0]
			if other == p.who {
				other = there[1]
			}
			wrong(key, argument, "is a port that "+other+" listens on", "use another port")
		}
	}
}

// others is what any node of the cluster listens on besides the API server.
func (c *Config) others() []Port {
	server, agent := *c, *c
	server.Role, agent.Role = Server, Agent
	ports := append(server.Ports(c.FlannelBackend, c.Disable)[1:], agent.Ports("none", c.Disable)...)
	if !slices.Contains(c.Disable, "dns") {
		for _, number := range podPorts {
			ports = append(ports, Port{Number: number, Protocol: "tcp", Who: "DNS"})
		}
	}
	return ports
}

// freePort is one for the API server that nobody has.
func freePort(others []Port, services utilnet.PortRange) int {
	for port := 6443; ; port++ {
		taken := func(p Port) bool { return p.Number == port }
		if port == 65535 || !services.Contains(port) && !slices.ContainsFunc(others, taken) {
			return port
		}
	}
}

// validateNodePorts wants no Service to be given a port that a node listens on: who
// asks for one would get the other.
func (c *Config) validateNodePorts(argument string, services utilnet.PortRange, others []Port, wrong func(key string, value any, problem, remedy string)) {
	slices.SortFunc(others, func(a, b Port) int { return cmp.Compare(a.Number, b.Number) })
	others = slices.CompactFunc(others, func(a, b Port) bool { return a.Number == b.Number })
	others = slices.DeleteFunc(others, func(p Port) bool { return !services.Contains(p.Number) })
	if len(others) == 0 {
		return
	}
	var held []string
	largest, from := nodePorts, services.Base
	size := 0
	for _, p := range append(others, Port{Number: services.Base + services.Size}) {
		if p.Who != "" {
			held = append(held, fmt.Sprintf("%d (%s)", p.Number, p.Who))
		}
		if p.Number-from > size {
			size = p.Number - from
			largest = utilnet.PortRange{Base: from, Size: size}
		}
		from = p.Number + 1
	}
	wrong("kube-apiserver-arg", argument, "gives Services ports that nodes listen on: "+strings.Join(held, ", "), "use a range without them, like "+largest.String())
}
