package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RFC 5227, in less time: what has an address answers within a few milliseconds.
const (
	probes    = 3
	probeWait = 100 * time.Millisecond
)

// arp is the neighbors of an IPv4 address.
type arp struct {
	*os.File
	ip   netip.Addr
	link string
	mac  net.HardwareAddr
}

func newARP(ip netip.Addr, link netlink.Link) (*arp, error) {
	at := link.Attrs()
	if len(at.HardwareAddr) != 6 || at.RawFlags&unix.IFF_NOARP != 0 {
		return nil, fmt.Errorf("interface %s, in whose network %s is, is not an Ethernet interface: its neighbors cannot be told who has the address", at.Name, ip)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(network(unix.ETH_P_ARP)))
	if err != nil {
		return nil, fmt.Errorf("open a socket for ARP: %w", err)
	}
	a := &arp{os.NewFile(uintptr(fd), "arp"), ip, at.Name, at.HardwareAddr}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_ARP), Ifindex: at.Index}); err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for ARP on %s: %w", at.Name, err), a.Close())
	}
	return a, nil
}

// network is a number in the order of bytes that sockets have.
func network(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// Operations of ARP.
const (
	request = 1
	reply   = 2
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frame is an Ethernet frame with an ARP packet for IPv4.
func (a *arp) frame(operation uint16, sender netip.Addr, target net.HardwareAddr) []byte {
	from, to := sender.As4(), a.ip.As4()
	f := append(append([]byte{}, broadcast...), a.mac...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4)
	f = binary.BigEndian.AppendUint16(f, operation)
	f = append(append(f, a.mac...), from[:]...)
	return append(append(f, target...), to[:]...)
}

// claims returns who says that it has an address, or that it wants it, nil for nobody else.
func (a *arp) claims(f []byte) net.HardwareAddr {
	if len(f) < 42 || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_ARP || [6]byte(f[14:]) != [6]byte{0, 1, 8, 0, 6, 4} {
		return nil
	}
	who, sender, target := net.HardwareAddr(f[22:28]), netip.AddrFrom4([4]byte(f[28:])), netip.AddrFrom4([4]byte(f[38:]))
	wants := binary.BigEndian.Uint16(f[20:]) == request && sender.IsUnspecified() && target == a.ip
	if who.String() == a.mac.String() || sender != a.ip && !wants {
		return nil
	}
	return who
}

// probe implements neighbors.
func (a *arp) probe(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = a.SetReadDeadline(time.Unix(1, 0)) })()
	for range probes {
		if _, err := a.Write(a.frame(request, netip.IPv4Unspecified(), make(net.HardwareAddr, 6))); err != nil {
			return fmt.Errorf("probe %s on %s: %w", a.ip, a.link, err)
		}
		until := time.Now().Add(probeWait)
		buffer := make([]byte, 128)
		for ctx.Err() == nil {
			if err := a.SetReadDeadline(until); err != nil {
				return err
			}
			n, err := a.Read(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("probe %s on %s: %w", a.ip, a.link, err)
			}
			if who := a.claims(buffer[:n]); who != nil {
				return fmt.Errorf("%s is in use, by %s on %s; set cluster-vip to an unused address, or take it away from there", a.ip, who, a.link)
			}
		}
	}
	return nil
}

// announce implements neighbors. Some believe requests alone, some replies alone.
func (a *arp) announce(context.Context) error {
	_, err := a.Write(a.frame(request, a.ip, make(net.HardwareAddr, 6)))
	if err == nil {
		_, err = a.Write(a.frame(reply, a.ip, broadcast))
	}
	return err
}
