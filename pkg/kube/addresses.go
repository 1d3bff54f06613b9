package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lite.io/lite/pkg/layout"
)

// NodeAddresses judges the addresses at which Nodes say that they are. A node
// writes them itself, so they are claims: whoever obeys them all lets one node take
// what arrives for a Service, for the API or for another node.
type NodeAddresses struct {
	Pods, Services []netip.Prefix
	API            []netip.Addr // where API servers are reached; servers may have these
	Own            string       // the Node of this server, whose role may not be on it yet
	// Within, if not empty, is the ranges that all must be in.
	Within []netip.Prefix
}

// ServerLabel is on the nodes of servers. kubectl shows it under ROLES, and no node may
// give it to itself (the admission plugin NodeRestriction).
const ServerLabel = "node-role.kubernetes.io/control-plane"

// APINames is what the API server on a Node is called by its user, besides the Node's own name and
// addresses; nothing for the Node of an agent.
func APINames(n *corev1.Node) []string {
	text := n.Annotations[layout.APINamesAnnotation]
	if _, server := n.Labels[ServerLabel]; !server || text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// Claim is what a Node says of itself.
type Claim struct {
	Node      string
	Created   time.Time
	Server    bool // by ServerLabel
	Addresses []netip.Addr
	Proven    []netip.Addr // of the Addresses, those that are known to be the node's own
}

// Proven is which of the addresses that a Node reports are known to be its own; decided
// is false while no server has found out. Others are a claim. External addresses need no
// proof: no node may give itself one (the policy nodes.lite.io).
func Proven(n *corev1.Node) (addresses []netip.Addr, decided bool) {
	text, decided := n.Annotations[layout.ProvenAnnotation]
	for part := range strings.SplitSeq(text, ",") {
		if a, err := netip.ParseAddr(strings.TrimSpace(part)); err == nil {
			addresses = append(addresses, a)
		}
	}
	return addresses, decided
}

// Check says why an address is not one that a node can have.
func (a NodeAddresses) Check(ip netip.Addr, server bool) error {
	within := func(p netip.Prefix) bool { return p.Contains(ip) }
	switch {
	case !ip.IsValid() || ip.Is4In6() || ip.Zone() != "" || !ip.IsGlobalUnicast() || ip == broadcast:
		return fmt.Errorf("%.60s cannot be the address of a host", ip) // a zone may have any length
	case len(a.Within) > 0 && !slices.ContainsFunc(a.Within, within):
		return fmt.Errorf("%s is not in %v", ip, a.Within)
	case slices.ContainsFunc(a.Services, within):
		return fmt.Errorf("%s is an address of Services", ip)
	case slices.ContainsFunc(a.Pods, within):
		return fmt.Errorf("%s is an address of pods", ip)
	case !server && slices.Contains(a.API, ip):
		return fmt.Errorf("%s is an address of the API server", ip)
	}
	return nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Sort gives each node those of its addresses that it can have, and says why not
// the others. Of two nodes that claim one address, the one has it that has proven it: the
// other may stay not ready for as long as it likes, so that nobody finds out. Otherwise the
// older has it.
func (a NodeAddresses) Sort(claims []Claim) (have map[string][]netip.Addr, refused []error) {
	claims = slices.SortedFunc(slices.Values(claims), func(x, y Claim) int {
		return cmp.Or(x.Created.Compare(y.Created), strings.Compare(x.Node, y.Node))
	})
	have = map[string][]netip.Addr{}
	type owner struct{ node, why string }
	owners := map[netip.Addr]owner{}
	for _, c := range claims {
		for _, ip := range c.Proven {
			if _, taken := owners[ip]; !taken && slices.Contains(c.Addresses, ip) && a.Check(ip, a.server(c)) == nil {
				owners[ip] = owner{c.Node, "which has proven it"}
			}
		}
	}
	for _, c := range claims {
		for _, ip := range c.Addresses {
			if slices.Contains(have[c.Node], ip) {
				continue
			}
			err := a.Check(ip, a.server(c))
			if o, taken := owners[ip]; err == nil && taken && o.node != c.Node {
				err = fmt.Errorf("%s is an address of node %s, %s", ip, o.node, o.why)
			}
			if err != nil {
				refused = append(refused, fmt.Errorf("node %s: %w", c.Node, err))
				continue
			}
			if _, taken := owners[ip]; !taken {
				owners[ip] = owner{c.Node, "which is older"}
			}
			have[c.Node] = append(have[c.Node], ip)
		}
	}
	return have, refused
}

func (a NodeAddresses) server(c Claim) bool { return c.Server || c.Node == a.Own }
