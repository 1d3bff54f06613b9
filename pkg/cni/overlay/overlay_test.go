package overlay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// state is all that an overlay may have written: routes, neighbours, forwarding
// entries, the device and its addresses.
func (h *host) state() []string {
	h.t.Helper()
	var lines []string
	routes, err := h.kernel.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	must(h.t, err)
	ours := &netlink.Route{Protocol: protocol}
	routes6, err := h.kernel.RouteListFiltered(netlink.FAMILY_V6, ours, netlink.RT_FILTER_PROTOCOL)
	must(h.t, err)
	for _, r := range append(routes, routes6...) {
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
	for backend, mtu := range map[string]int{VXLAN: 1450, HostGW: 1500} {
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
	for _, backend := range []string{VXLAN, HostGW} {
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
					t.Errorf("route %v", u)
				case u := <-links:
					// The bridge of the pods comes up slowly.
					if name := u.Attrs().Name; name == "eth0" || name == vxlanDevice {
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
	for _, backend := range []string{VXLAN, HostGW} {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 3)
			h := hosts[0]
			// It leaves while the process is down.
			h.start()
			must(t, h.Set(h.peers(hosts[1])))
			lines := h.state()
			for _, gone := range []string{"10.42.3.0", "192.0.2.3", hosts[2].peer().MAC} {
				if gone != "" && about(lines, gone) != 0 {
					t.Errorf("%s is left in\n%s", gone, strings.Join(lines, "\n"))
				}
			}
			must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
			must(t, h.Set(h.peers(hosts...)))
			must(t, h.reaches(hosts[2], "tcp", 1<<10, false))
			must(t, h.Set(nil))
			if routes, err := ownRoutes(h.kernel); err != nil || len(routes) != 0 {
				t.Errorf("got %v, %v", routes, err)
			}
		})
	}
}

// A node that was set up anew has another address for the same range.
func TestPeerThatChanges(t *testing.T) {
	h := newHosts(t, VXLAN, 2)[0]
	p := h.peers(&host{ns: -1, config: Config{Pods: netip.MustParsePrefix("10.42.9.0/24")}, local: Local{
		Backend: VXLAN, IP: netip.MustParseAddr("192.0.2.9"), MAC: "02:00:00:00:00:09", Port: vxlanPort,
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
	device := func(h *host) netlink.Link {
		link, err := h.kernel.LinkByName(vxlanDevice)
		must(h.t, err)
		return link
	}
	for name, test := range map[string]struct {
		backend string
		harm    func(h *host) error
		want    string
	}{
		"device deleted": {VXLAN, func(h *host) error { return h.kernel.LinkDel(device(h)) }, "device lite-vxlan is gone"},
		"device down":    {VXLAN, func(h *host) error { return h.kernel.LinkSetDown(device(h)) }, "is down"},
		"MTU":            {VXLAN, func(h *host) error { return h.kernel.LinkSetMTU(device(h), 1200) }, "MTU of 1200 instead of 1450"},
		"MTU outside":    {VXLAN, func(h *host) error { return h.kernel.LinkSetMTU(eth0(h), 1400) }, "MTU 1400"},
		"MTU, no tunnel": {HostGW, func(h *host) error { return h.kernel.LinkSetMTU(eth0(h), 1400) }, "MTU 1400"},
		"address": {VXLAN, func(h *host) error {
			return h.kernel.AddrDel(device(h), &netlink.Addr{IPNet: netOf(netip.MustParsePrefix("10.42.1.0/32"))})
		}, "instead of \"10.42.1.0/32\""},
		"another address": {VXLAN, func(h *host) error {
			return h.kernel.AddrAdd(device(h), &netlink.Addr{IPNet: netOf(netip.MustParsePrefix("10.42.1.9/32"))})
		}, "instead of \"10.42.1.0/32\""},
		"hardware address": {VXLAN, func(h *host) error {
			return h.kernel.LinkSetHardwareAddr(device(h), net.HardwareAddr{2, 0, 0, 0, 0, 1})
		}, "hardware address"},
		"route": {HostGW, func(h *host) error {
			return h.kernel.RouteDel(&netlink.Route{Dst: netOf(netip.MustParsePrefix("10.42.2.0/24"))})
		}, "10.42.2.0/24 is gone"},
		"down and up": {VXLAN, func(h *host) error {
			if err := h.kernel.LinkSetDown(device(h)); err != nil {
				return err
			}
			return h.kernel.LinkSetUp(device(h))
		}, "10.42.2.0/24 is gone"},
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
	h := newHosts(t, VXLAN, 1)[0]
	must(t, h.kernel.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: vxlanDevice}}))
	must(t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: vxlanDevice}}))
	if err := h.Check(); err == nil || !strings.Contains(err.Error(), "of type bridge") {
		t.Errorf("got %v", err)
	}
	h.start()
	must(t, h.Check())
}

func TestRoutesOfOthersAreLeftAlone(t *testing.T) {
	for _, backend := range []string{VXLAN, HostGW} {
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
	hosts := newHosts(t, VXLAN, 2)
	for _, backend := range []string{HostGW, VXLAN} {
		for _, h := range hosts {
			h.config.Backend = backend
			h.start()
			if routes, err := ownRoutes(h.kernel); err != nil || len(routes) != 0 && backend == VXLAN {
				t.Errorf("%s: routes of the other backend: %v, %v", backend, routes, err)
			}
		}
		for _, h := range hosts {
			must(t, h.Set(h.peers(hosts...)))
			must(t, h.Check())
			if got := about(h.state(), "link "); got != map[string]int{HostGW: 0, VXLAN: 1}[backend] {
				t.Errorf("%s: %d devices", backend, got)
			}
		}
		must(t, hosts[0].reaches(hosts[1], "tcp", 1<<10, false))
	}
}

func TestRemove(t *testing.T) {
	for _, backend := range []string{VXLAN, HostGW} {
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
		must(t, o.off(vxlanDevice))
		must(t, o.off(vxlanDevice))
		features, err := o.tool.Features(vxlanDevice)
		if err != nil || features[checksums] {
			t.Errorf("got %v, %v", features[checksums], err)
		}
	}
	must(t, hosts[0].reaches(hosts[1], "tcp", 1<<20, false))
	must(t, hosts[0].reaches(hosts[1], "udp", 60_000, false))
}
