// Package resolver finds the name servers that this machine itself asks, also
// behind the stub that systemd-resolved puts before them.
package resolver

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lite.io/lite/pkg/file"
)

// Files is where name servers stand.
type Files struct {
	Usual string // what programs of the machine read
	// BehindResolved is where systemd-resolved writes the servers that it asks
	// itself.
	BehindResolved string
}

// System is the files of this machine.
func System() Files {
	return Files{Usual: "/etc/resolv.conf", BehindResolved: "/run/systemd/resolve/resolv.conf"}
}

// File is the file of name servers that pods can inherit, "" if there is none.
// systemd-resolved and others listen on a loopback address, which inside a pod is the pod's
// own.
func (f Files) File() string {
	usual, err := servers(f.Usual)
	if err != nil {
		return ""
	}
	if _, err := os.Stat(f.BehindResolved); err == nil && len(usual) > 0 && allLoopback(usual) {
		return f.BehindResolved
	}
	return f.Usual
}

// Unfinished is the number of the first nameserver line of File without a server, 0 if there is none. The kubelet
// (1.37) starts no pod with such a file, whatever else is in it.
func (f Files) Unfinished() int {
	data, err := file.ReadRegular(f.File())
	if err != nil {
		return 0
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		if words := strings.Fields(line); len(words) == 1 && words[0] == "nameserver" {
			return number
		}
	}
	return 0
}

// Servers is the name servers that a program on the network of this machine can
// ask, in their order. The stub of systemd-resolved is never among them: what it
// would ask stands in its file, and if nothing does it asks public servers that
// nobody has chosen.
func (f Files) Servers() []netip.Addr {
	usual, _ := servers(f.Usual)
	if allLoopback(usual) {
		behind, _ := servers(f.BehindResolved)
		if real := slices.DeleteFunc(slices.Clone(behind), isLoopback); len(real) > 0 {
			return real
		}
		usual = append(usual, behind...)
	}
	return slices.DeleteFunc(usual, isStub)
}

// isLoopback knows the addresses that lead to the machine itself. To ask 0.0.0.0
// is to ask 127.0.0.1.
func isLoopback(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }

// isStub knows the addresses that systemd-resolved listens on.
func isStub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

func allLoopback(servers []netip.Addr) bool {
	return !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !isLoopback(a) })
}

// servers reads the lines "nameserver <address>" of a file (resolv.conf(5)). A FIFO in its
// place would hold up the start, and DNS, forever.
func servers(path string) ([]netip.Addr, error) {
	data, err := file.ReadRegular(path)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(f[1])
		if err == nil && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all, nil
}

// dirs is the directories in which a change shows: files are replaced by others
// of the same name, and the usual one may be a link, also to what is not there yet.
func (f Files) dirs() []string {
	dirs := []string{existing(filepath.Dir(f.BehindResolved))}
	at := f.Usual
	for range 10 { // more links are a loop
		dirs = append(dirs, existing(filepath.Dir(at)))
		target, err := os.Readlink(at)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(at), target)
		}
		at = target
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// existing is the directory, or the one above it in which it will appear.
func existing(dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
