package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// ndp is the neighbors of an IPv6 address. The kernel itself asks whether somebody has it, when
// it gets it.
type ndp struct {
	*icmp.PacketConn
	ip   netip.Addr
	link netlink.Link
}

func newNDP(ip netip.Addr, link netlink.Link) (*ndp, error) {
	c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("open a socket for NDP: %w", err)
	}
	device, err := net.InterfaceByIndex(link.Attrs().Index)
	if err == nil {
		// What came through a router is not believed.
		err = errors.Join(c.IPv6PacketConn().SetMulticastHopLimit(255), c.IPv6PacketConn().SetMulticastInterface(device),
			c.IPv6PacketConn().SetICMPFilter(blockAll()))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for NDP on %s: %w", link.Attrs().Name, err), c.Close())
	}
	return &ndp{c, ip, link}, nil
}

// blockAll lets the kernel keep what nobody reads.
func blockAll() *ipv6.ICMPFilter {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	return &f
}

// probe implements neighbors. It is announce that waits for the kernel's answer: there is none
// before it has the address.
func (*ndp) probe(context.Context) error { return nil }

// announce implements neighbors.
func (n *ndp) announce(ctx context.Context) error {
	for {
		state, there, err := n.state()
		switch {
		case err != nil:
			return err
		case !there || state&unix.IFA_F_DADFAILED != 0: // the kernel takes away what has an end (6.18)
			return fmt.Errorf("%s is in use, by another machine on %s; set cluster-vip to an unused address, or take it away from there", n.ip, n.link.Attrs().Name)
		case state&unix.IFA_F_TENTATIVE == 0:
			return n.advertise()
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return nil
		}
	}
}

// state is the kernel's flags of the address, if it is there.
func (n *ndp) state() (flags int, there bool, err error) {
	all, err := netlink.AddrList(n.link, netlink.FAMILY_V6)
	if err != nil {
		return 0, false, fmt.Errorf("list addresses: %w", err)
	}
	for _, have := range all {
		if ip, _ := netip.AddrFromSlice(have.IP); ip == n.ip {
			return have.Flags, true, nil
		}
	}
	return 0, false, nil
}

// advertise tells all nodes who has the address, unasked (RFC 4861).
func (n *ndp) advertise() error {
	const override, targetLinkLayer = 0x20, 2
	target := n.ip.As16()
	body := append([]byte{override, 0, 0, 0}, target[:]...)
	if mac := n.link.Attrs().HardwareAddr; len(mac) == 6 {
		body = append(append(body, targetLinkLayer, 1), mac...)
	}
	m := icmp.Message{Type: ipv6.ICMPTypeNeighborAdvertisement, Body: &icmp.RawBody{Data: body}}
	packet, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = n.WriteTo(packet, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: n.link.Attrs().Name})
	return err
}
