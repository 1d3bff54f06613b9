package config

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// host is what there is to know about the machine; tests make one up.
type host struct {
	hostname   func() (string, error)
	interfaces func() ([]iface, error)
	overlay    func() []netip.Prefix // what our own routes lead to
	readFile   func(file string) ([]byte, error)
	readDir    func(dir string) ([]string, error)
	stat       func(file string) (fs.FileInfo, error)
	writable   func(dir string) error
	listen     func(addr string) error // and close at once
	// readRegular reads what a user names; see file.ReadRegular.
	readRegular func(file string) ([]byte, error)
}

func thisHost() host {
	return host{
		hostname:    os.Hostname,
		interfaces:  interfaces,
		overlay:     overlayRoutes,
		readFile:    os.ReadFile,
		readRegular: file.ReadRegular,
		readDir: func(dir string) (names []string, _ error) {
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names, err
		},
		stat:     os.Stat,
		writable: func(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) },
		listen: func(addr string) error {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			return l.Close()
		},
	}
}

// iface is a network interface.
type iface struct {
	name  string
	flags net.Flags
	addrs []netip.Prefix // with host bits, the primary one first
	// passing are those that will not last: temporary ones of IPv6, which the
	// kernel lists first and replaces every day (RFC 8981), those that have run
	// out, and those that somebody else turned out to have.
	passing []netip.Addr
}

func interfaces() ([]iface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var ifaces []iface
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		found := iface{name: i.Name, flags: i.Flags}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				found.addrs = append(found.addrs, p)
			}
		}
		ifaces = append(ifaces, found)
	}
	return ifaces, nil
}

// ours reports whether an interface was made by a cluster on this host, by us
// or by what came before, rather than being the host's own.
func ours(name string) bool {
	return slices.ContainsFunc([]string{layout.Bridge, "flannel.*", layout.DevicePattern, layout.PodDevices, "kube-*"}, func(pattern string) bool {
		match, err := path.Match(pattern, name)
		return match && err == nil
	})
}

// route is a line of the main routing table.
type route struct {
	iface  string
	dst    netip.Prefix
	metric uint64
}

// networks returns the interfaces and the routes of the host, those of lowest
// metric first, without our own to other nodes' pods. A kernel without IPv6 has no
// routes for it.
func (h host) networks() ([]iface, []route, error) {
	ifaces, err := h.interfaces()
	if err != nil {
		return nil, nil, err
	}
	h.findPassing(ifaces)
	var routes []route
	overlay := h.overlay()
	for file, parse := range map[string]func([]string) (route, bool){
		"/proc/net/route": parseRoute4, "/proc/net/ipv6_route": parseRoute6,
	} {
		data, err := h.readFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("read routes: %w", err)
		}
		for scanner := bufio.NewScanner(bytes.NewReader(data)); scanner.Scan(); {
			if r, ok := parse(strings.Fields(scanner.Text())); ok && !slices.Contains(overlay, r.dst) {
				routes = append(routes, r)
			}
		}
	}
	slices.SortStableFunc(routes, func(a, b route) int { return cmp.Compare(a.metric, b.metric) })
	return ifaces, routes, nil
}

// overlayRoutes is what an earlier process has left, since pods need it: with
// host-gw they lead out of an interface of the host's.
func overlayRoutes() (all []netip.Prefix) {
	routes, _ := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: layout.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// findPassing reads Address Index Length Scope Flags Interface, numbers being
// hexadecimal. A kernel without IPv6 has no such file.
func (h host) findPassing(ifaces []iface) {
	const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_DADFAILED
	data, _ := h.readFile("/proc/net/if_inet6")
	for l := range strings.Lines(string(data)) {
		f := strings.Fields(l)
		if len(f) < 6 {
			continue
		}
		bytes, err1 := hex.DecodeString(f[0])
		flags, err2 := strconv.ParseUint(f[4], 16, 32)
		addr, ok := netip.AddrFromSlice(bytes)
		if errors.Join(err1, err2) != nil || !ok || flags&passing == 0 {
			continue
		}
		for i := range ifaces {
			if ifaces[i].name == f[5] {
				ifaces[i].passing = append(ifaces[i].passing, addr)
			}
		}
	}
}

// routeUsable: RTF_UP is set and RTF_REJECT, of routes that lead nowhere, is not.
func routeUsable(flags string) bool {
	f, err := strconv.ParseUint(flags, 16, 64)
	return err == nil && f&unix.RTF_UP != 0 && f&unix.RTF_REJECT == 0
}

// parseRoute4 parses Iface Destination Gateway Flags RefCnt Use Metric Mask …,
// addresses being numbers of the machine's byte order.
func parseRoute4(f []string) (r route, ok bool) {
	if len(f) < 8 || !routeUsable(f[3]) {
		return r, false
	}
	dst, err1 := strconv.ParseUint(f[1], 16, 32)
	mask, err2 := strconv.ParseUint(f[7], 16, 32)
	metric, err3 := strconv.ParseUint(f[6], 10, 64)
	var addr, bits [4]byte
	binary.NativeEndian.PutUint32(addr[:], uint32(dst))
	binary.NativeEndian.PutUint32(bits[:], uint32(mask))
	ones, _ := net.IPMask(bits[:]).Size()
	return route{f[0], netip.PrefixFrom(netip.AddrFrom4(addr), ones), metric}, errors.Join(err1, err2, err3) == nil
}

// parseRoute6 parses Destination Length Source Length Gateway Metric RefCnt
// Use Flags Iface, all numbers hexadecimal.
func parseRoute6(f []string) (r route, ok bool) {
	if len(f) < 10 || !routeUsable(f[8]) {
		return r, false
	}
	dst, err1 := hex.DecodeString(f[0])
	ones, err2 := strconv.ParseUint(f[1], 16, 8)
	metric, err3 := strconv.ParseUint(f[5], 16, 64)
	addr, ok := netip.AddrFromSlice(dst)
	return route{f[9], netip.PrefixFrom(addr, int(ones)), metric}, ok && errors.Join(err1, err2, err3) == nil
}

// nodeAddress chooses the address of a family that other nodes reach this one
// by: the first that lasts of the interface of the default route; with no such
// route, that of an interface that is up. It returns the interface's name too.
func nodeAddress(ifaces []iface, routes []route, is6 bool) (netip.Addr, string) {
	first := func(i iface) (found netip.Addr) {
		for _, p := range i.addrs {
			switch {
			case p.Addr().Is6() != is6 || !p.Addr().IsGlobalUnicast():
			case !slices.Contains(i.passing, p.Addr()):
				return p.Addr()
			case !found.IsValid():
				found = p.Addr() // if there is no other
			}
		}
		return found
	}
	for _, r := range routes {
		for _, i := range ifaces {
			if r.iface != i.name || r.dst.Bits() != 0 || r.dst.Addr().Is6() != is6 {
				continue
			}
			if addr := first(i); addr.IsValid() {
				return addr, i.name
			}
		}
	}
	for _, i := range ifaces {
		if addr := first(i); addr.IsValid() && i.flags&net.FlagUp != 0 && i.flags&net.FlagLoopback == 0 && !ours(i.name) {
			return addr, i.name
		}
	}
	return netip.Addr{}, ""
}
