package config

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

const (
	defaultRoute4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n" +
		"eth0 00000000 010200C0 0003 0 0 100 00000000 0 0 0\n" +
		"eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
	defaultRoute6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 00000002 00000000 00000003 eth1\n" +
		"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n"
)

// fakeHost is a machine named Node-A with an address of each family and the
// given files; a name that ends in a slash is a directory, in an @ a socket, in
// a | a FIFO.
func fakeHost(files map[string]string) host {
	machine := fstest.MapFS{"proc/net/route": {Data: []byte(defaultRoute4)}, "proc/net/ipv6_route": {Data: []byte(defaultRoute6)}}
	for name, content := range files {
		file := &fstest.MapFile{Data: []byte(content), Mode: 0o600}
		switch {
		case strings.HasSuffix(name, "/"):
			file.Mode = fs.ModeDir | 0o700
		case strings.HasSuffix(name, "@"):
			file.Mode = fs.ModeSocket | 0o600
		case strings.HasSuffix(name, "|"):
			file.Mode = fs.ModeNamedPipe | 0o600
		}
		machine[strings.Trim(name, "/@|")] = file
	}
	local := func(file string) string {
		if file == "/" {
			return "."
		}
		return strings.TrimPrefix(file, "/")
	}
	return host{
		hostname: func() (string, error) { return "Node-A", nil },
		overlay:  func() []netip.Prefix { return nil },
		interfaces: func() ([]iface, error) {
			return []iface{
				nic("lo", "127.0.0.1/8", "::1/128"),
				nic("cni0", "10.42.0.1/24"),
				nic("eth0", "192.0.2.10/24", "fe80::1/64"),
				nic("eth1", "2001:db8::10/64"),
			}, nil
		},
		readFile: func(file string) ([]byte, error) { return machine.ReadFile(local(file)) },
		readDir: func(dir string) (names []string, _ error) {
			entries, err := machine.ReadDir(local(dir))
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names, err
		},
		stat: func(file string) (fs.FileInfo, error) { return machine.Stat(local(file)) },
		readRegular: func(path string) ([]byte, error) {
			if info, err := machine.Stat(local(path)); err == nil && !info.Mode().IsRegular() {
				return nil, file.ErrIrregular
			}
			return machine.ReadFile(local(path))
		},
		writable: func(string) error { return nil },
		listen:   func(string) error { return nil },
	}
}

// nic is an interface that is up.
func nic(name string, addrs ...string) iface {
	i := iface{name: name, flags: net.FlagUp}
	if name == "lo" {
		i.flags |= net.FlagLoopback
	}
	for _, a := range addrs {
		i.addrs = append(i.addrs, netip.MustParsePrefix(a))
	}
	return i
}

func TestNetworks(t *testing.T) {
	h := fakeHost(map[string]string{
		"/proc/net/route": defaultRoute4 +
			"wlan0 00000000 010200C0 0003 0 0 20 00000000 0 0 0\n" + // a better default route
			"eth2 00000A0A 00000000 0000 0 0 0 0000FFFF 0 0 0\n" + // down
			"* 00000B0A 00000000 0200 0 0 0 0000FFFF 0 0 0\n" + // unreachable
			"eth2 nonsense 00000000 0001 0 0 0 00000000 0 0 0\n\n",
	})
	_, routes, err := h.networks()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range routes {
		got = append(got, r.dst.String()+" "+r.iface)
	}
	want := []string{"192.0.2.0/24 eth0", "0.0.0.0/0 wlan0", "0.0.0.0/0 eth0", "::/0 eth1"}
	if !slices.Equal(got, want) {
		t.Errorf("got routes %q, want %q", got, want)
	}
}

// The routes of host-gw to other nodes' pods, which an earlier start has left, are
// no network of the host's.
func TestOwnRoutesAreNoNetworkOfTheHost(t *testing.T) {
	h := fakeHost(map[string]string{"/proc/net/route": defaultRoute4 + "eth0 00012A0A 0B0200C0 0003 0 0 0 00FFFFFF 0 0 0\n"})
	c, err := loadAs(t, Server, []string{"--flannel-backend=host-gw"}, nil, h)
	if err != nil {
		t.Fatal(err)
	}
	if errs := c.checkNetworks(h); len(errs) != 1 || !strings.Contains(errs[0].Error(), "10.42.1.0/24") {
		t.Errorf("a route of somebody's: %v", errs)
	}
	h.overlay = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")} }
	if errs := c.checkNetworks(h); len(errs) != 0 {
		t.Errorf("a route of ours: %v", errs)
	}
	if layout.RouteProtocol != 76 {
		t.Error("our routes have another protocol")
	}
}

// A temporary address is replaced every day, and the node would start anew.
func TestTheNodeHasAnAddressThatLasts(t *testing.T) {
	ifaces := []iface{nic("eth0", "2001:db8::bad/64", "2001:db8::11/64", "2001:db8::10/64", "192.0.2.10/24")}
	h := fakeHost(map[string]string{"/proc/net/if_inet6": "20010db8000000000000000000000bad 02 40 00 01     eth0\n" +
		"20010db8000000000000000000000011 02 40 00 20     eth0\n20010db8000000000000000000000010 02 40 00 00     eth0\nnonsense\n"})
	h.findPassing(ifaces)
	if addr, _ := nodeAddress(ifaces, nil, true); addr.String() != "2001:db8::10" {
		t.Errorf("got %s", addr)
	}
	ifaces[0].addrs = ifaces[0].addrs[:2]
	if addr, _ := nodeAddress(ifaces, nil, true); addr.String() != "2001:db8::bad" {
		t.Errorf("with no other, got %s", addr)
	}
}

func TestNetworksFailure(t *testing.T) {
	h := fakeHost(nil)
	h.readFile = func(file string) ([]byte, error) { return nil, fs.ErrPermission }
	if _, _, err := h.networks(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable routes: got %v", err)
	}
	h.interfaces = func() ([]iface, error) { return nil, errors.New("no interfaces") }
	if _, _, err := h.networks(); err == nil {
		t.Error("unreadable interfaces: no error")
	}
}

// The real machine is asked only for what does not depend on it.
func TestThisHost(t *testing.T) {
	h, dir := thisHost(), t.TempDir()
	if err := h.writable(dir); err != nil {
		t.Error(err)
	}
	if _, err := h.readDir(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: got %v", err)
	}
	fifo, link := dir+"/fifo", dir+"/link"
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(fifo, link)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.readRegular(link); !errors.Is(err, file.ErrIrregular) {
		t.Errorf("a link to a FIFO: got %v", err)
	}
	if err := h.listen("127.0.0.1:0"); err != nil {
		t.Error(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := h.listen(taken.Addr().String()); err == nil {
		t.Error("a port that is taken is free")
	}
	ifaces, _, err := h.networks()
	if err != nil || len(ifaces) == 0 {
		t.Errorf("got interfaces %v and error %v", ifaces, err)
	}
}
