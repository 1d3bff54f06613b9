package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Gateway is the address of the bridge, which is every host's default route and
// the name server in its /etc/resolv.conf.
const Gateway = "10.99.0.254"

// Network is a bridge in a network namespace of its own. Hosts on it reach each
// other, and nothing else.
type Network struct {
	namespace netns.NsHandle

	mu     sync.Mutex
	number int
}

// NewNetwork makes a network that ends with the test.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	needRoot(t)
	n := &Network{}
	err := onOwnThread(func() (err error) {
		if n.namespace, err = netns.New(); err != nil {
			return err
		}
		return n.addBridge()
	})
	if err != nil {
		t.Fatalf("make a network: %v", err)
	}
	t.Cleanup(func() { n.namespace.Close() }) // the last handle: the namespace goes with it
	return n
}

func (n *Network) addBridge() error {
	links, err := netlink.NewHandleAt(n.namespace)
	if err != nil {
		return err
	}
	defer links.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
	if err := links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	return configure(links, "bridge", Gateway+"/24")
}

// nextNumber returns the last byte of the next host's address, from 1.
func (n *Network) nextNumber() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.number++
	return n.number
}

// connect gives a host eth0, its address and its routes.
func (n *Network) connect(h *Host) error {
	hostNS, err := netns.GetFromPid(h.init.Process.Pid)
	if err != nil {
		return err
	}
	defer hostNS.Close()
	links, err := netlink.NewHandleAt(n.namespace)
	if err != nil {
		return err
	}
	defer links.Close()
	bridge, err := links.LinkByName("bridge")
	if err != nil {
		return err
	}
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: h.Name, MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(hostNS),
	}
	if err := links.LinkAdd(cable); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	if err := links.LinkSetUp(cable); err != nil {
		return err
	}
	hostLinks, err := netlink.NewHandleAt(hostNS)
	if err != nil {
		return err
	}
	defer hostLinks.Close()
	if err := configure(hostLinks, "lo", ""); err != nil {
		return err
	}
	return address(hostLinks, h.IP)
}

// address gives eth0 of a host an address, and the host its default route.
func address(links *netlink.Handle, ip string) error {
	if err := configure(links, "eth0", ip+"/24"); err != nil {
		return err
	}
	return links.RouteAdd(&netlink.Route{Gw: net.ParseIP(Gateway)})
}

// Readdress gives a host another address that nobody has had, as a DHCP server
// might. Its name stays, and so does what its /etc/hosts says.
func (n *Network) Readdress(t testing.TB, h *Host) {
	t.Helper()
	old, number := h.IP, n.nextNumber()
	hostNS, err := netns.GetFromPid(h.init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer hostNS.Close()
	links, err := netlink.NewHandleAt(hostNS)
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	eth0, err := links.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	was, err := netlink.ParseAddr(old + "/24")
	if err != nil {
		t.Fatal(err)
	}
	h.IP = numbered(number)
	// The default route goes with the address.
	if err := errors.Join(links.AddrDel(eth0, was), address(links, h.IP)); err != nil {
		t.Fatalf("add the address %s in place of %s to %s: %v", h.Name, h.IP, old, err)
	}
}

// numbered is the address of the host with a number.
func numbered(number int) string { return fmt.Sprintf("10.99.0.%d", number) }

// disconnect takes the cable of a host that is off away; the kernel would, in its
// own time.
func (n *Network) disconnect(h *Host) error {
	links, err := netlink.NewHandleAt(n.namespace)
	if err != nil {
		return err
	}
	defer links.Close()
	cable, err := links.LinkByName(h.Name)
	if err == nil {
		err = links.LinkDel(cable)
	}
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
		return nil // it has already
	}
	return err
}

// Cut unplugs the other end of a host's cable: the host itself does not notice.
func (n *Network) Cut(t testing.TB, h *Host) {
	t.Helper()
	n.plug(t, h, func(links *netlink.Handle, cable, _ netlink.Link) error { return links.LinkSetNoMaster(cable) })
}

// Heal undoes Cut.
func (n *Network) Heal(t testing.TB, h *Host) {
	t.Helper()
	n.plug(t, h, func(links *netlink.Handle, cable, bridge netlink.Link) error {
		return links.LinkSetMaster(cable, bridge)
	})
}

func (n *Network) plug(t testing.TB, h *Host, do func(links *netlink.Handle, cable, bridge netlink.Link) error) {
	t.Helper()
	links, err := netlink.NewHandleAt(n.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	bridge, err := links.LinkByName("bridge")
	if err != nil {
		t.Fatal(err)
	}
	cable, err := links.LinkByName(h.Name)
	if err == nil {
		err = do(links, cable, bridge)
	}
	if err != nil {
		t.Fatalf("the cable of %s: %v", h.Name, err)
	}
}

// configure sets a link's address, if one is given, and sets it up.
func configure(links *netlink.Handle, name, address string) error {
	link, err := links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if address != "" {
		addr, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := links.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s on %s: %w", address, name, err)
		}
	}
	if err := links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// DialContext connects from the bridge's address: what a machine that is no
// host of the cluster sees. The address must be numeric.
func (n *Network) DialContext(ctx context.Context, network, address string) (conn net.Conn, err error) {
	return dialWithin(ctx, int(n.namespace), network, address)
}

// Listen listens at an address of the bridge, [Gateway]; what is served there runs
// in the test.
func (n *Network) Listen(network, address string) (l net.Listener, err error) {
	err = within(int(n.namespace), unix.CLONE_NEWNET, func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket is Listen for datagrams.
func (n *Network) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	err = within(int(n.namespace), unix.CLONE_NEWNET, func() error {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}
