// Package overlay carries packets to the pods of other nodes: in VXLAN or WireGuard
// tunnels, or by routes alone where all nodes share a network. It knows nothing of
// Kubernetes. It does not use flannel as a library, because v0.28.4 panics in a goroutine
// when its interface is deleted on a node without IPv6, which would end the process and
// etcd with it, and because it keeps the entries of nodes that left while it was down.
package overlay

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// The ways to other nodes.
const (
	VXLAN     = "vxlan"
	HostGW    = "host-gw"
	WireGuard = "wireguard-native"
)

// Unauthenticated is the device and the UDP port of a backend that believes every packet
// that comes to it; "" and 0 for one that does not.
func Unauthenticated(backend string) (device string, port int) {
	if backend == VXLAN {
		return layout.VXLANDevice, layout.VXLANPort
	}
	return "", 0
}

// What every host must be able to take in (RFC 791, RFC 8200).
const (
	minMTU  = 576
	minMTU6 = 1280
)

// Config is the configuration of the overlay.
type Config struct {
	Backend   string         // VXLAN, HostGW or WireGuard
	NodeIP    netip.Addr     // IPv4
	Interface string         // --flannel-iface; empty is the one that has NodeIP
	Pods      netip.Prefix   // this node's range of pod addresses, IPv4
	Pods6     netip.Prefix   // and its IPv6 one, if the cluster has both families
	Cluster   []netip.Prefix // the ranges that all nodes' are cut from
	// KeyFile holds the private key of WireGuard. It is made if it is missing
	// and never leaves the node.
	KeyFile string
	// Port is the UDP port of the tunnel, the same on all nodes for VXLAN. 0 is
	// the backend's default: 8472 or 51820.
	Port int
}

// Overlay is one node's side of the network between nodes.
type Overlay struct {
	config  Config
	kernel  *netlink.Handle // one socket, in the network namespace where New ran
	backend backend

	mu     sync.Mutex
	outer  Iface                // as Setup found it
	routes map[netip.Prefix]hop // that the last Set left behind
}

// backend is what the ways to other nodes differ in.
type backend interface {
	// device names the device of ours; empty if routes lead out of the outer one.
	device() string
	// overhead is how many bytes a packet grows by.
	overhead() int
	// setup makes the device or adopts it.
	setup(outer Iface) (Local, error)
	// check reports what is not as setup leaves it.
	check(outer Iface) error
	// refuse reports why a peer cannot be reached, nil if it can.
	refuse(outer Iface, p Peer) error
	// set gives the device these peers, and removes all others.
	set(link int, peers []Peer) error
	// hop is where packets to one range of a peer go.
	hop(link int, p Peer, pods netip.Prefix) hop
	close()
}

// New checks the configuration and changes nothing. It must run in the network namespace of
// the node.
func New(c Config) (*Overlay, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	kernel, err := open()
	if err != nil {
		return nil, err
	}
	o := &Overlay{config: c, kernel: kernel}
	if o.outer, err = o.find(); err == nil {
		o.backend, err = newBackend(c, kernel)
	}
	if err != nil {
		kernel.Close()
		return nil, err
	}
	return o, nil
}

func (c Config) check() error {
	switch {
	case !c.NodeIP.Is4():
		return fmt.Errorf("the pod network between nodes uses IPv4, but the node's address is %q: set an IPv4 address with --node-ip", c.NodeIP)
	case !c.Pods.IsValid() || !c.Pods.Addr().Is4() || c.Pods != c.Pods.Masked():
		return fmt.Errorf("the node's pod CIDR %q is not an IPv4 network", c.Pods)
	case c.Pods6.IsValid() && (!c.Pods6.Addr().Is6() || c.Pods6 != c.Pods6.Masked()):
		return fmt.Errorf("the node's pod CIDR %q is not an IPv6 network", c.Pods6)
	case c.Pods6.IsValid() && c.Backend == HostGW:
		return fmt.Errorf("%s supports only IPv4, and the cluster has IPv6 addresses too: use --flannel-backend=%s", HostGW, VXLAN)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("%d is not a UDP port", c.Port)
	}
	for _, pods := range c.ranges() {
		if !c.inCluster(pods) {
			return fmt.Errorf("the node's pod CIDR %s is outside of --cluster-cidr %s: delete the Node, so that it gets a new one", pods, join(c.Cluster))
		}
	}
	return nil
}

// ranges is one range, or one of each family.
func (c Config) ranges() []netip.Prefix {
	if c.Pods6.IsValid() {
		return []netip.Prefix{c.Pods, c.Pods6}
	}
	return []netip.Prefix{c.Pods}
}

// minMTU is what pods must be able to send in one packet.
func (c Config) minMTU() int {
	if c.Pods6.IsValid() {
		return minMTU6
	}
	return minMTU
}

func newBackend(c Config, kernel *netlink.Handle) (backend, error) {
	switch c.Backend {
	case VXLAN:
		return newVXLAN(c, kernel)
	case WireGuard:
		return newWireGuard(c, kernel)
	case HostGW:
		return hostGW{}, nil
	}
	return nil, fmt.Errorf("unknown backend %q: use %s, %s or %s", c.Backend, VXLAN, HostGW, WireGuard)
}

// Close gives back what New opened. The network stays: pods outlive the process.
func (o *Overlay) Close() {
	o.backend.close()
	o.kernel.Close()
}

// Interface is what packets to other nodes leave by.
func (o *Overlay) Interface() Iface {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.outer
}

// MTU is what fits into one packet of a pod.
func (o *Overlay) MTU() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.outer.MTU - o.backend.overhead()
}

// Setup makes the device, or adopts the one that an earlier process left, and
// removes what another backend left. It returns what the other nodes must know.
func (o *Overlay) Setup() (Local, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	outer, err := o.find()
	if err != nil {
		return Local{}, err
	}
	if mtu := outer.MTU - o.backend.overhead(); mtu < o.config.minMTU() {
		return Local{}, fmt.Errorf("interface %s has an MTU of %d, which leaves %d for pods: at least %d are needed", outer.Name, outer.MTU, mtu, o.config.minMTU())
	}
	local, err := o.backend.setup(outer)
	if err != nil {
		return Local{}, err
	}
	o.outer = outer
	link, err := o.link()
	if err != nil {
		return Local{}, err
	}
	return local, remove(o.kernel, o.backend.device(), link)
}

// Set makes the kernel hold exactly the entries of these peers. It removes what
// earlier processes left, writes only what differs, and touches nothing that is
// not ours. A peer that cannot be used does not stop the others.
func (o *Overlay) Set(peers []Peer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	link, err := o.link()
	if err != nil {
		return err
	}
	accepted, errs := o.accept(peers)
	// What a route leads to comes before the route.
	errs = append(errs, o.backend.set(link, accepted), o.setRoutes(link, accepted))
	return errors.Join(errs...)
}

// Check reports what has changed under us since Setup and Set, which then must run
// again. Routes are checked too: they vanish with a device that somebody
// takes down and up, and systemd-networkd removes what it did not make.
func (o *Overlay) Check() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, err := o.find()
	if err != nil {
		return err
	}
	if was := o.outer; now.Index != was.Index || now.IP != was.IP || now.MTU != was.MTU {
		return fmt.Errorf("the interface to other nodes was %s with %s and MTU %d, and is %s with %s and MTU %d", was.Name, was.IP, was.MTU, now.Name, now.IP, now.MTU)
	}
	if err := o.backend.check(now); err != nil {
		return err
	}
	return o.checkRoutes()
}

// Remove takes away all that lite made on this machine, whatever the backend.
func Remove() error {
	kernel, err := open()
	if err != nil {
		return err
	}
	defer kernel.Close()
	return remove(kernel, "", 0)
}

// remove takes away the devices of ours but one, and our routes out of other
// devices than that.
func remove(kernel *netlink.Handle, except string, exceptLink int) error {
	var errs []error
	for _, name := range []string{layout.VXLANDevice, layout.WireGuardDevice} {
		if name == except {
			continue
		}
		link, err := find(kernel, name)
		if err == nil && link != nil {
			slog.Info("Removing a device of the pod network", "device", name)
			err = kernel.LinkDel(link)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove device %s: %w", name, err))
		}
	}
	routes, err := ownRoutes(kernel)
	if err != nil {
		errs = append(errs, err)
	}
	for _, r := range routes {
		if hopOf(r).nowhere && except == layout.WireGuardDevice {
			continue // Set knows whether it is wanted; until then nothing may pass
		}
		if r.LinkIndex != exceptLink || exceptLink == 0 {
			errs = append(errs, removeRoute(kernel, r))
		}
	}
	return errors.Join(errs...)
}

// link is the index of the device that routes lead out of. It is looked up each
// time: a device that was made again has another.
func (o *Overlay) link() (int, error) {
	name := o.backend.device()
	if name == "" {
		return o.outer.Index, nil
	}
	link, err := find(o.kernel, name)
	if err != nil {
		return 0, err
	}
	if link == nil {
		return 0, fmt.Errorf("device %s is gone", name)
	}
	return link.Attrs().Index, nil
}

func (o *Overlay) find() (Iface, error) {
	return findInterface(o.kernel, o.config.NodeIP, o.config.Interface)
}

// open makes a handle whose socket belongs to the current network namespace, so
// that it works from any goroutine.
func open() (*netlink.Handle, error) {
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return kernel, nil
}

func (c Config) inCluster(p netip.Prefix) bool {
	return slices.ContainsFunc(c.Cluster, func(whole netip.Prefix) bool {
		return whole.Bits() <= p.Bits() && whole.Contains(p.Addr())
	})
}

func join(prefixes []netip.Prefix) string {
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}
