package layout

import (
	"net"
	"slices"
	"strconv"
)

// The ports that nodes listen on. Those of Kubernetes' parts and of etcd are what upstream and kubeadm give them.
const (
	APIPort               = 6443 // unless --https-listen-port changes it
	BalancerPort          = 6444 // where an agent's own parts reach the API
	EtcdPort              = 2379
	EtcdPeerPort          = 2380
	EtcdMetricsPort       = 2381
	KubeletPort           = 10250
	KubeletHealthPort     = 10248
	ProxyMetricsPort      = 10249
	ProxyHealthPort       = 10256
	ControllerManagerPort = 10257
	SchedulerPort         = 10259
	MetricsPort           = 10349 // where the API server of the same process finds the metrics API
	StreamPort            = 10350 // where containerd listens for what exec, attach and port-forward carry
	RewritePort           = 10351 // where pulls from mirrors pass that rewrite names
	VXLANPort             = 8472
	WireGuardPort         = 51820

	// DNSPort is not 53, which belongs to whoever serves the machine or its network with names: a dnsmasq
	// on all addresses would take ours too. Pods ask the address of Service kube-dns, on port 53, and never
	// see it.
	DNSPort        = 10053
	DNSMetricsPort = 9153 // where the default Corefile serves metrics
)

// APIPortText is APIPort for messages that are constants.
const APIPortText = "6443"

// What Services of type NodePort are given, unless the API server is told another range.
const (
	NodePortFirst = 30000
	NodePorts     = 2768 // how many
)

// Local is a port on the loopback address, as host:port.
func Local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// The places that a part may listen at.
const (
	Everywhere = "everywhere"
	OnLoopback = "loopback"
	ForPods    = "for pods" // the node's address in the pod network
)

// Port is one that a part of a node listens on.
type Port struct {
	Number   int
	Protocol string // tcp or udp
	Who      string
	Only     string // the role of the nodes that have it, server or agent; "" = all
	At       string // Everywhere, OnLoopback or ForPods
	Backend  string // of the pod network, with which alone somebody listens; "" = any
	Asked    bool   // nobody listens unless the user asks for it
	// Moved is the option, and after a space the argument in it, by which a user moves it; "" = he cannot.
	Moved string
	// Reserved ports are not to be given to a LoadBalancer Service: packets to an address and port of one
	// never reach the program that listens there, and it would cut off what nodes need of each other.
	Reserved bool
}

// Ports is the table of all, in which the API server and the balancer in its place come first.
func Ports() []Port {
	return []Port{
		{Number: APIPort, Protocol: "tcp", Who: "the API server", Only: serverName, At: Everywhere, Moved: "https-listen-port", Reserved: true},
		{Number: BalancerPort, Protocol: "tcp", Who: "the load balancer to the API", Only: agentName, At: OnLoopback},
		{Number: EtcdPort, Protocol: "tcp", Who: "etcd", Only: serverName, At: OnLoopback, Reserved: true},
		{Number: EtcdPeerPort, Protocol: "tcp", Who: "etcd", Only: serverName, At: Everywhere, Reserved: true},
		{Number: KubeletPort, Protocol: "tcp", Who: "the kubelet", At: Everywhere, Moved: "kubelet-arg port", Reserved: true},
		{Number: KubeletHealthPort, Protocol: "tcp", Who: "the kubelet", At: OnLoopback, Moved: "kubelet-arg healthz-port"},
		{Number: ProxyMetricsPort, Protocol: "tcp", Who: "kube-proxy", At: OnLoopback, Moved: "kube-proxy-arg metrics-bind-address",
			Reserved: true},
		{Number: ProxyHealthPort, Protocol: "tcp", Who: "kube-proxy", At: Everywhere, Moved: "kube-proxy-arg healthz-bind-address",
			Reserved: true},
		{Number: ControllerManagerPort, Protocol: "tcp", Who: "the controller manager", Only: serverName, At: OnLoopback, Moved: "kube-controller-manager-arg secure-port", Reserved: true},
		{Number: SchedulerPort, Protocol: "tcp", Who: "the scheduler", Only: serverName, At: OnLoopback, Moved: "kube-scheduler-arg secure-port", Reserved: true},
		{Number: MetricsPort, Protocol: "tcp", Who: "the metrics API", Only: serverName, At: OnLoopback},
		// Fixed, and not any that is free, so that pods can be kept from them: what has one as its hostPort
		// gets what is sent there, which was all that somebody types into a pod of another's.
		{Number: StreamPort, Protocol: "tcp", Who: "containerd", At: OnLoopback},
		{Number: RewritePort, Protocol: "tcp", Who: "containerd", At: OnLoopback},
		{Number: EtcdMetricsPort, Protocol: "tcp", Who: "etcd's metrics", Only: serverName, At: Everywhere, Asked: true, Reserved: true},
		{Number: VXLANPort, Protocol: "udp", Who: "the pod network", At: Everywhere, Backend: "vxlan", Reserved: true},
		{Number: WireGuardPort, Protocol: "udp", Who: "the pod network", At: Everywhere, Backend: "wireguard-native", Reserved: true},
		{Number: DNSPort, Protocol: "tcp", Who: "DNS", At: ForPods},
		{Number: DNSPort, Protocol: "udp", Who: "DNS", At: ForPods},
		{Number: DNSMetricsPort, Protocol: "tcp", Who: "DNS", At: ForPods},
	}
}

// OverlayPort is the UDP port by which a backend carries packets between nodes; 0 if it has none.
func OverlayPort(backend string) int {
	all := Ports()
	i := slices.IndexFunc(all, func(p Port) bool { return p.Backend != "" && p.Backend == backend })
	if i < 0 {
		return 0
	}
	return all[i].Number
}
