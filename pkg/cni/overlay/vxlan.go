package overlay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

const (
	// vxlanOverhead is an IPv4, a UDP, a VXLAN and an Ethernet header.
	vxlanOverhead = 20 + 8 + 8 + 14
)

// vxlan carries packets in UDP. The kernel learns nothing from packets: each
// peer has an entry with its hardware address, and one with where that
// is.
type vxlan struct {
	tunnel
	port    int
	pods    netip.Prefix
	mac     net.HardwareAddr // as setup made it
	offload *offload
}

func newVXLAN(c Config, kernel *netlink.Handle) (*vxlan, error) {
	offload, err := newOffload(kernel)
	if err != nil {
		return nil, err
	}
	v := &vxlan{
		tunnel:  newTunnel(kernel, layout.VXLANDevice, vxlanOverhead, c.ranges()),
		port:    c.Port,
		pods:    c.Pods,
		offload: offload,
	}
	if v.port == 0 {
		v.port = layout.VXLANPort
	}
	return v, nil
}

// hardwareAddr is the same after each restart without being stored, so that other nodes
// need no update and know whose it is. It is locally administered and unicast.
func hardwareAddr(ip netip.Addr, pods netip.Prefix) net.HardwareAddr {
	sum := sha256.Sum256([]byte(ip.String() + " " + pods.String()))
	sum[0] = sum[0]&^1 | 2
	return net.HardwareAddr(sum[:6])
}

func (v *vxlan) close() { v.offload.close() }

func (v *vxlan) setup(outer Iface) (Local, error) {
	v.mac = hardwareAddr(outer.IP, v.pods)
	link, err := v.adopt(outer)
	if err == nil && link == nil {
		if err := v.removeRenamed(v.mine); err != nil {
			return Local{}, err
		}
		link, err = v.add(v.wanted(outer), "vxlan")
	}
	if err != nil {
		return Local{}, err
	}
	if err := v.offload.switchOff(v.name); err != nil {
		return Local{}, err
	}
	if err := v.finish(link, outer, v.port); err != nil {
		return Local{}, err
	}
	return Local{Backend: VXLAN, IP: outer.IP, MAC: v.mac.String(), Port: v.port}, nil
}

// adopt returns the existing device if it is right. The properties of a VXLAN device cannot
// be changed: it has to be recreated.
func (v *vxlan) adopt(outer Iface) (netlink.Link, error) {
	link, err := find(v.kernel, v.name)
	if err != nil || link == nil {
		return nil, err
	}
	wrong := v.differs(link, outer)
	if wrong == nil {
		return link, nil
	}
	slog.Info("Recreating a device of the pod network", "device", v.name, "because", wrong)
	if err := v.kernel.LinkDel(link); err != nil {
		return nil, fmt.Errorf("remove device %s: %w", v.name, err)
	}
	return nil, nil
}

// mine reports whether a device is this one, whatever it is called: nobody else has our
// network, and two with it cannot be on one port.
func (v *vxlan) mine(link netlink.Link) bool {
	have, ok := link.(*netlink.Vxlan)
	return ok && have.VxlanId == layout.VNI && have.Port == v.port
}

func (v *vxlan) wanted(outer Iface) *netlink.Vxlan {
	want := &netlink.Vxlan{
		LinkAttrs:    v.attrs(outer),
		VxlanId:      layout.VNI,
		VtepDevIndex: outer.Index,
		SrcAddr:      outer.IP.AsSlice(),
		Port:         v.port,
	}
	// An address that is given when the device is made is one that udev leaves
	// alone.
	want.HardwareAddr = v.mac
	return want
}

// differs reports which parameter of a device is not ours.
func (v *vxlan) differs(link netlink.Link, outer Iface) error {
	have, ok := link.(*netlink.Vxlan)
	switch {
	case !ok:
		return fmt.Errorf("device %s is of type %s instead of vxlan", v.name, link.Type())
	case have.VxlanId != layout.VNI || have.Port != v.port:
		return fmt.Errorf("device %s has network %d and port %d instead of %d and %d", v.name, have.VxlanId, have.Port, layout.VNI, v.port)
	case have.VtepDevIndex != outer.Index || addrOf(have.SrcAddr) != outer.IP:
		return fmt.Errorf("device %s does not use %s with %s", v.name, outer.Name, outer.IP)
	case have.Learning || have.FlowBased || have.GBP || have.Group != nil:
		return fmt.Errorf("device %s was made by another program", v.name)
	case !bytes.Equal(have.HardwareAddr, v.mac):
		return fmt.Errorf("device %s has the hardware address %s instead of %s", v.name, have.HardwareAddr, v.mac)
	}
	return nil
}

func (v *vxlan) check(outer Iface) error {
	link, err := v.find()
	if err != nil {
		return err
	}
	if err := v.differs(link, outer); err != nil {
		return err
	}
	return v.finished(link, outer)
}

func (v *vxlan) refuse(_ Iface, p Peer) error {
	mac, err := net.ParseMAC(p.MAC)
	switch {
	case err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() != p.MAC:
		return fmt.Errorf("has %.40q as its hardware address", p.MAC)
	case bytes.Equal(mac, v.mac):
		return fmt.Errorf("has the same hardware address %s as this node", mac)
	case p.Port != v.port:
		return fmt.Errorf("has the VXLAN port %d, this node has %d: all nodes need the same", p.Port, v.port)
	}
	return nil
}

// hop leads to the first address of the peer's range, which its device has.
func (v *vxlan) hop(link int, _ Peer, pods netip.Prefix) hop {
	return hop{link: link, via: pods.Addr(), onlink: true}
}

// entry is a line of the table of neighbours (which hardware address has this IP
// address) or of forwarding (which IP address has this hardware address).
type entry struct {
	ip   netip.Addr
	mac  string
	node string
}

func (v *vxlan) set(link int, peers []Peer) error {
	forwarding, neighbours := map[string]entry{}, map[int]map[string]entry{4: {}, 6: {}} // by IP version
	for _, p := range peers {
		forwarding[p.MAC] = entry{p.IP, p.MAC, p.Node}
		for _, pods := range p.Pods {
			version := 4
			if pods.Addr().Is6() {
				version = 6
			}
			neighbours[version][pods.Addr().String()] = entry{pods.Addr(), p.MAC, p.Node}
		}
	}
	return errors.Join(
		v.setTable(link, unix.AF_BRIDGE, forwarding, func(e entry) string { return e.mac }),
		v.setTable(link, unix.AF_INET, neighbours[4], func(e entry) string { return e.ip.String() }),
		v.setTable(link, unix.AF_INET6, neighbours[6], func(e entry) string { return e.ip.String() }),
	)
}

// setTable makes a table of the device hold what is wanted, by key.
func (v *vxlan) setTable(link, family int, want map[string]entry, key func(entry) string) error {
	present, err := probe.Dump(func() ([]netlink.Neigh, error) { return v.kernel.NeighList(link, family) })
	if err != nil {
		return fmt.Errorf("list the entries of %s: %w", v.name, err)
	}
	var errs []error
	right := map[string]bool{}
	for _, n := range present {
		e := entry{ip: addrOf(n.IP), mac: n.HardwareAddr.String()}
		if n.State&netlink.NUD_PERMANENT == 0 || !e.ip.IsValid() {
			continue // the kernel's own; what is wanted replaces it
		}
		if n.Family != family {
			continue // a kernel without IPv6 lists all families instead
		}
		w, wanted := want[key(e)]
		if !wanted {
			if err := v.kernel.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove the entry %s %s from %s: %w", e.ip, e.mac, v.name, err))
			}
		}
		right[key(e)] = wanted && w.ip == e.ip && w.mac == e.mac
	}
	for k, e := range want {
		if right[k] {
			continue
		}
		if err := v.kernel.NeighSet(e.neigh(link, family)); err != nil {
			errs = append(errs, fmt.Errorf("node %s: add the entry %s %s to %s: %w", e.node, e.ip, e.mac, v.name, err))
		}
	}
	return errors.Join(errs...)
}

func (e entry) neigh(link, family int) *netlink.Neigh {
	mac, _ := net.ParseMAC(e.mac) // refuse has checked it
	n := &netlink.Neigh{LinkIndex: link, Family: family, State: netlink.NUD_PERMANENT, IP: e.ip.AsSlice(), HardwareAddr: mac}
	if family == unix.AF_BRIDGE {
		n.Flags = netlink.NTF_SELF
	}
	return n
}
