package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"lite.io/lite/pkg/host/probe"
)

// Iface is the interface that leads to other nodes.
type Iface struct {
	Name  string
	Index int
	MTU   int
	IP    netip.Addr // what tunnels come from and go to
	Why   string     // it was chosen, for the log

	networks []netip.Prefix // that it is connected to
}

// Interface finds the interface that leads to other nodes: the named one, or the one that
// has the node's address. It never guesses: if that is missing or ambiguous, the error
// lists the interfaces.
func Interface(nodeIP netip.Addr, named string) (Iface, error) {
	kernel, err := open()
	if err != nil {
		return Iface{}, err
	}
	defer kernel.Close()
	return findInterface(kernel, nodeIP, named)
}

func findInterface(kernel *netlink.Handle, nodeIP netip.Addr, named string) (Iface, error) {
	all, err := candidates(kernel)
	if err != nil {
		return Iface{}, err
	}
	if named != "" {
		return namedInterface(kernel, all, nodeIP, named)
	}
	var holders []candidate
	for _, c := range all {
		if c.has(nodeIP) {
			holders = append(holders, c)
		}
	}
	switch len(holders) {
	case 0:
		return Iface{}, fmt.Errorf("no interface has the node's address %s: choose another with --node-ip, or an interface with --flannel-iface; there are %s", nodeIP, list(all))
	case 1:
	default:
		return Iface{}, fmt.Errorf("several interfaces have the node's address %s: choose one with --flannel-iface; there are %s", nodeIP, list(holders))
	}
	c := holders[0]
	if c.flags&net.FlagLoopback != 0 {
		return Iface{}, fmt.Errorf("the node's address %s is on %s, which leads to no other node: choose an interface with --flannel-iface; there are %s", nodeIP, c.name, list(all))
	}
	return c.iface(nodeIP, "it has the node's address "+nodeIP.String())
}

func namedInterface(kernel *netlink.Handle, all []candidate, nodeIP netip.Addr, named string) (Iface, error) {
	i := slices.IndexFunc(all, func(c candidate) bool { return c.name == named })
	if i < 0 {
		link, err := find(kernel, named)
		switch {
		case err != nil:
			return Iface{}, err
		case link == nil:
			return Iface{}, fmt.Errorf("interface %s (--flannel-iface) does not exist; there are %s", named, list(all))
		}
		return Iface{}, fmt.Errorf("interface %s (--flannel-iface) has no IPv4 address; there are %s", named, list(all))
	}
	c := all[i]
	if c.has(nodeIP) {
		return c.iface(nodeIP, "--flannel-iface names it, and it has the node's address "+nodeIP.String())
	}
	first := c.networks[0].Addr()
	return c.iface(first, fmt.Sprintf("--flannel-iface names it; %s is its first address", first))
}

// candidate is an interface that has IPv4 addresses.
type candidate struct {
	name     string
	index    int
	mtu      int
	flags    net.Flags
	networks []netip.Prefix // not masked
}

// candidates starts from the addresses and not from the links, because each pod has one.
func candidates(kernel *netlink.Handle) ([]candidate, error) {
	addrs, err := probe.Dump(func() ([]netlink.Addr, error) { return kernel.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list the machine's addresses: %w", err)
	}
	var all []candidate
	for _, a := range addrs {
		i := slices.IndexFunc(all, func(c candidate) bool { return c.index == a.LinkIndex })
		if i < 0 {
			link, err := kernel.LinkByIndex(a.LinkIndex)
			if errors.As(err, &netlink.LinkNotFoundError{}) {
				continue // gone since
			}
			if err != nil {
				return nil, fmt.Errorf("inspect interface %d: %w", a.LinkIndex, err)
			}
			at := link.Attrs()
			all = append(all, candidate{name: at.Name, index: at.Index, mtu: at.MTU, flags: at.Flags})
			i = len(all) - 1
		}
		all[i].networks = append(all[i].networks, prefixOf(a.IPNet))
	}
	return all, nil
}

func (c candidate) has(ip netip.Addr) bool {
	return slices.ContainsFunc(c.networks, func(p netip.Prefix) bool { return p.Addr() == ip })
}

func (c candidate) iface(ip netip.Addr, why string) (Iface, error) {
	if c.flags&net.FlagUp == 0 {
		return Iface{}, fmt.Errorf("interface %s with address %s is down: bring it up with `ip link set %s up`", c.name, ip, c.name)
	}
	return Iface{Name: c.name, Index: c.index, MTU: c.mtu, IP: ip, Why: why, networks: c.networks}, nil
}

func list(all []candidate) string {
	var texts []string
	for _, c := range all {
		text := c.name + " " + join(c.networks)
		if c.flags&net.FlagUp == 0 {
			text += " (down)"
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return "none with an IPv4 address"
	}
	return strings.Join(texts, "; ")
}

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// prefixOf keeps the bits behind the mask.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
