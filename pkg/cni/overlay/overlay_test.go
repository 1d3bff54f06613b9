package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"lite.io/lite/pkg/layout"
)

var backends = []string{VXLAN, HostGW, WireGuard}

// state is all that an overlay may have written: routes, neighbours, forwarding
// entries, the device, its addresses, its key and its peers.
func (h *host) state() []string {
	h.t.Helper()
	var lines []string
	routes, err := h.kernel.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	must(h.t, err)
	ours := &netlink.Route{Protocol: layout.RouteProtocol}
	routes6, err := h.kernel.RouteListFiltered(netlink.FAMILY_V6, ours, netlink.RT_FILTER_PROTOCOL)
	must(h.t, err)
	for _, r := range append(routes, routes6...) {
		if hopOf(r).nowhere {
			lines = append(lines, fmt.Sprintf("refused %s", r.Dst))
			continue
		}
		lines = append(lines, fmt.Sprintf("route %s via %s dev %d proto %d flags %d", r.Dst, r.Gw, r.LinkIndex, r.Protocol, r.Flags))
	}
	links, err := h.kernel.LinkList()
	must(h.t, err)
	for _, l := range links {
		if !strings.HasPrefix(l.Attrs().Name, "lite-") {
			continue
		}
		at := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %d %s %s mtu %d %s", at.Index, at.Name, at.HardwareAddr, at.MTU, at.Flags))
		addrs, err := h.kernel.AddrList(l, netlink.FAMILY_ALL)
		must(h.t, err)
		for _, a := range addrs {
			lines = append(lines, "address "+a.String())
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
			entries, err := h.kernel.NeighList(at.Index, family)
			must(h.t, err)
			for _, n := range entries {
				if n.State == netlink.NUD_NOARP {
					continue // the kernel's own for multicast
				}
				lines = append(lines, fmt.Sprintf("entry %d %s %s state %d flags %d", family, n.IP, n.HardwareAddr, n.State, n.Flags))
			}
		}
	}
	lines = append(lines, h.wireguardState()...)
	slices.Sort(lines)
	return lines
}

// about counts the lines that hold a text.
func about(lines []string, text string) int {
	n := 0
	for _, l := range lines {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

func expectSame(t *testing.T, before, after []string) {
	t.Helper()
	if !slices.Equal(before, after) {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func TestPodsReachPodsOfOtherNodes(t *testing.T) {
	for backend, mtu := range map[string]int{VXLAN: 1450, HostGW: 1500, WireGuard: 1420} {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 3)
			if got := hosts[0].MTU(); got != mtu {
				t.Errorf("got an MTU of %d", got)
			}
			for _, a := range hosts {
				must(t, a.Check())
				for _, b := range hosts {
					if a == b {
						continue
					}
					must(t, a.reaches(b, "tcp", 1<<20, false))
					must(t, a.reaches(b, "udp", 60_000, false))
					must(t, a.reaches(b, "udp", 64, true))
				}
			}
		})
	}
}

// A packet as large as the MTU passes whole. That of the tunnel, which may be taken
// apart, is not either.
func TestLargestPacket(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 2)
			largest := hosts[0].MTU() - 20 - 8 // IPv4 and UDP
			seen := hosts[0].listen()
			must(t, hosts[0].passes(hosts[1], largest))
			packets := seen()
			if n := len(packets); n < 2 || slices.ContainsFunc(packets, fragment) {
				t.Errorf("%d packets, or parts of packets, were seen", n)
			}
			if err := hosts[0].passes(hosts[1], largest+1); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("one byte more: got %v", err)
			}
		})
	}
}

func TestOneNodesStateOfVXLAN(t *testing.T) {
	h := newHosts(t, VXLAN, 2)[0]
	lines := strings.Join(h.state(), "\n")
	peer := hardwareAddr(netip.MustParseAddr("192.0.2.2"), netip.MustParsePrefix("10.42.2.0/24")).String()
	for _, want := range []string{
		"route 10.42.2.0/24 via 10.42.2.0 dev ",
		"address 10.42.1.0/32 ",
		"entry 2 10.42.2.0 " + peer + " state 128",
		"entry 7 192.0.2.2 " + peer + " state 128",
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	if strings.Contains(lines, "address fe80") {
		t.Errorf("has an IPv6 address:\n%s", lines)
	}
}

// What is right already is not written: no route, entry or device changes.
func TestSetTwiceTouchesNothing(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 3)
			h := hosts[0]
			before := h.state()
			done := make(chan struct{})
			defer close(done)
			routes, entries, links := make(chan netlink.RouteUpdate, 64), make(chan netlink.NeighUpdate, 64), make(chan netlink.LinkUpdate, 64)
			must(t, netlink.RouteSubscribeAt(h.ns, routes, done))
			must(t, netlink.NeighSubscribeAt(h.ns, entries, done))
			must(t, netlink.LinkSubscribeAt(h.ns, links, done))
			_, err := h.Setup()
			must(t, err)
			must(t, h.Set(h.peers(hosts...)))
			h.start() // by a new process
			must(t, h.Set(h.peers(hosts...)))
			quiet := time.After(200 * time.Millisecond)
			for {
				select {
				case u := <-routes:
					// The pods' bridge gets an IPv6 address, late on a slow machine.
					if u.Family != unix.AF_INET6 {
						t.Errorf("route %v", u)
					}
				case u := <-links:
					// The bridge of the pods comes up slowly.
					if name := u.Attrs().Name; name == "eth0" || name == h.backend.device() {
						t.Errorf("link %s: %v", name, u.Header)
					}
				case u := <-entries:
					// eth0 asks for addresses on its own.
					if u.State&netlink.NUD_PERMANENT != 0 {
						t.Errorf("entry %v", u)
					}
				case <-quiet:
					expectSame(t, before, h.state())
					return
				}
			}
		})
	}
}

func TestNodeThatLeavesLeavesNothing(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 3)
			h := hosts[0]
			// It leaves while the process is down.
			h.start()
			must(t, h.Set(h.peers(hosts[1])))
			lines := h.state()
			for _, gone := range []string{"10.42.3.0", "192.0.2.3", hosts[2].peer().MAC, hosts[2].peer().PublicKey} {
				if gone != "" && about(lines, gone) != 0 {
					t.Errorf("%s is left in\n%s", gone, strings.Join(lines, "\n"))
				}
			}
			must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
			must(t, h.Set(h.peers(hosts...)))
			must(t, h.reaches(hosts[2], "tcp", 1<<10, false))
			must(t, h.Set(nil))
			if lines := h.state(); about(lines, fmt.Sprintf("proto %d", layout.RouteProtocol)) != 0 {
				t.Errorf("routes are left in\n%s", strings.Join(lines, "\n"))
			}
		})
	}
}

// A node that was set up again has another address for the same range.
func TestPeerThatChanges(t *testing.T) {
	h := newHosts(t, VXLAN, 2)[0]
	p := h.peers(&host{ns: -1, config: Config{Pods: netip.MustParsePrefix("10.42.9.0/24")}, local: Local{
		Backend: VXLAN, IP: netip.MustParseAddr("192.0.2.9"), MAC: "02:00:00:00:00:09", Port: layout.VXLANPort,
	}})
	must(t, h.Set(p))
	for _, change := range []func(){
		func() { p[0].IP = netip.MustParseAddr("192.0.2.10") },
		func() { p[0].MAC = "02:00:00:00:00:10" },
		func() { p[0].Pods = append(p[0].Pods, netip.MustParsePrefix("10.42.10.0/24")) },
		func() { p[0].Pods = p[0].Pods[1:] },
	} {
		change()
		must(t, h.Set(p))
		must(t, h.Check())
		lines := h.state()
		if got := about(lines, "entry 7 "); got != 1 || about(lines, fmt.Sprintf("entry 7 %s %s", p[0].IP, p[0].MAC)) != 1 {
			t.Errorf("forwarding:\n%s", strings.Join(lines, "\n"))
		}
		// Multicast of the kernel's own is not permanent.
		if got := about(lines, "state 128 flags 0"); got != len(p[0].Pods) {
			t.Errorf("%d neighbours:\n%s", got, strings.Join(lines, "\n"))
		}
	}
}

func TestWhatBreaksIsSeenAndRepaired(t *testing.T) {
	eth0 := func(h *host) netlink.Link {
		link, err := h.kernel.LinkByName("eth0")
		must(h.t, err)
		return link
	}
	remove := func(h *host) error { return h.kernel.LinkDel(h.device()) }
	down := func(h *host) error { return h.kernel.LinkSetDown(h.device()) }
	downAndUp := func(h *host) error { return errors.Join(down(h), h.kernel.LinkSetUp(h.device())) }
	renamed := func(h *host) error {
		link := h.device()
		return errors.Join(h.kernel.LinkSetDown(link), h.kernel.LinkSetName(link, "away"), h.kernel.LinkSetUp(link))
	}
	mtu := func(h *host) error { return h.kernel.LinkSetMTU(h.device(), 1200) }
	mtuOutside := func(h *host) error { return h.kernel.LinkSetMTU(eth0(h), 1400) }
	address := func(h *host) error {
		return h.kernel.AddrDel(h.device(), &netlink.Addr{IPNet: netOf(netip.MustParsePrefix("10.42.1.0/32"))})
	}
	anotherAddress := func(h *host) error {
		return h.kernel.AddrAdd(h.device(), &netlink.Addr{IPNet: netOf(netip.MustParsePrefix("10.42.1.9/32"))})
	}
	hardwareAddress := func(h *host) error {
		return h.kernel.LinkSetHardwareAddr(h.device(), net.HardwareAddr{2, 0, 0, 0, 0, 1})
	}
	route := func(h *host) error {
		return h.kernel.RouteDel(&netlink.Route{Dst: netOf(netip.MustParsePrefix("10.42.2.0/24")), Scope: netlink.SCOPE_NOWHERE})
	}
	anotherKey := func(h *host) error {
		other := key(9)
		return h.backend.(*wireguard).client.ConfigureDevice(layout.WireGuardDevice, wgtypes.Config{PrivateKey: &other})
	}
	anotherPort := func(h *host) error {
		port := 9999
		return h.backend.(*wireguard).client.ConfigureDevice(layout.WireGuardDevice, wgtypes.Config{ListenPort: &port})
	}
	for name, test := range map[string]struct {
		backend string
		harm    func(h *host) error
		want    string
	}{
		"vxlan: device deleted":      {VXLAN, remove, "device lite-vxlan is gone"},
		"vxlan: device renamed":      {VXLAN, renamed, "device lite-vxlan is gone"},
		"vxlan: device down":         {VXLAN, down, "is down"},
		"vxlan: MTU":                 {VXLAN, mtu, "MTU of 1200 instead of 1450"},
		"vxlan: MTU outside":         {VXLAN, mtuOutside, "MTU 1400"},
		"vxlan: address":             {VXLAN, address, `instead of "10.42.1.0/32"`},
		"vxlan: another address":     {VXLAN, anotherAddress, `instead of "10.42.1.0/32"`},
		"vxlan: hardware address":    {VXLAN, hardwareAddress, "hardware address"},
		"vxlan: down and up":         {VXLAN, downAndUp, "10.42.2.0/24 is gone"},
		"host-gw: MTU outside":       {HostGW, mtuOutside, "MTU 1400"},
		"host-gw: route":             {HostGW, route, "10.42.2.0/24 is gone"},
		"wireguard: device deleted":  {WireGuard, remove, "device lite-wg is gone"},
		"wireguard: device renamed":  {WireGuard, renamed, "device lite-wg is gone"},
		"wireguard: device down":     {WireGuard, down, "is down"},
		"wireguard: MTU":             {WireGuard, mtu, "MTU of 1200 instead of 1420"},
		"wireguard: MTU outside":     {WireGuard, mtuOutside, "MTU 1400"},
		"wireguard: address":         {WireGuard, address, `instead of "10.42.1.0/32"`},
		"wireguard: another address": {WireGuard, anotherAddress, `instead of "10.42.1.0/32"`},
		"wireguard: down and up":     {WireGuard, downAndUp, "10.42.2.0/24 is gone"},
		"wireguard: route":           {WireGuard, route, "10.42.2.0/24 is gone"},
		"wireguard: another key":     {WireGuard, anotherKey, "lite-wg has another key than"},
		"wireguard: another port":    {WireGuard, anotherPort, "has the port 9999 instead of 51820"},
	} {
		t.Run(name, func(t *testing.T) {
			hosts := newHosts(t, test.backend, 2)
			h := hosts[0]
			must(t, h.Check())
			must(t, test.harm(h))
			if err := h.Check(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
			_, err := h.Setup()
			must(t, err)
			must(t, h.Set(h.peers(hosts...)))
			must(t, h.Check())
			must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
		})
	}
}

func TestDeviceWithOtherParametersIsMadeAgain(t *testing.T) {
	hosts := newHosts(t, VXLAN, 2)
	h := hosts[0]
	before, err := h.link()
	must(t, err)
	h.config.Port = 9999
	h.start()
	after, err := h.link()
	must(t, err)
	if after == before || h.local.Port != 9999 {
		t.Errorf("device %d, then %d, port %d", before, after, h.local.Port)
	}
	err = h.Set(h.peers(hosts...))
	if err == nil || !strings.Contains(err.Error(), "node 192.0.2.2: has the VXLAN port 8472, this node has 9999") {
		t.Errorf("got %v", err)
	}
}

// Something else has the name of ours.
func TestDeviceOfAnotherTypeIsMadeAgain(t *testing.T) {
	for _, backend := range []string{VXLAN, WireGuard} {
		t.Run(backend, func(t *testing.T) {
			h := newHosts(t, backend, 1)[0]
			name := h.backend.device()
			must(t, h.kernel.LinkDel(h.device()))
			must(t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
			if err := h.Check(); err == nil || !strings.Contains(err.Error(), name+" is of type bridge") {
				t.Errorf("got %v", err)
			}
			h.start()
			must(t, h.Check())
		})
	}
}

func TestRoutesOfOthersAreLeftAlone(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 2)
			h := hosts[0]
			must(t, h.Set(nil))
			gateway := netip.MustParseAddr("192.0.2.99").AsSlice()
			others := []string{"198.51.100.0/24", "10.42.77.0/24", "10.42.2.0/24"} // the last one is where ours belongs
			for _, dst := range others {
				must(t, h.kernel.RouteAdd(&netlink.Route{Dst: netOf(netip.MustParsePrefix(dst)), Gw: gateway}))
			}
			before := h.state()
			err := h.Set(h.peers(hosts...))
			if err == nil || !strings.Contains(err.Error(), "node 192.0.2.2: another program has a route to 10.42.2.0/24: remove it with") {
				t.Errorf("got %v", err)
			}
			must(t, h.Set(nil))
			h.start()
			must(t, h.Set(nil))
			must(t, in(h.ns, Remove))
			for _, dst := range others {
				if about(h.state(), "route "+dst) != 1 || about(before, "route "+dst) != 1 {
					t.Errorf("%s: before\n%s\nafter\n%s", dst, strings.Join(before, "\n"), strings.Join(h.state(), "\n"))
				}
			}
		})
	}
}

func TestBackendIsChanged(t *testing.T) {
	for _, order := range [][]string{{VXLAN, HostGW, VXLAN}, {HostGW, WireGuard, VXLAN, WireGuard, HostGW}} {
		t.Run(strings.Join(order, " "), func(t *testing.T) {
			need(t, order[1])
			hosts := newHosts(t, order[0], 2)
			for _, backend := range order[1:] {
				changeBackend(t, hosts, backend)
				// Pods keep the MTU that they were made with, also if it is now too large.
				must(t, hosts[0].reaches(hosts[1], "tcp", 1<<20, false))
				must(t, hosts[1].reaches(hosts[0], "udp", 60_000, false))
			}
		})
	}
}

func changeBackend(t *testing.T, hosts []*host, backend string) {
	t.Helper()
	for _, h := range hosts {
		h.config.Backend = backend
		h.start()
		if routes, err := ownRoutes(h.kernel); err != nil || len(routes) != 0 && backend != HostGW {
			t.Errorf("%s: routes of the other backend: %v, %v", backend, routes, err)
		}
	}
	for _, h := range hosts {
		must(t, h.Set(h.peers(hosts...)))
		must(t, h.Check())
		lines := h.state()
		device := h.backend.device()
		if all := about(lines, "link "); backend == HostGW && all != 0 || backend != HostGW && (all != 1 || about(lines, " "+device+" ") == 0) {
			t.Errorf("%s: devices:\n%s", backend, strings.Join(lines, "\n"))
		}
	}
}

func TestRemove(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 2)
			h := hosts[0]
			must(t, in(h.ns, Remove))
			if lines := h.state(); about(lines, "lite-") != 0 || about(lines, "10.42.2.0") != 0 {
				t.Errorf("left:\n%s", strings.Join(lines, "\n"))
			}
			must(t, in(h.ns, Remove))
			if h.Check() == nil {
				t.Error("nobody noticed")
			}
		})
	}
}

func TestHostGWRefusesNodesBehindRouters(t *testing.T) {
	hosts := newHosts(t, HostGW, 2)
	far := hosts[1].peer()
	far.Node, far.IP, far.Pods = "far", netip.MustParseAddr("198.51.100.7"), []netip.Prefix{netip.MustParsePrefix("10.42.7.0/24")}
	err := hosts[0].Set(append(hosts[0].peers(hosts...), far))
	if err == nil || !strings.Contains(err.Error(), "node far: has the address 198.51.100.7, which is on no network of eth0") {
		t.Errorf("got %v", err)
	}
	must(t, hosts[0].reaches(hosts[1], "tcp", 1<<10, false))
}

func TestSmallMTU(t *testing.T) {
	h := newHosts(t, VXLAN, 1)[0]
	link, err := h.kernel.LinkByName("eth0")
	must(t, err)
	must(t, h.kernel.LinkSetMTU(link, 600))
	if _, err := h.Setup(); err == nil || !strings.Contains(err.Error(), "interface eth0 has an MTU of 600, which leaves 550") {
		t.Errorf("got %v", err)
	}
}

// The switch works on a device as the kernel makes it, and no packet suffers.
func TestChecksumsAreSwitchedOff(t *testing.T) {
	hosts := newHosts(t, VXLAN, 2)
	for _, h := range hosts {
		o := h.backend.(*vxlan).offload
		must(t, o.off(layout.VXLANDevice))
		must(t, o.off(layout.VXLANDevice))
		features, err := o.tool.Features(layout.VXLANDevice)
		if err != nil || features[checksums] {
			t.Errorf("got %v, %v", features[checksums], err)
		}
	}
	must(t, hosts[0].reaches(hosts[1], "tcp", 1<<20, false))
	must(t, hosts[0].reaches(hosts[1], "udp", 60_000, false))
}
