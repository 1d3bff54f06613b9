package watch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// UseStandby creates the interface that has the node's addresses while the machine has
// none: the kubelet does not accept an address that no interface has, nor a loopback one
// (1.37). Without addresses, it removes the interface. It is a bridge without ports, a kind
// of interface that a node needs anyway.
func UseStandby(addrs []netip.Addr) error {
	link, err := netlink.LinkByName(layout.StandbyDevice)
	missing := errors.As(err, &netlink.LinkNotFoundError{})
	switch {
	case err != nil && !missing:
		return fmt.Errorf("find interface %s: %w", layout.StandbyDevice, err)
	case len(addrs) == 0 && missing:
		return nil
	case len(addrs) == 0:
		if err := netlink.LinkDel(link); err != nil {
			return fmt.Errorf("remove interface %s: %w", layout.StandbyDevice, err)
		}
		return nil
	case missing:
		link = &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: layout.StandbyDevice}}
		if err := netlink.LinkAdd(link); err != nil {
			return fmt.Errorf("create interface %s: %w", layout.StandbyDevice, err)
		}
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add the address to interface %s (%s): %w", layout.StandbyDevice, a, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", layout.StandbyDevice, err)
	}
	return nil
}
