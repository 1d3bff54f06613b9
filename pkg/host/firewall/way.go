package firewall

import (
	"encoding/binary"
	"net"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Way is an interface that has lost an address, a route, or a neighbor.
type Way struct {
	Link     int   // its index; 0 if the route led out of none, or of several
	Protocol uint8 // what the route was marked with; 0 for all else
}

// wayGroups are the events of interfaces, and of what belongs to them.
var wayGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
}

// interfaces is the names of interfaces by their index, as last reported.
type interfaces map[int32]string

func listInterfaces() interfaces {
	names := interfaces{}
	all, _ := net.Interfaces() // others are reported when they change
	for _, i := range all {
		names[int32(i.Index)] = i.Name
	}
	return names
}

// lost is what is gone according to a message.
func (names interfaces) lost(m syscall.NetlinkMessage) Lost {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return Lost{Links: names.link(m)}
	case unix.RTM_DELADDR:
		if len(m.Data) >= unix.SizeofIfAddrmsg {
			return Lost{Ways: []Way{{Link: int(binary.NativeEndian.Uint32(m.Data[4:]))}}}
		}
	case unix.RTM_DELNEIGH:
		// One that somebody had set has failed by now, as those have that do not answer; not
		// so in a forwarding database. The kernel forgets many of other states.
		const sizeofNdmsg = 12 // family, index, state
		if len(m.Data) >= sizeofNdmsg && binary.NativeEndian.Uint16(m.Data[8:])&(unix.NUD_PERMANENT|unix.NUD_FAILED) != 0 {
			return Lost{Ways: []Way{{Link: int(binary.NativeEndian.Uint32(m.Data[4:]))}}}
		}
	case unix.RTM_DELROUTE:
		if len(m.Data) >= unix.SizeofRtMsg && m.Data[4] == unix.RT_TABLE_MAIN {
			return Lost{Ways: []Way{{Link: number(m.Data[unix.SizeofRtMsg:], unix.RTA_OIF), Protocol: m.Data[5]}}}
		}
	case unix.RTM_NEWNETCONF:
		return Lost{Settings: forwardingEnds(m)}
	}
	return Lost{}
}

// link returns the name of an interface that is gone, down, no longer on its bridge,
// or called otherwise now; none of all others.
func (names interfaces) link(m syscall.NetlinkMessage) []string {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return nil
	}
	info, name := nl.DeserializeIfInfomsg(m.Data), text(m.Data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME)
	if m.Header.Type == unix.RTM_DELLINK {
		if info.Family != unix.AF_BRIDGE {
			delete(names, info.Index)
		}
		return []string{name}
	}
	was := names[info.Index]
	names[info.Index] = name
	switch {
	case was != "" && was != name:
		return []string{was, name}
	case info.Flags&unix.IFF_UP == 0:
		return []string{name}
	}
	return nil
}

// From linux/netconf.h; golang.org/x/sys does not have them.
const (
	netconfIfindex    = 1
	netconfForwarding = 2
	netconfAll        = -1
	sizeofNetconfmsg  = 4
)

// forwardingEnds reports whether a message means that packets of a family are no longer
// forwarded.
func forwardingEnds(m syscall.NetlinkMessage) bool {
	if len(m.Data) < sizeofNetconfmsg {
		return false
	}
	attrs := m.Data[sizeofNetconfmsg:]
	return number(attrs, netconfIfindex) == netconfAll && len(attribute(attrs, netconfForwarding)) == 4 &&
		number(attrs, netconfForwarding) == 0
}

// number is an attribute that is one; 0 if it is not there.
func number(attrs []byte, kind uint16) int {
	if value := attribute(attrs, kind); len(value) == 4 {
		return int(int32(binary.NativeEndian.Uint32(value)))
	}
	return 0
}

// hideNew keeps the kernel from reporting new neighbors, and new routes, of which a machine
// may learn many from others.
func hideNew(fd int) error {
	// A filter reads the type in the head of a message in this order.
	kind := func(kind uint16) uint32 {
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, kind)))
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind(unix.RTM_NEWROUTE), Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind(unix.RTM_NEWNEIGH), Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}
