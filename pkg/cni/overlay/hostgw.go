package overlay

import (
	"fmt"
	"net/netip"
	"slices"
)

// hostGW needs no device: the nodes are each other's routers.
type hostGW struct{}

func (hostGW) device() string               { return "" }
func (hostGW) overhead() int                { return 0 }
func (hostGW) check(Iface) error            { return nil }
func (hostGW) set(int, []Peer) error        { return nil }
func (hostGW) close()                       {}
func (hostGW) setup(o Iface) (Local, error) { return Local{Backend: HostGW, IP: o.IP}, nil }

func (hostGW) hop(link int, p Peer, _ netip.Prefix) hop { return hop{link: link, via: p.IP} }

func (hostGW) refuse(outer Iface, p Peer) error {
	if !slices.ContainsFunc(outer.networks, func(n netip.Prefix) bool { return n.Contains(p.IP) }) {
		return fmt.Errorf("has the address %s, which is on no network of %s (%s): %s needs all nodes on one network, use --flannel-backend=%s",
			p.IP, outer.Name, join(outer.networks), HostGW, VXLAN)
	}
	return nil
}
