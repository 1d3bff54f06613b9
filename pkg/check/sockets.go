package check

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"lite.io/lite/pkg/config"
)

// listener is a socket that waits for others.
type listener struct {
	protocol string
	address  netip.AddrPort
	uid      int
	inode    string
	pid      int    // 0 = not known
	name     string // of the process
}

// conflicts: nobody can listen on a port of an address that another has.
func (l listener) conflicts(p config.Port) bool {
	if l.protocol != p.Protocol || int(l.address.Port()) != p.Number {
		return false
	}
	a := l.address.Addr().Unmap()
	return a.IsUnspecified() || p.Address.IsUnspecified() || a == p.Address
}

// kernel: a socket of the kernel's has no file.
func (l listener) kernel() bool { return l.inode == "0" }

func (l listener) holder(root bool) string {
	switch {
	case l.pid != 0:
		return fmt.Sprintf("%s (pid %d) on %s", l.name, l.pid, l.address)
	case l.kernel():
		return "the kernel (a tunnel) on " + l.address.String()
	case root:
		return fmt.Sprintf("a process of user %d on %s that is not visible from here, for example in another container", l.uid, l.address)
	}
	return fmt.Sprintf("a process of user %d on %s; root can see which one", l.uid, l.address)
}

const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// listeners reads the sockets of this network, and whose they are as far as that
// can be seen.
func (e *Env) listeners() ([]listener, error) {
	var all []listener
	for _, f := range []struct{ file, protocol, state string }{
		{"tcp", "tcp", tcpListen}, {"tcp6", "tcp", tcpListen}, {"udp", "udp", udpOpen}, {"udp6", "udp", udpOpen},
	} {
		data, err := e.read("/proc/net/" + f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("read the sockets: %w", err)
		}
		for l := range strings.Lines(string(data)) {
			if found, ok := parseSocket(strings.Fields(l), f.state); ok {
				found.protocol = f.protocol
				all = append(all, found)
			}
		}
	}
	owners := e.socketOwners()
	for i, l := range all {
		if pid, ok := owners[l.inode]; ok {
			all[i].pid, all[i].name = pid, e.text(fmt.Sprintf("/proc/%d/comm", pid))
		}
	}
	return all, nil
}

// parseSocket parses sl local remote state queues timer retransmits uid timeout
// inode ….
func parseSocket(f []string, state string) (l listener, ok bool) {
	if len(f) < 10 || f[3] != state {
		return l, false
	}
	address, port, _ := strings.Cut(f[1], ":")
	bytes, err1 := hex.DecodeString(address)
	number, err2 := strconv.ParseUint(port, 16, 16)
	uid, err3 := strconv.Atoi(f[7])
	if errors.Join(err1, err2, err3) != nil || len(bytes)%4 != 0 {
		return l, false
	}
	// Words of the machine's byte order.
	for i := 0; i < len(bytes); i += 4 {
		binary.BigEndian.PutUint32(bytes[i:], binary.NativeEndian.Uint32(bytes[i:]))
	}
	addr, ok := netip.AddrFromSlice(bytes)
	return listener{address: netip.AddrPortFrom(addr, uint16(number)), uid: uid, inode: f[9]}, ok
}

// socketOwners maps the inodes of sockets to processes: to all for root, otherwise to the
// user's own.
func (e *Env) socketOwners() map[string]int {
	owners := map[string]int{}
	for _, p := range e.processes() {
		dir := e.path(fmt.Sprintf("/proc/%d/fd", p.pid))
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			target, err := os.Readlink(dir + "/" + f.Name())
			if inode, ok := strings.CutPrefix(target, "socket:["); ok && err == nil {
				owners[strings.TrimSuffix(inode, "]")] = p.pid
			}
		}
	}
	return owners
}
