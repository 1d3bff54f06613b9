package overlay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
)

// genModeNone is IN6_ADDR_GEN_MODE_NONE of if_link.h: no address is made up.
const genModeNone = 1

// tunnel is a device of ours and what every kind of tunnel has.
type tunnel struct {
	kernel *netlink.Handle
	name   string
	bytes  int // that a packet grows by
	// addresses are the first of each of the node's ranges. No pod is given them;
	// what the host sends to pods of other nodes comes from them, so that they can
	// answer.
	addresses []netip.Prefix
}

func newTunnel(kernel *netlink.Handle, name string, overhead int, ranges []netip.Prefix) tunnel {
	t := tunnel{kernel: kernel, name: name, bytes: overhead}
	for _, pods := range ranges {
		t.addresses = append(t.addresses, netip.PrefixFrom(pods.Addr(), pods.Addr().BitLen()))
	}
	return t
}

func (t tunnel) device() string { return t.name }

func (t tunnel) overhead() int { return t.bytes }

func (t tunnel) attrs(outer Iface) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = t.name, outer.MTU-t.bytes
	return a
}

// add makes the device. It stays down.
func (t tunnel) add(link netlink.Link, module string) (netlink.Link, error) {
	err := t.kernel.LinkAdd(link)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, missingModule(module)
	case errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("create device %s: another device has the same name or tunnel: remove it with `ip link del`", t.name)
	case err != nil:
		return nil, fmt.Errorf("create device %s: %w", t.name, err)
	}
	made, err := t.find()
	if err != nil {
		return nil, err
	}
	// A link-local address would only make noise in the tunnel. Where the kernel
	// has no IPv6 this fails, and nothing is missing.
	_ = t.kernel.LinkSetIP6AddrGenMode(made, genModeNone)
	return made, nil
}

func missingModule(module string) error {
	return fmt.Errorf("the kernel does not support %s: load it with `modprobe %s`; some systems have it in a separate package (linux-modules-extra-…)", module, module)
}

// removeRenamed removes the device if somebody has renamed it, since a second one of the
// kind cannot exist beside it. mine distinguishes it from others' devices.
func (t tunnel) removeRenamed(mine func(netlink.Link) bool) error {
	links, err := probe.Dump(t.kernel.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		name := link.Attrs().Name
		if name == t.name || !mine(link) {
			continue
		}
		slog.Info("Recreating a device of the pod network", "device", t.name, "because", "it was called "+name)
		if err := t.kernel.LinkDel(link); err != nil {
			return fmt.Errorf("remove device %s, which is %s under another name: %w", name, t.name, err)
		}
	}
	return nil
}

// find returns the device, or an error if there is none.
func (t tunnel) find() (netlink.Link, error) {
	link, err := find(t.kernel, t.name)
	if err == nil && link == nil {
		err = fmt.Errorf("device %s is gone", t.name)
	}
	return link, err
}

// find returns nil if there is no such device.
func find(kernel *netlink.Handle, name string) (netlink.Link, error) {
	link, err := kernel.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect device %s: %w", name, err)
	}
	return link, nil
}

// finish gives the device its MTU and address, and brings it up. It writes only
// what is not so already.
func (t tunnel) finish(link netlink.Link, outer Iface, port int) error {
	at := link.Attrs()
	if mtu := outer.MTU - t.bytes; at.MTU != mtu {
		if err := t.kernel.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", t.name, mtu, err)
		}
	}
	if err := t.setAddresses(link); err != nil {
		return err
	}
	if at.Flags&net.FlagUp != 0 {
		return nil
	}
	err := t.kernel.LinkSetUp(link)
	if errors.Is(err, unix.EADDRINUSE) {
		err = portTaken(port)
	}
	if err != nil {
		return fmt.Errorf("bring up %s: %w", t.name, err)
	}
	return nil
}

func portTaken(port int) error {
	return fmt.Errorf("another program uses UDP port %d: `ss -lunp` shows it", port)
}

func (t tunnel) setAddresses(link netlink.Link) error {
	present, err := t.present(link)
	if err != nil {
		return err
	}
	for _, have := range present {
		if slices.Contains(t.addresses, have) {
			continue
		}
		if err := t.kernel.AddrDel(link, &netlink.Addr{IPNet: netOf(have)}); err != nil {
			return fmt.Errorf("remove address %s from %s: %w", have, t.name, err)
		}
	}
	for _, want := range t.addresses {
		if slices.Contains(present, want) {
			continue
		}
		a := &netlink.Addr{IPNet: netOf(want)}
		if want.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else can have it, and looking would take a second
		}
		if err := t.kernel.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add the address %[2]s to %[1]s: %[3]w", t.name, want, err)
		}
	}
	return nil
}

// present is which addresses the device has, but those it may have made up itself.
func (t tunnel) present(link netlink.Link) ([]netip.Prefix, error) {
	addrs, err := probe.Dump(func() ([]netlink.Addr, error) { return t.kernel.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", t.name, err)
	}
	var all []netip.Prefix
	for _, a := range addrs {
		if p := prefixOf(a.IPNet); p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() {
			all = append(all, p)
		}
	}
	return all, nil
}

// finished reports what is not as finish leaves it.
func (t tunnel) finished(link netlink.Link, outer Iface) error {
	at := link.Attrs()
	if mtu := outer.MTU - t.bytes; at.MTU != mtu {
		return fmt.Errorf("device %s has an MTU of %d instead of %d", t.name, at.MTU, mtu)
	}
	if at.Flags&net.FlagUp == 0 {
		return fmt.Errorf("device %s is down", t.name)
	}
	present, err := t.present(link)
	if err != nil {
		return err
	}
	missing := func(want netip.Prefix) bool { return !slices.Contains(present, want) }
	if len(present) != len(t.addresses) || slices.ContainsFunc(t.addresses, missing) {
		return fmt.Errorf("device %s has the addresses %q instead of %q", t.name, join(present), join(t.addresses))
	}
	return nil
}
