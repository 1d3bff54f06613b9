package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/layout"
)

// Port is one that a node listens on.
type Port struct {
	Number   int
	Protocol string     // tcp or udp
	Address  netip.Addr // the unspecified one = all
	Who      string     // a part of the node
}

// Ports returns what the node listens on, whatever is in it of pods. Backend and
// disable are the cluster's, which an agent learns when it joins.
func (c *Config) Ports(backend string, disable addon.Disabled) []Port {
	loopback, all := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv4Unspecified()
	var ports []Port
	for _, p := range layout.Ports() {
		port := Port{c.moved(p.Moved, p.Number), p.Protocol, all, p.Who}
		switch {
		case strings.HasPrefix(p.Who, "etcd") && c.DatastoreEndpoint != "": // nobody listens there
		case p.Only != "" && Role(p.Only) != c.Role, disable.Frees(p.Number), p.Backend != "" && p.Backend != backend, p.At == layout.ForPods:
		case p.Number == layout.APIPort:
			ports = append(ports, Port{c.HTTPSListenPort, p.Protocol, c.BindAddress, p.Who})
		case p.Number == layout.EtcdMetricsPort:
			for _, a := range c.etcdMetrics() {
				ports = append(ports, Port{p.Number, p.Protocol, a, p.Who})
			}
		case p.At == layout.OnLoopback:
			port.Address = loopback
			ports = append(ports, port)
		default:
			ports = append(ports, port)
		}
	}
	return ports
}

// etcdMetrics is where etcd serves its metrics, if anywhere.
func (c *Config) etcdMetrics() []netip.Addr {
	if !c.EtcdExposeMetrics {
		return nil
	}
	return append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, c.NodeIP...)
}

// moved is the port of a component, which a user may have changed by an argument: a number,
// or an address that ends in one.
func (c *Config) moved(by string, port int) int {
	key, flag, _ := strings.Cut(by, " ")
	_, text := c.argument(key, flag)
	if n, err := strconv.Atoi(text[strings.LastIndexByte(text, ':')+1:]); err == nil && n > 0 {
		return n
	}
	return port
}

// argument is the last argument that the user passes for a flag of a component, and
// its value.
func (c *Config) argument(key, flag string) (argument, value string) {
	if all := c.arguments(key, flag); len(all) > 0 {
		argument = all[len(all)-1]
		_, value, _ = strings.Cut(argument, "=")
	}
	return argument, value
}

// arguments is all arguments that the user passes for a flag of a component.
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

// nodePorts is the range of Services' ports, unless the API server has another one
// configured.
var nodePorts = utilnet.PortRange{Base: layout.NodePortFirst, Size: layout.NodePorts}

// validatePort keeps the API server off the ports of all others, and Services off
// those of all nodes. One that is taken on another address only is refused too:
// nobody should have to know, and a NodePort may be one of every address.
func (c *Config) validatePort(wrong func(key string, value any, problem, remedy string)) {
	if c.HTTPSListenPort == 0 {
		return // parse reports the mistake
	}
	services := nodePorts
	argument, text := c.argument("kube-apiserver-arg", "service-node-port-range")
	if argument != "" && services.Set(text) != nil {
		return // kube-apiserver reports the mistake
	}
	if services.Size == 0 {
		services = nodePorts
	}
	const key = "https-listen-port"
	others := c.others()
	remedy := fmt.Sprintf("use another port, like %d", freePort(others, services))
	for _, other := range others {
		// The balancer is on agents, where there is no API server.
		if other.Number == c.HTTPSListenPort && other.Protocol == "tcp" && other.Number != layout.BalancerPort {
			wrong(key, c.HTTPSListenPort, "is a port that "+other.Who+" listens on", remedy)
			break
		}
	}
	// The error is about the one of the two that was changed.
	if services.Contains(c.HTTPSListenPort) && (argument == "" || c.sources[key] != "default") {
		wrong(key, c.HTTPSListenPort, fmt.Sprintf("is in the range %s, from which Services get their node ports", services), remedy)
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
	ports := c.Ports(c.cluster.Backend, c.cluster.Disable)
	for _, p := range layout.Ports() {
		key, flag, ofPart := strings.Cut(p.Moved, " ")
		argument, _ := c.argument(key, flag)
		number := c.moved(p.Moved, p.Number)
		if !ofPart || argument == "" || number == p.Number {
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
			if other == p.Who {
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
	ports := append(server.Ports(c.cluster.Backend, c.cluster.Disable)[1:], agent.Ports("none", c.cluster.Disable)...)
	for _, p := range layout.Ports() {
		if p.At == layout.ForPods && p.Protocol == "tcp" && !c.cluster.Disable.Frees(p.Number) {
			ports = append(ports, Port{Number: p.Number, Protocol: p.Protocol, Who: p.Who})
		}
	}
	return ports
}

// freePort is one for the API server that nobody has.
func freePort(others []Port, services utilnet.PortRange) int {
	for port := layout.APIPort; ; port++ {
		taken := func(p Port) bool { return p.Number == port }
		if port == 65535 || !services.Contains(port) && !slices.ContainsFunc(others, taken) {
			return port
		}
	}
}

// validateNodePorts requires that no Service gets a port that a node listens on, because
// clients of one would reach the other.
func (c *Config) validateNodePorts(argument string, services utilnet.PortRange, others []Port,
	wrong func(key string, value any, problem, remedy string)) {
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
