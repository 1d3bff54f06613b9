package firewall

import (
	"context"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/netfilter"
)

// olderEvery is how often the older tables are counted. The kernel does not report their
// changes, so this is the only thing that is polled: one system call per table, of some
// microseconds, and only while a part has rules there.
const olderEvery = 2 * time.Second

// olderAppear is how often it is looked whether there are older tables at all, where no
// part has rules there: two files of a few bytes.
const olderAppear = 30 * time.Second

// olderNames is which tables of the older interface there are.
func olderNames() (all string) {
	for _, f := range olderFamilies {
		all += strings.Join(netfilter.OlderTables(f.is6), " ") + ";"
	}
	return all
}

// olderGetInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO of linux/netfilter_ipv4/ip_tables.h.
const olderGetInfo = 64

// olderInfo is struct ipt_getinfo, which ip6t_getinfo is like.
type olderInfo struct {
	name               [32]byte
	hooks              uint32
	entry, underflow   [5]uint32
	numEntries, sizeof uint32
}

// older checks the tables of the older interface of the packet filter.
type older struct {
	sockets [2]int // IPv4 and IPv6; -1 where there is none
}

var olderFamilies = [2]struct {
	domain, level int
	is6           bool
}{
	{unix.AF_INET, unix.SOL_IP, false},
	{unix.AF_INET6, unix.SOL_IPV6, true},
}

func openOlder() *older {
	o := &older{}
	for i, f := range olderFamilies {
		fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			fd = -1
		}
		o.sockets[i] = fd
	}
	return o
}

func (o *older) close() {
	for _, fd := range o.sockets {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// state is how many rules each table has, and how they lie in it. Tables that nobody
// uses are not asked for, since that would make them.
func (o *older) state() map[Table]olderInfo {
	all := map[Table]olderInfo{}
	for i, f := range olderFamilies {
		if o.sockets[i] < 0 {
			continue
		}
		for _, name := range netfilter.OlderTables(f.is6) {
			if info, ok := olderTable(o.sockets[i], f.level, name); ok {
				all[Table{[2]string{"ip", "ip6"}[i], name}] = info
			}
		}
	}
	return all
}

func olderTable(fd, level int, name string) (olderInfo, bool) {
	var info olderInfo
	copy(info.name[:len(info.name)-1], name)
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), olderGetInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info, errno == 0
}

// follow calls changed when a table has, or is gone.
func (o *older) follow(ctx context.Context, changed func()) {
	tick := time.NewTicker(olderEvery)
	defer tick.Stop()
	before := o.state()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := o.state()
		for table, info := range before {
			if now[table] != info {
				changed()
				break
			}
		}
		before = now
	}
}
