package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// CoreDNS opens its sockets so that others of the same user may listen at the same
// address, and the kernel shares the queries among them (SO_REUSEPORT; 1.15). A pod in
// the host's network is root to the kernel as we are: without any privilege it answered
// half of what the pods of the node asked. So nobody may be there before, and nobody may
// come once the sockets are open.

// unshared wants nobody to listen yet where we are going to.
func unshared(listen []netip.Addr) error {
	for _, ip := range listen {
		at := netip.AddrPortFrom(ip, layout.DNSPort).String()
		if err := errors.Join(probe.Unused("tcp", at), probe.Unused("udp", at)); err != nil {
			return err
		}
	}
	return nil
}

// unshare lets nobody else listen where we do, at any port of these addresses. Neither
// CoreDNS nor caddy gives its sockets away, so they are found among those of the process.
func unshare(listen []netip.Addr) error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("reserve the address of DNS: %w", err)
	}
	var errs []error
	ports := map[uint16]bool{}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		at := boundTo(fd)
		if !slices.Contains(listen, at.Addr()) {
			continue
		}
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
		ports[at.Port()] = true
	}
	elsewhere := netip.AddrFrom4([4]byte{127, 53, 53, 53}) // where nobody has a reason to listen
	for port := range ports {
		// The kernel remembers for each TCP port that all its sockets share it (6.18). One
		// socket that does not, at another address, makes it check each socket again.
		errs = append(errs, probe.Unused("tcp", netip.AddrPortFrom(elsewhere, port).String()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reserve the address of DNS: %w", err)
	}
	return nil
}

// boundTo is the address that a socket is bound to; the zero address for anything else.
func boundTo(fd int) netip.AddrPort {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
