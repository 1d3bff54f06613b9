package probe

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

func network(prefix string) *net.IPNet {
	_, n, err := net.ParseCIDR(prefix)
	if err != nil {
		panic(err)
	}
	return n
}

func TestRoutes(t *testing.T) {
	const v4, v6 = netlink.FAMILY_V4, netlink.FAMILY_V6
	names := map[int]string{1: "lo", 2: "eth0", 3: "eth1", 4: "wlan0"}
	routes := routesOf([]netlink.Route{
		{Family: v4, Dst: network("0.0.0.0/0"), LinkIndex: 2, Priority: 100, Type: unix.RTN_UNICAST},
		{Family: v4, Dst: network("192.0.2.0/24"), LinkIndex: 2, Type: unix.RTN_UNICAST},
		{Family: v4, Dst: network("0.0.0.0/0"), LinkIndex: 4, Priority: 20, Type: unix.RTN_UNICAST}, // a better default route
		{Family: v4, Dst: network("10.11.0.0/16"), Type: unix.RTN_UNREACHABLE},
		{Family: v4, Dst: network("10.12.0.0/16"), Type: unix.RTN_PROHIBIT},
		{Family: v4, Dst: network("10.13.0.0/16"), Priority: 30, Type: unix.RTN_BLACKHOLE},
		{Family: v4, Dst: network("10.42.1.0/24"), LinkIndex: 2, Protocol: layout.RouteProtocol, Type: unix.RTN_UNICAST}, // host-gw's, which an earlier start has left
		{Family: v4, Dst: network("10.42.2.0/24"), LinkIndex: 2, Priority: 40, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST},
		{Family: v4, Dst: network("10.14.0.0/16"), Priority: 50, Type: unix.RTN_UNICAST, MultiPath: []*netlink.NexthopInfo{{LinkIndex: 3}, {LinkIndex: 4}}},
		{Family: v6, Dst: network("::/0"), LinkIndex: 3, Priority: 1024, Type: unix.RTN_UNICAST},
		{Family: v6, Dst: network("fd00::/8"), LinkIndex: 1, Priority: 1024, Type: unix.RTN_BLACKHOLE},
		{Family: v6, LinkIndex: 1},
	}, names)
	var got []string
	for _, r := range routes {
		got = append(got, r.To.String()+" "+r.Interface)
	}
	want := []string{"192.0.2.0/24 eth0", "0.0.0.0/0 wlan0", "10.13.0.0/16 *", "10.42.2.0/24 eth0", "10.14.0.0/16 eth1", "10.14.0.0/16 wlan0", "0.0.0.0/0 eth0", "::/0 eth1"}
	if !slices.Equal(got, want) {
		t.Errorf("got routes %q, want %q", got, want)
	}
	if layout.RouteProtocol != 76 {
		t.Error("our routes have another protocol")
	}
}

// A temporary address is replaced every day, and the node would restart.
func TestTheNodeHasAnAddressThatLasts(t *testing.T) {
	addr := func(link, flags int, ip string) netlink.Addr {
		n := network(ip)
		n.IP, _, _ = net.ParseCIDR(ip)
		return netlink.Addr{IPNet: n, LinkIndex: link, Flags: flags}
	}
	addrs := []netlink.Addr{
		addr(2, unix.IFA_F_TEMPORARY, "2001:db8::bad/64"), addr(2, unix.IFA_F_DEPRECATED, "2001:db8::11/64"), addr(3, 0, "2001:db8::9/64"),
		addr(2, unix.IFA_F_PERMANENT, "2001:db8::10/64"), addr(2, unix.IFA_F_SECONDARY, "192.0.2.10/24"),
	}
	eth0 := &netlink.LinkAttrs{Index: 2, Name: "eth0", Flags: net.FlagUp, MTU: 1400}
	n := Networks{Interfaces: []Interface{interfaceOf(eth0, addrs)}}
	if addr, _ := n.Address(true); addr.String() != "2001:db8::10" {
		t.Errorf("got %s", addr)
	}
	if addr, name := n.Address(false); addr.String() != "192.0.2.10" || name != "eth0" || n.Interfaces[0].MTU != 1400 {
		t.Errorf("got %s of %s, %+v", addr, name, n.Interfaces)
	}
	n.Interfaces = []Interface{interfaceOf(eth0, addrs[:2])}
	if addr, _ := n.Address(true); addr.String() != "2001:db8::bad" {
		t.Errorf("with no other, got %s", addr)
	}
}

// The network of an address with a peer is the peer's.
func TestPeers(t *testing.T) {
	peer := netlink.Addr{IPNet: network("10.0.0.1/32"), Peer: network("10.0.0.2/24"), LinkIndex: 5}
	got := interfaceOf(&netlink.LinkAttrs{Index: 5, Name: "tun0"}, []netlink.Addr{peer})
	if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}; !slices.Equal(got.Addrs, want) {
		t.Errorf("got %v, want %v", got.Addrs, want)
	}
}

// The kernel is asked; every machine has lo.
func TestReadNetworks(t *testing.T) {
	n, err := ReadNetworks()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(n.Interfaces, func(i Interface) bool { return i.Name == "lo" && i.Flags&net.FlagLoopback != 0 && i.MTU > 0 }) {
		t.Errorf("got interfaces %+v", n.Interfaces)
	}
}
