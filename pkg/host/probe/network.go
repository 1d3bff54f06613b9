package probe

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// Networks is what the machine is connected to.
type Networks struct {
	Interfaces []Interface
	// Routes are those of lowest metric first, without lite's own to other nodes' pods.
	Routes []Route
}

// Interface is one of the network.
type Interface struct {
	Name  string
	Flags net.Flags
	MTU   int
	Addrs []netip.Prefix // with host bits, the primary one first
	// Passing are those that will not last: temporary ones of IPv6, which the
	// kernel lists first and replaces every day (RFC 8981), those that have run
	// out, and those that somebody else turned out to have.
	Passing []netip.Addr
}

// Route leads packets to a network out of an interface; "*" = they are dropped.
type Route struct {
	Interface string
	To        netip.Prefix
	Metric    int
}

// HasIPv6 reports whether the kernel knows IPv6.
func HasIPv6() bool { return This.exists("/proc/net/if_inet6") }

// ReadNetworks asks the kernel.
func ReadNetworks() (Networks, error) {
	interfaces, names, err := readInterfaces()
	if err != nil {
		return Networks{}, err
	}
	var routes []netlink.Route
	for _, table := range []struct{ family, number int }{
		{netlink.FAMILY_V4, unix.RT_TABLE_MAIN},
		{netlink.FAMILY_V6, unix.RT_TABLE_UNSPEC}, // all of them, some of which others make for a single network
	} {
		found, err := Dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(table.family, &netlink.Route{Table: table.number}, netlink.RT_FILTER_TABLE)
		})
		if err != nil && !lacksFamily(err) {
			return Networks{}, fmt.Errorf("read routes: %w", err)
		}
		routes = append(routes, found...)
	}
	return Networks{Interfaces: interfaces, Routes: routesOf(routes, names)}, nil
}

// lacksFamily: a kernel without IPv6 has no routes for it.
func lacksFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// Interfaces asks the kernel.
func Interfaces() ([]Interface, error) {
	all, _, err := readInterfaces()
	return all, err
}

func readInterfaces() (all []Interface, names map[int]string, err error) {
	links, err := Dump(netlink.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	names = map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		all = append(all, interfaceOf(l.Attrs(), addrs))
	}
	return all, names, nil
}

func interfaceOf(l *netlink.LinkAttrs, addrs []netlink.Addr) Interface {
	const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_DADFAILED
	one := Interface{Name: l.Name, Flags: l.Flags, MTU: l.MTU}
	for _, a := range addrs {
		p, ok := prefixOf(a.IPNet)
		if a.LinkIndex != l.Index || !ok {
			continue
		}
		if peer, ok := prefixOf(a.Peer); ok { // whose network is the one that both are in
			p = netip.PrefixFrom(p.Addr(), peer.Bits())
		}
		one.Addrs = append(one.Addrs, p)
		// The bit of temporary ones of IPv6 means secondary ones of IPv4.
		if p.Addr().Is6() && a.Flags&passing != 0 {
			one.Passing = append(one.Passing, p.Addr())
		}
	}
	return one
}

// routesOf is what lite compares with, of the routes that the kernel lists.
func routesOf(listed []netlink.Route, names map[int]string) (all []Route) {
	for _, r := range listed {
		to, ok := prefixOf(r.Dst)
		// host-gw's lead out of an interface of the host's, and stay for pods when lite stops.
		if !ok || r.Protocol == layout.RouteProtocol || leadsNowhere(r) {
			continue
		}
		hops := []int{r.LinkIndex}
		if len(r.MultiPath) > 0 {
			hops = nil
			for _, hop := range r.MultiPath {
				hops = append(hops, hop.LinkIndex)
			}
		}
		for _, index := range hops {
			all = append(all, Route{cmp.Or(names[index], "*"), to.Masked(), r.Priority})
		}
	}
	slices.SortStableFunc(all, func(a, b Route) int { return cmp.Compare(a.Metric, b.Metric) })
	return all
}

// leadsNowhere: whom it refuses, it hides from nobody.
func leadsNowhere(r netlink.Route) bool {
	return r.Type == unix.RTN_UNREACHABLE || r.Type == unix.RTN_PROHIBIT ||
		r.Family == netlink.FAMILY_V6 && (r.Type == unix.RTN_BLACKHOLE || r.Type == unix.RTN_THROW)
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(n.String())
	return p, err == nil
}

// Dump repeats a listing of the kernel's that a change by somebody else broke into.
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	const tries = 10
	var all []T
	var err error
	for range tries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// Address chooses the address of a family that other nodes reach this one
// by: the first that lasts of the interface of the default route; with no such
// route, that of an interface that is up. It returns the interface's name too.
func (n Networks) Address(is6 bool) (netip.Addr, string) {
	for _, r := range n.Routes {
		for _, i := range n.Interfaces {
			if r.Interface != i.Name || r.To.Bits() != 0 || r.To.Addr().Is6() != is6 {
				continue
			}
			if addr := i.address(is6); addr.IsValid() {
				return addr, i.Name
			}
		}
	}
	for _, i := range n.Interfaces {
		if addr := i.address(is6); addr.IsValid() && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 && !OfCluster(i.Name) {
			return addr, i.Name
		}
	}
	return netip.Addr{}, ""
}

func (i Interface) address(is6 bool) (found netip.Addr) {
	for _, p := range i.Addrs {
		switch {
		case p.Addr().Is6() != is6 || !p.Addr().IsGlobalUnicast():
		case !slices.Contains(i.Passing, p.Addr()):
			return p.Addr()
		case !found.IsValid():
			found = p.Addr() // if there is no other
		}
	}
	return found
}

// OfCluster reports whether an interface was made by a cluster on this host, by us
// or by what came before, rather than being the host's own.
func OfCluster(name string) bool {
	return slices.ContainsFunc([]string{layout.Bridge, "flannel.*", layout.DevicePattern, layout.PodDevices, "kube-*"}, func(pattern string) bool {
		match, err := path.Match(pattern, name)
		return match && err == nil
	})
}
