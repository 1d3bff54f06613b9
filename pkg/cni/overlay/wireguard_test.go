package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"lite.io/lite/pkg/layout"
)

// wireguardState is what the device knows: its key, its port and its peers.
func (h *host) wireguardState() []string {
	h.t.Helper()
	var lines []string
	for _, d := range h.wireguardDevices() {
		lines = append(lines, fmt.Sprintf("wireguard %s key %s port %d mark %d", d.Name, d.PublicKey, d.ListenPort, d.FirewallMark))
		for _, p := range d.Peers {
			lines = append(lines, fmt.Sprintf("peer %s at %s for %s keepalive %s", p.PublicKey, p.Endpoint, sorted(p.AllowedIPs), p.PersistentKeepaliveInterval))
		}
	}
	return lines
}

// wireguardDevices uses another socket, since the process may be gone.
func (h *host) wireguardDevices() []*wgtypes.Device {
	h.t.Helper()
	var devices []*wgtypes.Device
	h.in(h.ns, func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		devices, err = client.Devices()
		return err
	})
	return devices
}

// The remedy for a kernel without WireGuard, and that New accepts one that has it.
func TestWireGuardNeedsTheKernel(t *testing.T) {
	h := newHosts(t, HostGW, 1)[0]
	h.config.Backend = WireGuard
	var o *Overlay
	err := in(h.ns, func() (err error) { o, err = New(h.config); return err })
	if wireguardInKernel() == nil {
		must(t, err)
		o.Close()
		return
	}
	if err == nil || !strings.Contains(err.Error(), "the kernel does not support wireguard: load it with `modprobe wireguard`") {
		t.Errorf("got %v", err)
	}
}

func TestOneNodesStateOfWireGuard(t *testing.T) {
	hosts := newHosts(t, WireGuard, 2)
	lines := strings.Join(hosts[0].state(), "\n")
	for _, want := range []string{
		"route 10.42.2.0/24 via <nil> dev ",
		"address 10.42.1.0/32 ",
		"wireguard lite-wg key " + hosts[0].local.PublicKey + " port 51820 mark 0",
		"peer " + hosts[1].local.PublicKey + " at 192.0.2.2:51820 for [10.42.2.0/24] keepalive 0s",
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	if strings.Contains(lines, "address fe80") {
		t.Errorf("has an IPv6 address:\n%s", lines)
	}
	secret, err := os.ReadFile(hosts[0].config.KeyFile)
	must(t, err)
	if own, err := wgtypes.ParseKey(strings.TrimSpace(string(secret))); err != nil || own.PublicKey().String() != hosts[0].local.PublicKey {
		t.Errorf("the key in the file is another: %v", err)
	}
}

func TestPeerOfWireGuardThatChanges(t *testing.T) {
	h := newHosts(t, WireGuard, 1)[0]
	p := []Peer{wireguardPeer(9), wireguardPeer(10)}
	must(t, h.Set(p))
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"address", func() { p[0].IP = netip.MustParseAddr("192.0.2.77") }},
		{"port", func() { p[0].Port = 9999 }},
		{"key", func() { p[0].PublicKey = key(77).String() }},
		{"more pods", func() { p[0].Pods = append(p[0].Pods, netip.MustParsePrefix("10.42.77.0/24")) }},
		{"other pods", func() { p[0].Pods = []netip.Prefix{netip.MustParsePrefix("10.42.78.0/24")} }},
		{"pods swapped", func() { p[0].Pods, p[1].Pods = p[1].Pods, p[0].Pods }},
		{"keys swapped", func() { p[0].PublicKey, p[1].PublicKey = p[1].PublicKey, p[0].PublicKey }},
	} {
		step.change()
		must(t, h.Set(p))
		must(t, h.Check())
		h.expectPeers(step.what, p)
	}
}

// expectPeers compares what the device has and where routes lead with all peers.
func (h *host) expectPeers(when string, peers []Peer) {
	h.t.Helper()
	lines := h.state()
	if got := about(lines, "peer "); got != len(peers) {
		h.t.Errorf("%s: %d peers:\n%s", when, got, strings.Join(lines, "\n"))
	}
	routes := 0
	for _, p := range peers {
		var nets []net.IPNet
		for _, pods := range p.Pods {
			nets = append(nets, *netOf(pods))
			routes += about(lines, fmt.Sprintf("route %s via <nil> dev %d proto %d ", pods, h.device().Attrs().Index, layout.RouteProtocol))
		}
		want := fmt.Sprintf("peer %s at %s:%d for %s keepalive 0s", p.PublicKey, p.IP, p.Port, sorted(nets))
		if !slices.Contains(lines, want) {
			h.t.Errorf("%s: no %q in\n%s", when, want, strings.Join(lines, "\n"))
		}
	}
	if got := about(lines, fmt.Sprintf(" proto %d ", layout.RouteProtocol)); got != routes || routes < len(peers) {
		h.t.Errorf("%s: %d routes, %d of them right:\n%s", when, got, routes, strings.Join(lines, "\n"))
	}
}

// wireguardPeer is one that does not exist.
func wireguardPeer(number byte) Peer {
	return Peer{
		Node:  fmt.Sprintf("node%d", number),
		Local: Local{Backend: WireGuard, IP: netip.AddrFrom4([4]byte{192, 0, 2, number}), PublicKey: key(number).String(), Port: layout.WireGuardPort},
		Pods:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, number, 0}), 24)},
	}
}

// As many as do not fit into one message to or from the kernel.
func TestManyPeersOfWireGuard(t *testing.T) {
	h := newHosts(t, WireGuard, 1)[0]
	var peers []Peer
	for n := byte(2); n < 252; n++ {
		peers = append(peers, wireguardPeer(n))
	}
	for _, p := range [][]Peer{peers, peers[100:], peers[:150], nil} {
		must(t, h.Set(p))
		must(t, h.Check())
		h.expectPeers(fmt.Sprintf("%d peers", len(p)), p)
		have, err := h.backend.(*wireguard).client.Device(layout.WireGuardDevice)
		must(t, err)
		if changes := peerChanges(have.Peers, p); len(changes) != 0 {
			t.Errorf("%d peers would be written again", len(changes))
		}
	}
}

// A node whose key file was removed creates another key. The others reach it as soon as
// they get that key, and the old one is useless.
func TestKeyIsChanged(t *testing.T) {
	hosts := newHosts(t, WireGuard, 3)
	h, changed := hosts[0], hosts[1]
	must(t, h.reaches(changed, "tcp", 1<<10, false))
	before := changed.local.PublicKey
	must(t, os.Remove(changed.config.KeyFile))
	changed.start()
	must(t, changed.Set(changed.peers(hosts...)))
	if changed.local.PublicKey == before {
		t.Error("it is the same key")
	}
	for _, other := range []*host{h, hosts[2]} {
		must(t, other.Set(other.peers(hosts...)))
		other.expectPeers("key changed", other.peers(hosts...))
		must(t, other.reaches(changed, "tcp", 1<<10, false))
		must(t, changed.reaches(other, "tcp", 1<<10, false))
	}
}

// WireGuard does not need the same port everywhere: each node publishes its own.
func TestPortOfWireGuardIsChanged(t *testing.T) {
	hosts := newHosts(t, WireGuard, 2)
	h := hosts[0]
	before := h.device().Attrs().Index
	h.config.Port = 9999
	h.start()
	must(t, h.Set(h.peers(hosts...)))
	if after := h.device().Attrs().Index; after != before || h.local.Port != 9999 {
		t.Errorf("device %d, then %d, port %d", before, after, h.local.Port)
	}
	must(t, hosts[1].Set(hosts[1].peers(hosts...)))
	hosts[1].expectPeers("port changed", hosts[1].peers(hosts...))
	must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
	must(t, hosts[1].reaches(h, "tcp", 1<<10, false))
}

// Pods reach each other while the process is gone, and the next one takes the
// device over with the keys that were agreed on: no packet has to wait.
func TestRestartAdoptsWireGuard(t *testing.T) {
	hosts := newHosts(t, WireGuard, 2)
	h := hosts[0]
	must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
	before, agreed := h.state(), h.agreed()
	h.Close()
	must(t, h.reaches(hosts[1], "tcp", 1<<20, false))
	must(t, hosts[1].reaches(h, "tcp", 1<<20, false))
	h.Overlay = nil
	h.start()
	must(t, h.Set(h.peers(hosts...)))
	must(t, h.Check())
	expectSame(t, before, h.state())
	must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
	if got := h.agreed(); got != agreed || agreed.IsZero() {
		t.Errorf("keys were agreed on at %s, and again at %s", agreed, got)
	}
}

// agreed is when the only peer and this node have agreed on keys.
func (h *host) agreed() time.Time {
	h.t.Helper()
	devices := h.wireguardDevices()
	if len(devices) != 1 || len(devices[0].Peers) != 1 {
		h.t.Fatalf("got %+v", devices)
	}
	return devices[0].Peers[0].LastHandshakeTime
}

// When the device was deleted, the others still send with keys that nobody has.
// WireGuard waits 15 s for an answer until it agrees on new ones, unless the node
// speaks first, which this one does not.
func TestOthersReachADeviceThatWasMadeAgain(t *testing.T) {
	hosts := newHosts(t, WireGuard, 2)
	h, other := hosts[0], hosts[1]
	must(t, other.reaches(h, "udp", 1<<10, false)) // TCP would be closed through the new device
	before := h.device().Attrs().Index
	must(t, h.kernel.LinkDel(h.device()))
	_, err := h.Setup()
	must(t, err)
	must(t, h.Set(h.peers(hosts...)))
	if after := h.device().Attrs().Index; after == before {
		t.Error("it is the same device")
	}
	start := time.Now()
	for err = other.reaches(h, "tcp", 1<<10, false); err != nil && time.Since(start) < time.Minute; {
		err = other.reaches(h, "tcp", 1<<10, false)
	}
	must(t, err)
	t.Logf("reached after %s", time.Since(start).Round(time.Second))
}

func TestPortOfWireGuardIsTaken(t *testing.T) {
	hosts := newHosts(t, WireGuard, 2)
	h := hosts[0]
	for _, port := range []string{":51820", ":9999"} {
		if port == ":51820" {
			must(t, h.kernel.LinkDel(h.device()))
		}
		var other net.PacketConn
		h.in(h.ns, func() (err error) { other, err = net.ListenPacket("udp4", port); return err })
		h.backend.(*wireguard).port = other.LocalAddr().(*net.UDPAddr).Port
		want := "another program uses UDP port " + strings.TrimPrefix(port, ":") + ": `ss -lunp` shows it"
		for range 2 { // the first may have left something behind
			if _, err := h.Setup(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v", port, err)
			}
		}
		must(t, other.Close())
		_, err := h.Setup()
		must(t, err)
		must(t, h.Set(h.peers(hosts...)))
		must(t, h.Check())
		must(t, h.reaches(hosts[1], "tcp", 1<<10, false))
	}
}

// Nobody between the nodes can read what pods send.
func TestWhatIsSeenBetweenNodes(t *testing.T) {
	for backend, secret := range map[string]bool{VXLAN: false, WireGuard: true} {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 2)
			seen := hosts[0].listen()
			must(t, hosts[0].reaches(hosts[1], "udp", 1<<10, false))
			must(t, hosts[1].reaches(hosts[0], "tcp", 1<<16, false))
			must(t, hosts[0].reaches(hosts[1], "udp", 1<<10, true))
			tunnel, readable := 0, 0
			for _, packet := range seen() {
				if bytes.Contains(packet, bytes.Repeat([]byte(plain), 8)) {
					readable++
				}
				if udpPort(packet) == hosts[0].local.Port {
					tunnel++
				}
			}
			t.Logf("%d packets of the tunnel, %d packets that can be read", tunnel, readable)
			if tunnel == 0 || readable > 0 == secret {
				t.Errorf("can be read: %d of %d", readable, tunnel)
			}
		})
	}
}

// A node that sends in the name of another one's pod is not believed.
func TestSenderIsChecked(t *testing.T) {
	for backend, checked := range map[string]bool{VXLAN: false, WireGuard: true} {
		t.Run(backend, func(t *testing.T) {
			hosts := newHosts(t, backend, 3)
			var pod net.PacketConn
			hosts[0].in(hosts[0].pod, func() (err error) { pod, err = net.ListenPacket("udp4", ":7"); return err })
			defer pod.Close()
			hosts[1].send(hosts[2].podIP(), hosts[0].podIP(), 7)
			hosts[1].send(hosts[1].podIP(), hosts[0].podIP(), 7)
			must(t, pod.SetDeadline(time.Now().Add(10*time.Second)))
			want := []netip.Addr{hosts[1].podIP()}
			if !checked {
				want = []netip.Addr{hosts[2].podIP(), hosts[1].podIP()}
			}
			for _, ip := range want {
				_, from, err := pod.ReadFrom(make([]byte, 64))
				if err != nil || from.(*net.UDPAddr).AddrPort().Addr().Unmap() != ip {
					t.Errorf("got one from %v, %v instead of %s", from, err, ip)
				}
			}
		})
	}
}

// send sends a packet from the node, with any sender.
func (h *host) send(from, to netip.Addr, port uint16) {
	h.t.Helper()
	packet := append(make([]byte, 28), plain...)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel adds length and checksum
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	binary.BigEndian.PutUint16(packet[20:], port)
	binary.BigEndian.PutUint16(packet[22:], port)
	binary.BigEndian.PutUint16(packet[24:], uint16(8+len(plain)))
	h.in(h.ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.As4()})
	})
}

// What goes to pods that cannot be reached is refused, whatever has become of the
// device: it would leave by the default route for all to read.
func TestNothingLeavesUnencrypted(t *testing.T) {
	hosts := newHosts(t, WireGuard, 2, (*host).dual)
	h, other := hosts[0], hosts[1]
	must(t, h.kernel.RouteAdd(&netlink.Route{Gw: net.IP{192, 0, 2, 99}}))
	refused := func(when string) {
		t.Helper()
		for _, to := range []netip.Addr{other.config.Pods.Addr().Next(), other.config.Pods6.Addr().Next()} {
			if routes, err := h.kernel.RouteGet(to.AsSlice()); !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s: the way to %s is %v, %v", when, to, routes, err)
			}
		}
	}
	must(t, h.Set(nil))
	refused("before anything is known of the node")
	must(t, h.Set(h.peers(hosts...)))
	must(t, h.reaches(other, "udp", 64, false))
	link, err := h.kernel.LinkByName(layout.WireGuardDevice)
	must(t, err)
	must(t, h.kernel.LinkDel(link))
	refused("when the device is gone")
	h.start()
	refused("after a restart, before the node is known again")
	must(t, h.Set(h.peers(hosts...)))
	must(t, h.Check())

	h.config.Backend = VXLAN
	h.start()
	must(t, h.Set(nil))
	if _, err := h.kernel.RouteGet(other.config.Pods.Addr().Next().AsSlice()); err != nil {
		t.Errorf("left behind by WireGuard: %v", err)
	}
}
