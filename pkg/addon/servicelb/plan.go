package servicelb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// The reasons of events.
const (
	portConflict = "PortConflict"
	portReserved = "PortReserved"
)

// service is what matters of a Service of type LoadBalancer.
type service struct {
	key      types.NamespacedName
	uid      types.UID
	version  string // the resourceVersion
	created  time.Time
	ours     bool // by its class
	local    bool // what arrives at a node stays on it
	allowSSH bool
	families []corev1.IPFamily
	ports    []port
	// addresses are those of the status; "" for one that we would not write.
	addresses []string
}

type port struct {
	number   int32
	protocol corev1.Protocol
}

func (p port) String() string { return fmt.Sprintf("%d/%s", p.number, p.protocol) }

// node is what matters of a Node.
type node struct {
	name      string
	created   time.Time
	server    bool
	ready     bool
	chosen    bool
	excluded  bool
	addresses []netip.Addr // external ones first
	// open are those that are not confirmed as the node's yet: a Service that has them
	// keeps them, as when a server of a newer version starts.
	open []netip.Addr
}

// endpoint is the node and the IP family of an endpoint.
type endpoint struct {
	family corev1.IPFamily
	node   string
}

func reduceService(svc *corev1.Service) service {
	s := service{
		key:      types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name},
		uid:      svc.UID,
		version:  svc.ResourceVersion,
		created:  svc.CreationTimestamp.Time,
		ours:     svc.Spec.LoadBalancerClass == nil || *svc.Spec.LoadBalancerClass == layout.BalancerClass,
		local:    svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		allowSSH: svc.Annotations[layout.AllowSSHAnnotation] == "true",
		families: svc.Spec.IPFamilies,
	}
	for _, p := range svc.Spec.Ports {
		s.ports = append(s.ports, port{p.Port, p.Protocol})
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		address := in.IP
		if in.IPMode == nil || *in.IPMode != corev1.LoadBalancerIPModeVIP {
			address = ""
		}
		s.addresses = append(s.addresses, address)
	}
	return s
}

func reduceNode(of *corev1.Node) node {
	n := node{name: of.Name, created: of.CreationTimestamp.Time, chosen: of.Labels[layout.BalancerLabel] == "true" || of.Labels[layout.BalancerLabelBefore] == "true"}
	_, n.server = of.Labels[kube.ServerLabel]
	_, n.excluded = of.Labels[corev1.LabelNodeExcludeBalancers]
	for _, c := range of.Status.Conditions {
		if c.Type == corev1.NodeReady {
			n.ready = c.Status == corev1.ConditionTrue
		}
	}
	proven, decided := kube.Proven(of)
	// A cloud translates an external address into an internal one before the
	// packet arrives, so kube-proxy has to know both.
	for _, kind := range []corev1.NodeAddressType{corev1.NodeExternalIP, corev1.NodeInternalIP} {
		for _, a := range of.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if a.Type != kind || err != nil || slices.Contains(n.addresses, ip) {
				continue
			}
			if kind == corev1.NodeInternalIP && !slices.Contains(proven, ip) {
				if decided {
					continue
				}
				n.open = append(n.open, ip)
			}
			n.addresses = append(n.addresses, ip)
		}
	}
	return n
}

// plan decides which Service gets which addresses.
type plan struct {
	reserved  map[port]string // who has it, for users
	addresses kube.NodeAddresses
}

// believe leaves each node the addresses that it can have, and returns why not the others:
// kube-proxy on every node takes the packets to an address of a Service away from whoever
// has it.
func (p plan) believe(nodes []node) ([]node, []error) {
	claims := make([]kube.Claim, len(nodes))
	for i, n := range nodes {
		proven := slices.DeleteFunc(slices.Clone(n.addresses), func(a netip.Addr) bool { return slices.Contains(n.open, a) })
		claims[i] = kube.Claim{Node: n.name, Created: n.created, Server: n.server, Addresses: n.addresses, Proven: proven}
	}
	have, refused := p.addresses.Sort(claims)
	nodes = slices.Clone(nodes)
	for i, n := range nodes {
		nodes[i].addresses = have[n.name]
	}
	return nodes, refused
}

// sshPort is how people reach their machines.
var sshPort = port{22, corev1.ProtocolTCP}

// reserved is what would cut the cluster's own traffic off, or the user: packets to a
// Service's address and port never reach the program that listens there. Some listen at
// addresses of nodes only if configured to.
func reserved(apiPort int) map[port]string {
	all := map[port]string{sshPort: "the machines' SSH server (the annotation " + layout.AllowSSHAnnotation + `: "true" of the Service allows it)`}
	for _, p := range layout.Ports() {
		if p.Number == layout.APIPort {
			p.Number = apiPort
		}
		if p.Reserved {
			all[port{int32(p.Number), corev1.Protocol(strings.ToUpper(p.Protocol))}] = p.Who
		}
	}
	return all
}

// verdict is what a Service gets: addresses, or a reason why not.
type verdict struct {
	service   service
	addresses []string
	reason    string
	message   string
}

// slot is what only one Service can have.
type slot struct {
	family corev1.IPFamily
	port   port
}

// decide gives ports to Services in the order of their age. A port is one
// Service's on all nodes, also on those where it has no endpoint at the moment:
// else another would get it for the time of a rollout.
func (p plan) decide(services []service, nodes []node, endpoints map[types.NamespacedName][]endpoint) []verdict {
	services = slices.DeleteFunc(slices.Clone(services), func(s service) bool { return !s.ours })
	slices.SortFunc(services, func(a, b service) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(a.key.String(), b.key.String()))
	})
	pool := newPool(nodes)
	owners := map[slot]types.NamespacedName{}
	var verdicts []verdict
	for _, s := range services {
		v := verdict{service: s}
		if v.reason, v.message = p.obstacle(s, owners); v.reason == "" {
			for _, slot := range s.slots() {
				owners[slot] = s.key
			}
			v.addresses = pool.addresses(s, endpoints)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

func (s service) slots() (slots []slot) {
	for _, family := range s.families {
		for _, port := range s.ports {
			slots = append(slots, slot{family, port})
		}
	}
	return slots
}

// obstacle is what keeps a Service from having addresses.
func (p plan) obstacle(s service, owners map[slot]types.NamespacedName) (reason, message string) {
	for _, slot := range s.slots() {
		if who, taken := p.reserved[slot.port]; taken && (slot.port != sshPort || !s.allowSSH) {
			return portReserved, fmt.Sprintf("no address: port %s belongs to %s; use another port", slot.port, who)
		}
		if owner, taken := owners[slot]; taken {
			return portConflict, fmt.Sprintf("no address: port %s is used by Service %s, which is older; use another port, or remove that Service", slot.port, owner)
		}
	}
	return "", ""
}

// pool is the nodes whose addresses are given, in the order of their names.
type pool struct {
	nodes []node
	ready bool // some of them are
}

func newPool(nodes []node) pool {
	chosen := slices.ContainsFunc(nodes, func(n node) bool { return n.chosen })
	p := pool{}
	for _, n := range nodes {
		if n.chosen == chosen && !n.excluded {
			p.nodes = append(p.nodes, n)
			p.ready = p.ready || n.ready
		}
	}
	slices.SortFunc(p.nodes, func(a, b node) int { return strings.Compare(a.name, b.name) })
	return p
}

// addresses are those of the nodes that are ready, and have an endpoint if the
// Service's traffic stays on its node. While that is not known, and while no node
// is ready, a Service keeps what it has: an address that may answer is better
// than none. So it does while nobody knows whether the address is the node's.
func (p pool) addresses(s service, endpoints map[types.NamespacedName][]endpoint) []string {
	at, known := endpoints[s.key]
	keep := !p.ready || s.local && !known
	var addresses []string
	for _, family := range s.families {
		for _, n := range p.nodes {
			for _, a := range n.addresses {
				text := a.String()
				switch {
				case a.Is4() != (family == corev1.IPv4Protocol):
				case (keep || slices.Contains(n.open, a)) && !slices.Contains(s.addresses, text):
				case !keep && !n.ready:
				case !keep && s.local && !slices.Contains(at, endpoint{family, n.name}):
				default:
					addresses = append(addresses, text)
				}
			}
		}
	}
	return addresses
}
