package config

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/host/probe"
)

// defaultRoutes are those of the machine that fakeHost makes up.
func defaultRoutes() []probe.Route {
	return []probe.Route{via("eth0", "192.0.2.0/24", 0), via("eth0", "0.0.0.0/0", 100), via("eth1", "::/0", 1024)}
}

func via(name, to string, metric int) probe.Route {
	return probe.Route{Interface: name, To: netip.MustParsePrefix(to), Metric: metric}
}

// networks is what a machine answers that has them.
func networks(interfaces []probe.Interface, routes ...probe.Route) func() (probe.Networks, error) {
	return func() (probe.Networks, error) { return probe.Networks{Interfaces: interfaces, Routes: routes}, nil }
}

func noNetworks() (probe.Networks, error) { return probe.Networks{}, errors.New("no interfaces") }

// defaultInterfaces are those of the machine that fakeHost makes up.
func defaultInterfaces() []probe.Interface {
	return []probe.Interface{
		nic("lo", "127.0.0.1/8", "::1/128"),
		nic("cni0", "10.42.0.1/24"),
		nic("eth0", "192.0.2.10/24", "fe80::1/64"),
		nic("eth1", "2001:db8::10/64"),
	}
}

// fakeHost is a machine named Node-A with an address of each family and the
// given files; a name that ends in a slash is a directory, in an @ a socket, in
// a | a FIFO.
func fakeHost(files map[string]string) host {
	machine := fstest.MapFS{}
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
		networks: networks(defaultInterfaces(), defaultRoutes()...),
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
func nic(name string, addrs ...string) probe.Interface {
	i := probe.Interface{Name: name, Flags: net.FlagUp}
	if name == "lo" {
		i.Flags |= net.FlagLoopback
	}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

// A network of the host's that an earlier start of ours has led to is package probe's to leave out.
func TestRoutesOfOthersAreNetworksOfTheHost(t *testing.T) {
	h := fakeHost(nil)
	c, err := loadAs(t, Server, []string{"--flannel-backend=host-gw"}, nil, h)
	if err != nil {
		t.Fatal(err)
	}
	if errs := c.checkNetworks(h); len(errs) != 0 {
		t.Errorf("without: %v", errs)
	}
	h.networks = networks(defaultInterfaces(), append(defaultRoutes(), via("eth0", "10.42.1.0/24", 0))...)
	if errs := c.checkNetworks(h); len(errs) != 1 || !strings.Contains(errs[0].Error(), "10.42.1.0/24") {
		t.Errorf("a route of somebody's: %v", errs)
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
	found, err := h.networks()
	if err != nil || len(found.Interfaces) == 0 {
		t.Errorf("got interfaces %v and error %v", found.Interfaces, err)
	}
}
