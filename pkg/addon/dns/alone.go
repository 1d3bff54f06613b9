package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/coredns/caddy"
	"golang.org/x/sys/unix"
)

// CoreDNS opens its sockets so that others of the same user may listen at the same
// address, and the kernel shares the queries among them (SO_REUSEPORT; 1.15). A pod in
// the host's network is root to the kernel as we are: without any privilege it answered
// half of what the pods of the node asked. So nobody may be there before, and nobody may
// come once the sockets are open.

// unshared wants nobody to listen yet where we are going to.
func unshared(listen []netip.Addr) error {
	for _, ip := range listen {
		at := netip.AddrPortFrom(ip, Port)
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		tcp.Close()
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		udp.Close()
	}
	return nil
}

// unshare lets nobody else listen where an instance does. Neither CoreDNS nor caddy
// gives its sockets away, so they are found among those of the process.
func unshare(i *caddy.Instance) error {
	ours := map[string]bool{}
	for _, server := range i.Servers() {
		for _, at := range []net.Addr{server.Addr(), server.LocalAddr()} {
			if at != nil {
				ours[at.Network()+at.String()] = true
			}
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("keep the address of DNS from others: %w", err)
	}
	var errs []error
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || !ours[boundTo(fd)] {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0); err != nil {
			errs = append(errs, fmt.Errorf("keep the address of DNS from others: %w", err))
		}
	}
	return errors.Join(errs...)
}

// boundTo says where a socket is bound, as [net.Addr] has it; "" for anything else.
func boundTo(fd int) string {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return ""
	}
	network := map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]
	name, err := unix.Getsockname(fd)
	if err != nil {
		return ""
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return network + netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return network + netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}
