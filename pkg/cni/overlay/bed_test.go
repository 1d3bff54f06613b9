package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var cluster = []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}

// host is a machine on one network with the others: a namespace with an interface eth0, a
// bridge, and behind it a pod in another namespace.
type host struct {
	t      *testing.T
	ns     netns.NsHandle
	kernel *netlink.Handle
	pod    netns.NsHandle
	config Config
	*Overlay
	local Local
	ipv6  bool // is what reaches tries
}

// newHosts makes as many machines as asked for, each with one pod. Their overlays
// are set up and know of each other.
func newHosts(t *testing.T, backend string, count int, prepare ...func(*host)) []*host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	need(t, backend)
	sw := newNamespace(t)
	kernel := handle(t, sw)
	must(t, kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}))
	up(t, kernel, "switch")
	var hosts []*host
	for i := 1; i <= count; i++ {
		hosts = append(hosts, newHost(t, sw, kernel, backend, i))
	}
	for _, h := range hosts {
		for _, f := range prepare {
			f(h)
		}
		h.start()
		h.addPod()
	}
	for _, h := range hosts {
		must(t, h.Set(h.peers(hosts...)))
	}
	return hosts
}

func newHost(t *testing.T, sw netns.NsHandle, kernel *netlink.Handle, backend string, number int) *host {
	h := &host{t: t, ns: newNamespace(t)}
	h.kernel = handle(t, h.ns)
	port := fmt.Sprintf("port%d", number)
	must(t, kernel.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}))
	bridge, err := kernel.LinkByName("switch")
	must(t, err)
	link, err := kernel.LinkByName(port)
	must(t, err)
	must(t, kernel.LinkSetMaster(link, bridge))
	up(t, kernel, port)
	up(t, h.kernel, "lo")
	up(t, h.kernel, "eth0", fmt.Sprintf("192.0.2.%d/24", number))
	h.in(h.ns, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600) })
	h.config = Config{
		Backend: backend,
		NodeIP:  netip.AddrFrom4([4]byte{192, 0, 2, byte(number)}),
		Pods:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(number), 0}), 24),
		Cluster: cluster,
		KeyFile: filepath.Join(t.TempDir(), "key"),
	}
	return h
}

// start is what a new process does.
func (h *host) start() {
	h.t.Helper()
	if h.Overlay != nil {
		h.Close()
	}
	h.in(h.ns, func() (err error) {
		h.Overlay, err = New(h.config)
		return err
	})
	h.t.Cleanup(h.Close)
	var err error
	h.local, err = h.Setup()
	must(h.t, err)
}

func (h *host) podIP() netip.Addr {
	if h.ipv6 {
		return h.config.Pods6.Addr().Next().Next()
	}
	return h.config.Pods.Addr().Next().Next()
}

// dual gives a host the other family of pod addresses as well.
func (h *host) dual() {
	pods := h.config.Pods.Addr().As4()
	h.config.Pods6 = netip.MustParsePrefix(fmt.Sprintf("fd42:0:0:%x::/64", pods[2]))
	h.config.Cluster = append(slices.Clone(cluster), netip.MustParsePrefix("fd42::/48"))
	h.in(h.ns, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o600) })
}

func (h *host) addPod() {
	h.t.Helper()
	h.pod = newNamespace(h.t)
	must(h.t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}))
	gateway := h.config.Pods.Addr().Next()
	up(h.t, h.kernel, "cni0", gateway.String()+"/24")
	bridge, err := h.kernel.LinkByName("cni0")
	must(h.t, err)
	veth := netlink.LinkAttrs{Name: "pod", MTU: h.MTU()}
	must(h.t, h.kernel.LinkAdd(&netlink.Veth{LinkAttrs: veth, PeerName: "eth0", PeerMTU: uint32(h.MTU()), PeerNamespace: netlink.NsFd(h.pod)}))
	link, err := h.kernel.LinkByName("pod")
	must(h.t, err)
	must(h.t, h.kernel.LinkSetMaster(link, bridge))
	up(h.t, h.kernel, "pod")
	inside := handle(h.t, h.pod)
	up(h.t, inside, "lo")
	up(h.t, inside, "eth0", h.podIP().String()+"/24")
	must(h.t, inside.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}))
	if h.config.Pods6.IsValid() {
		gateway := h.config.Pods6.Addr().Next()
		h.addNow(h.kernel, "cni0", netip.PrefixFrom(gateway, 64))
		h.addNow(inside, "eth0", netip.PrefixFrom(gateway.Next(), 64))
		must(h.t, inside.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}))
	}
}

// addNow adds an address that can be used at once.
func (h *host) addNow(kernel *netlink.Handle, name string, address netip.Prefix) {
	h.t.Helper()
	link, err := kernel.LinkByName(name)
	must(h.t, err)
	must(h.t, kernel.AddrAdd(link, &netlink.Addr{IPNet: netOf(address), Flags: unix.IFA_F_NODAD}))
}

func (h *host) peer() Peer {
	return Peer{Node: h.config.NodeIP.String(), Local: h.local, Pods: h.config.ranges()}
}

// peers are those of the hosts that are not this one.
func (h *host) peers(hosts ...*host) []Peer {
	var peers []Peer
	for _, other := range hosts {
		if other.ns != h.ns {
			peers = append(peers, other.peer())
		}
	}
	return peers
}

// device is the device of ours.
func (h *host) device() netlink.Link {
	h.t.Helper()
	link, err := h.kernel.LinkByName(h.backend.device())
	must(h.t, err)
	return link
}

// in runs on a thread in a namespace; the thread ends with it.
func (h *host) in(ns netns.NsHandle, run func() error) {
	h.t.Helper()
	must(h.t, in(ns, run))
}

func in(ns netns.NsHandle, run func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- run()
	}()
	return <-done
}

// need skips what the kernel has no backend for.
func need(t *testing.T, backend string) {
	t.Helper()
	if backend != WireGuard {
		return
	}
	if err := wireguardInKernel(); err != nil {
		t.Skipf("the kernel has no WireGuard (%v); LITE_MACHINE_TEST=1 go test ./tests/machine runs this on one that has it", err)
	}
}

// wireguardInKernel makes the kernel load the module.
func wireguardInKernel() error {
	_, err := netlink.GenlFamilyGet("wireguard")
	return err
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		done <- result{ns, err}
	}()
	r := <-done
	must(t, r.err)
	t.Cleanup(func() { _ = r.ns.Close() })
	return r.ns
}

func handle(t *testing.T, ns netns.NsHandle) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func up(t *testing.T, kernel *netlink.Handle, name string, addresses ...string) {
	t.Helper()
	link, err := kernel.LinkByName(name)
	must(t, err)
	for _, a := range addresses {
		must(t, kernel.AddrAdd(link, &netlink.Addr{IPNet: netOf(netip.MustParsePrefix(a))}))
	}
	must(t, kernel.LinkSetUp(link))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reaches sends bytes from the pod or, if asked for, the node itself to the other
// host's pod, and back.
func (h *host) reaches(other *host, network string, size int, fromNode bool) error {
	from := h.pod
	if fromNode {
		from = h.ns
	}
	return roundTrip(from, other, net.Dialer{}, network, size)
}

// passes sends a packet to the other host's pod that nobody may take apart.
func (h *host) passes(other *host, size int) error {
	whole := func(_, _ string, conn syscall.RawConn) error {
		var err error
		return errors.Join(conn.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}), err)
	}
	return roundTrip(h.pod, other, net.Dialer{Control: whole}, "udp", size)
}

// roundTrip sends bytes to the other host's pod and back.
func roundTrip(from netns.NsHandle, other *host, dialer net.Dialer, network string, size int) error {
	address, err := other.echo(network)
	if err != nil {
		return err
	}
	dialer.Timeout = 10 * time.Second
	var conn net.Conn
	err = in(from, func() (err error) {
		conn, err = dialer.Dial(network, address)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	sent := bytes.Repeat([]byte(plain), size/len(plain)+1)[:size]
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		if failed <- err; err != nil {
			_ = conn.SetDeadline(time.Now())
		}
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("%s from %s to %s: %w", network, conn.LocalAddr(), address, errors.Join(err, <-failed))
	}
	if !bytes.Equal(sent, got) {
		return errors.New("other bytes came back")
	}
	return nil
}

// plain is what pods send each other.
const plain = "lite"

// echo answers in the pod and returns where, until the test ends.
func (h *host) echo(network string) (address string, err error) {
	address = netip.AddrPortFrom(h.podIP(), 0).String()
	if network == "udp" {
		var conn net.PacketConn
		err = in(h.pod, func() (err error) { conn, err = net.ListenPacket(network, address); return err })
		if err != nil {
			return "", err
		}
		h.t.Cleanup(func() { conn.Close() })
		go echoPackets(conn)
		return conn.LocalAddr().String(), nil
	}
	var listener net.Listener
	err = in(h.pod, func() (err error) { listener, err = net.Listen(network, address); return err })
	if err != nil {
		return "", err
	}
	h.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	return listener.Addr().String(), nil
}

func echoPackets(conn net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(buffer[:n], from)
	}
}

// listen begins to collect what passes the interface to the other nodes. The
// function that it returns ends that.
func (h *host) listen() func() [][]byte {
	h.t.Helper()
	eth0, err := h.kernel.LinkByName("eth0")
	must(h.t, err)
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	var fd int
	h.in(h.ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		return err
	})
	h.t.Cleanup(func() { unix.Close(fd) })
	must(h.t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
	must(h.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: eth0.Attrs().Index}))
	return func() [][]byte {
		h.t.Helper()
		var packets [][]byte
		for {
			buffer := make([]byte, 1<<16)
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if errors.Is(err, unix.EAGAIN) {
				return packets
			}
			must(h.t, err)
			packets = append(packets, buffer[:n])
		}
	}
}

const ethernet = 14 // bytes of the header before that of IPv4

// udpPort is where a packet goes to, 0 if it is not UDP over IPv4.
func udpPort(packet []byte) int {
	if len(packet) < ethernet+28 || binary.BigEndian.Uint16(packet[12:]) != unix.ETH_P_IP || packet[ethernet+9] != unix.IPPROTO_UDP {
		return 0
	}
	return int(binary.BigEndian.Uint16(packet[ethernet+22:]))
}

// fragment reports whether a packet is a part of another one.
func fragment(packet []byte) bool {
	const mayNot = 0x4000 // be taken apart
	return len(packet) >= ethernet+20 && binary.BigEndian.Uint16(packet[12:]) == unix.ETH_P_IP &&
		binary.BigEndian.Uint16(packet[ethernet+6:])&^mayNot != 0
}
