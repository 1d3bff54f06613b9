package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Local is what the other nodes must know of this one. Nothing in it is secret.
type Local struct {
	Backend   string     `json:"backend"`
	IP        netip.Addr `json:"ip"`
	MAC       string     `json:"mac,omitempty"`       // VXLAN
	PublicKey string     `json:"publicKey,omitempty"` // WireGuard
	Port      int        `json:"port,omitempty"`
}

// Peer is another node, as it describes itself, and its ranges of pod addresses.
type Peer struct {
	Node    string
	Created time.Time // when the Node was made
	Local
	Pods []netip.Prefix
}

// accept returns the peers that can be used, and why not the others. What a node
// claims about itself comes from another machine and is not trusted blindly. Of two
// that claim the same hardware address, whose own it is has it; of two that claim the
// same otherwise, the older Node: who joins chooses a name, and not the time.
func (o *Overlay) accept(peers []Peer) ([]Peer, []error) {
	peers = slices.SortedFunc(slices.Values(peers), func(a, b Peer) int {
		return cmp.Or(cmp.Compare(a.borrowed(), b.borrowed()), a.Created.Compare(b.Created), cmp.Compare(a.Node, b.Node))
	})
	var accepted []Peer
	var errs []error
	for _, p := range peers {
		err := o.refuse(p)
		if err == nil {
			err = clash(p, accepted)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", p.Node, err))
			continue
		}
		accepted = append(accepted, p)
	}
	return accepted, errs
}

// borrowed is 1 for a hardware address that does not follow from the peer's
// range, which the cluster has given it, and 0 for one that does.
func (p Peer) borrowed() int {
	if len(p.Pods) > 0 && p.MAC == hardwareAddr(p.IP, p.Pods[0]).String() {
		return 0
	}
	return 1
}

// refuse returns why a peer cannot be used.
func (o *Overlay) refuse(p Peer) error {
	switch {
	case p.Backend == "":
		return errors.New("does not publish yet how to reach its pods")
	case p.Backend != o.config.Backend:
		return fmt.Errorf("has the backend %.40q, this node has %q: give all nodes the same --flannel-backend", p.Backend, o.config.Backend)
	case !p.IP.Is4() || !p.IP.IsGlobalUnicast() && !p.IP.IsLinkLocalUnicast():
		return fmt.Errorf("has %.40q as its address, which is not that of an IPv4 host", p.IP)
	case p.IP == o.outer.IP:
		return fmt.Errorf("has the same address %s as this node", p.IP)
	case o.config.inCluster(netip.PrefixFrom(p.IP, p.IP.BitLen())):
		return fmt.Errorf("has the address %s, which is in the range of pods", p.IP)
	case len(p.Pods) == 0:
		return errors.New("has no pod CIDR yet")
	}
	for _, pods := range p.Pods {
		switch {
		case !pods.IsValid() || pods != pods.Masked():
			return fmt.Errorf("has the pod CIDR %q, which is not a network", pods)
		case !slices.ContainsFunc(o.config.ranges(), func(own netip.Prefix) bool { return own.Addr().Is4() == pods.Addr().Is4() }):
			return fmt.Errorf("has the pod CIDR %s, of an IP family that this node's pods do not have", pods)
		case slices.ContainsFunc(o.config.ranges(), pods.Overlaps):
			return fmt.Errorf("has the pod CIDR %s, which overlaps this node's %s", pods, join(o.config.ranges()))
		case !o.config.inCluster(pods):
			return fmt.Errorf("has the pod CIDR %s, which is outside of --cluster-cidr %s", pods, join(o.config.Cluster))
		}
	}
	return o.backend.refuse(o.outer, p)
}

// clash reports what a peer claims that another one has.
func clash(p Peer, others []Peer) error {
	for _, other := range others {
		switch {
		case p.Node == other.Node:
			return errors.New("is listed twice")
		case p.MAC != "" && p.MAC == other.MAC:
			return fmt.Errorf("has the same hardware address %s as node %s", p.MAC, other.Node)
		case p.PublicKey != "" && p.PublicKey == other.PublicKey:
			return fmt.Errorf("has the same WireGuard key as node %s: remove the key file on one of them and start it again", other.Node)
		}
		for _, mine := range p.Pods {
			for _, theirs := range other.Pods {
				if mine.Overlaps(theirs) {
					return fmt.Errorf("has the pod CIDR %s, which overlaps %s of node %s", mine, theirs, other.Node)
				}
			}
		}
	}
	return nil
}
