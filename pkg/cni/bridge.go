package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// ensureBridge makes the bridge as the plugin would for the first pod, which then
// finds it as it wants it. So its addresses, the first of each range, can be
// listened on before there is a pod. One that was deleted is given the hardware
// address that it had, since pods know it; without one, the kernel chooses.
func ensureBridge(ranges []netip.Prefix, mtu int, address net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = layout.Bridge, mtu
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create bridge %s: %w", layout.Bridge, err)
	}
	link, err := netlink.LinkByName(layout.Bridge)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", layout.Bridge, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("%s already exists: it is not a bridge but a %s; remove it with `ip link delete %s`", layout.Bridge, link.Type(), layout.Bridge)
	}
	// Its routes are ours alone. The file is missing where there is no IPv6.
	acceptRA := "/proc/sys/net/ipv6/conf/" + layout.Bridge + "/accept_ra"
	if err := os.WriteFile(acceptRA, []byte("0"), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("switch off router advertisements on %s: %w", layout.Bridge, err)
	}
	if address == nil {
		address = link.Attrs().HardwareAddr
	}
	for _, own := range addressesOf(ranges, address) {
		addr, err := netlink.ParseAddr(own.String())
		if err != nil {
			return fmt.Errorf("address %s: %w", own, err)
		}
		if own.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // no other host is on the bridge that could have it
		}
		if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add the address %[2]s to %[1]s: %[3]w", layout.Bridge, own, err)
		}
	}
	// A bridge without its own address takes the lowest of its pods', and changes it as
	// they come and go.
	if err := netlink.LinkSetHardwareAddr(link, address); err != nil {
		return fmt.Errorf("set the hardware address of %s: %w", layout.Bridge, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", layout.Bridge, err)
	}
	return nil
}

// addressesOf is all of a bridge with a hardware address. Without one of the link the
// kernel does not ask where pods are that it forwards packets of IPv6 to; it makes one with
// the interface, and not again.
func addressesOf(ranges []netip.Prefix, hardware net.HardwareAddr) (all []netip.Prefix) {
	for _, r := range ranges {
		all = append(all, gateway(r))
		if r.Addr().Is6() && len(hardware) == 6 {
			h := hardware
			link := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: h[0] ^ 2, h[1], h[2], 0xff, 0xfe, h[3], h[4], h[5]})
			all = append(all, netip.PrefixFrom(link, 64))
		}
	}
	return all
}

// gateway is the bridge's address in a range of pods, as the plugin chooses it.
func gateway(pods netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(pods.Masked().Addr().Next(), pods.Bits())
}

// routeTo is the route to a range of pods that the kernel makes with the bridge's address.
func routeTo(pods netip.Prefix, link netlink.Link) *netlink.Route {
	pods = pods.Masked()
	route := &netlink.Route{
		Family: netlink.FAMILY_V4, LinkIndex: link.Attrs().Index, Protocol: unix.RTPROT_KERNEL, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: pods.Addr().AsSlice(), Mask: net.CIDRMask(pods.Bits(), pods.Addr().BitLen())},
	}
	if pods.Addr().Is4() {
		route.Src = gateway(pods).Addr().AsSlice()
		return route
	}
	route.Family, route.Scope, route.Priority = netlink.FAMILY_V6, netlink.SCOPE_UNIVERSE, 256 // as the kernel's own
	return route
}
