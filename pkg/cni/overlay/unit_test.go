package overlay

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"lite.io/lite/pkg/layout"
)

func TestInterface(t *testing.T) {
	h := newHosts(t, HostGW, 1)[0] // eth0 192.0.2.1/24, cni0 10.42.1.1/24
	must(t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}}))
	up(t, h.kernel, "eth1", "198.51.100.1/24", "198.51.100.2/24")
	must(t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bare"}}))
	must(t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "off"}}))
	up(t, h.kernel, "off", "203.0.113.1/24")
	off, err := h.kernel.LinkByName("off")
	must(t, err)
	must(t, h.kernel.LinkSetDown(off))
	for _, name := range []string{"twin1", "twin2"} {
		must(t, h.kernel.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
		up(t, h.kernel, name, "192.0.2.200/32")
	}
	for _, test := range []struct{ ip, named, name, addr, why string }{
		{"192.0.2.1", "", "eth0", "192.0.2.1", "it has the node's address 192.0.2.1"},
		{"192.0.2.1", "eth0", "eth0", "192.0.2.1", "names it, and it has"},
		{"192.0.2.1", "eth1", "eth1", "198.51.100.1", "198.51.100.1 is its first"},
		{"198.51.100.2", "eth1", "eth1", "198.51.100.2", "names it, and it has"},
		{"192.0.2.200", "twin2", "twin2", "192.0.2.200", "names it"},
		{"192.0.2.200", "", "", "", "several interfaces have the node's address 192.0.2.200: choose one with --flannel-iface; there are twin1 192.0.2.200/32; twin2 192.0.2.200/32"},
		{"192.0.2.7", "", "", "", "no interface has the node's address 192.0.2.7"},
		{"192.0.2.7", "", "", "", "off 203.0.113.1/24 (down)"},
		{"127.0.0.1", "", "", "", "on lo, which leads to no other node"},
		{"203.0.113.1", "", "", "", "interface off with address 203.0.113.1 is down"},
		{"192.0.2.1", "off", "", "", "is down: bring it up"},
		{"192.0.2.1", "bare", "", "", "bare (--flannel-iface) has no IPv4 address"},
		{"192.0.2.1", "eth7", "", "", "eth7 (--flannel-iface) does not exist; there are "},
	} {
		var got Iface
		err := in(h.ns, func() (err error) {
			got, err = Interface(netip.MustParseAddr(test.ip), test.named)
			return err
		})
		if test.name == "" {
			if err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("%s %s: got %v", test.ip, test.named, err)
			}
			continue
		}
		if err != nil || got.Name != test.name || got.IP.String() != test.addr || got.MTU != 1500 || !strings.Contains(got.Why, test.why) {
			t.Errorf("%s %s: got %+v, %v", test.ip, test.named, got, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Backend: VXLAN, NodeIP: netip.MustParseAddr("192.0.2.1"), Pods: netip.MustParsePrefix("10.42.1.0/24"), Cluster: cluster}
	must(t, good.check())
	for want, change := range map[string]func(*Config){
		"set an IPv4 address":              func(c *Config) { c.NodeIP = netip.MustParseAddr("fd00::1") },
		"is not an IPv4 network":           func(c *Config) { c.Pods = netip.MustParsePrefix("10.42.1.7/24") },
		"is outside of --cluster-cidr 10.": func(c *Config) { c.Pods = netip.MustParsePrefix("10.0.0.0/8") },
		"not a UDP port":                   func(c *Config) { c.Port = 70000 },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v instead of %s", err, want)
		}
	}
	if _, err := newBackend(Config{Backend: "ipip"}, nil); err == nil || !strings.Contains(err.Error(), `unknown backend "ipip": use vxlan, host-gw or wireguard-native`) {
		t.Errorf("got %v", err)
	}
}

// What other nodes claim about themselves is not trusted blindly, and one that is
// refused does not stop the others.
func TestAccept(t *testing.T) {
	mac := hardwareAddr(netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("10.42.1.0/24"))
	o := &Overlay{
		config:  Config{Backend: VXLAN, Pods: netip.MustParsePrefix("10.42.1.0/24"), Cluster: cluster},
		outer:   Iface{IP: netip.MustParseAddr("192.0.2.1")},
		backend: &vxlan{port: layout.VXLANPort, mac: mac},
	}
	peer := func(node string, number byte) Peer {
		ip, pods := netip.AddrFrom4([4]byte{192, 0, 2, number}), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, number, 0}), 24)
		return Peer{node, time.Time{}, Local{Backend: VXLAN, IP: ip, MAC: hardwareAddr(ip, pods).String(), Port: layout.VXLANPort}, []netip.Prefix{pods}}
	}
	for want, change := range map[string]func(*Peer){
		"does not publish yet":                  func(p *Peer) { p.Local = Local{} },
		`has the backend "host-gw", this node`:  func(p *Peer) { p.Backend = HostGW },
		"not that of an IPv4 host":              func(p *Peer) { p.IP = netip.Addr{} },
		`has "127.0.0.1" as its address`:        func(p *Peer) { p.IP = netip.MustParseAddr("127.0.0.1") },
		`has "224.0.0.1" as its address`:        func(p *Peer) { p.IP = netip.MustParseAddr("224.0.0.1") },
		"same address 192.0.2.1 as this node":   func(p *Peer) { p.IP = netip.MustParseAddr("192.0.2.1") },
		"which is in the range of pods":         func(p *Peer) { p.IP = netip.MustParseAddr("10.42.3.3") },
		"no pod CIDR yet":                       func(p *Peer) { p.Pods = nil },
		"overlaps this node's 10.42.1.0/24":     func(p *Peer) { p.Pods = cluster },
		"is outside of --cluster-cidr":          func(p *Peer) { p.Pods = []netip.Prefix{netip.MustParsePrefix("10.43.0.0/24")} },
		"10.42.9.9/24\", which is not":          func(p *Peer) { p.Pods = []netip.Prefix{netip.MustParsePrefix("10.42.9.9/24")} },
		"fd42::/64, of an IP family that":       func(p *Peer) { p.Pods = []netip.Prefix{netip.MustParsePrefix("fd42::/64")} },
		"overlaps 10.42.2.0/24 of node a":       func(p *Peer) { p.Pods = []netip.Prefix{netip.MustParsePrefix("10.42.2.128/25")} },
		`has "x" as its hardware address`:       func(p *Peer) { p.MAC = "x" },
		`has "01:00:00:00:00:01" as its`:        func(p *Peer) { p.MAC = "01:00:00:00:00:01" },
		"same hardware address " + mac.String(): func(p *Peer) { p.MAC = mac.String() },
		"as node a":                             func(p *Peer) { p.MAC = peer("a", 2).MAC },
		"has the VXLAN port 1, this node":       func(p *Peer) { p.Port = 1 },
		"is listed twice":                       func(p *Peer) { p.Node = "a" },
	} {
		bad := peer("b", 3)
		change(&bad)
		accepted, errs := o.accept([]Peer{peer("c", 4), peer("a", 2), bad})
		err := errors.Join(errs...)
		if len(accepted) != 2 || err == nil || !strings.HasPrefix(err.Error(), "node "+bad.Node+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %d peers and %v", want, len(accepted), err)
		}
	}
}

// A node that joins later, under a name that sorts first, claims the range of another
// one, with the hardware address that goes with it.
func TestTheOlderNodeKeepsItsRange(t *testing.T) {
	own, pods := netip.MustParsePrefix("10.42.1.0/24"), netip.MustParsePrefix("10.42.2.0/24")
	o := &Overlay{
		config:  Config{Backend: VXLAN, Pods: own, Cluster: cluster},
		outer:   Iface{IP: netip.MustParseAddr("192.0.2.1")},
		backend: &vxlan{port: layout.VXLANPort, mac: hardwareAddr(netip.MustParseAddr("192.0.2.1"), own)},
	}
	peer := func(node, address string, created int64) Peer {
		ip := netip.MustParseAddr(address)
		return Peer{node, time.Unix(created, 0), Local{Backend: VXLAN, IP: ip, MAC: hardwareAddr(ip, pods).String(), Port: layout.VXLANPort}, []netip.Prefix{pods}}
	}
	owner, thief := peer("h2", "192.0.2.2", 1), peer("a0", "192.0.2.254", 2)
	for _, peers := range [][]Peer{{owner, thief}, {thief, owner}} {
		accepted, errs := o.accept(peers)
		if len(accepted) != 1 || accepted[0].Node != "h2" || len(errs) != 1 || !strings.Contains(errs[0].Error(), "node a0: has the pod CIDR 10.42.2.0/24, which overlaps 10.42.2.0/24 of node h2") {
			t.Errorf("accepted %v, refused %v", accepted, errs)
		}
	}
}

// A node that claims the hardware address of another one must not take its place,
// whatever the order of their names.
func TestStolenHardwareAddrDoesNotCutItsOwnerOff(t *testing.T) {
	own := netip.MustParsePrefix("10.42.1.0/24")
	o := &Overlay{
		config:  Config{Backend: VXLAN, Pods: own, Cluster: cluster},
		outer:   Iface{IP: netip.MustParseAddr("192.0.2.1")},
		backend: &vxlan{port: layout.VXLANPort, mac: hardwareAddr(netip.MustParseAddr("192.0.2.1"), own)},
	}
	ip, pods := netip.MustParseAddr("192.0.2.2"), netip.MustParsePrefix("10.42.2.0/24")
	stolen := Local{Backend: VXLAN, IP: ip, MAC: hardwareAddr(ip, pods).String(), Port: layout.VXLANPort}
	owner := Peer{"z", time.Time{}, stolen, []netip.Prefix{pods}}
	for _, ip := range []string{"192.0.2.2", "192.0.2.3"} {
		stolen.IP = netip.MustParseAddr(ip)
		thief := Peer{"a", time.Time{}, stolen, []netip.Prefix{netip.MustParsePrefix("10.42.3.0/24")}}
		accepted, errs := o.accept([]Peer{thief, owner})
		if len(accepted) != 1 || accepted[0].Node != "z" || len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "node a: has the same hardware address") {
			t.Errorf("%s: got %v, %v", ip, accepted, errs)
		}
	}
}

func TestLocalAsJSON(t *testing.T) {
	local := Local{Backend: VXLAN, IP: netip.MustParseAddr("192.0.2.1"), MAC: "02:00:00:00:00:01", Port: layout.VXLANPort}
	text, err := json.Marshal(local)
	if err != nil || string(text) != `{"backend":"vxlan","ip":"192.0.2.1","mac":"02:00:00:00:00:01","port":8472}` {
		t.Errorf("got %s, %v", text, err)
	}
	var back Local
	if err := json.Unmarshal(text, &back); err != nil || back != local {
		t.Errorf("got %+v, %v", back, err)
	}
}

func TestHardwareAddr(t *testing.T) {
	a := hardwareAddr(netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("10.42.1.0/24"))
	b := hardwareAddr(netip.MustParseAddr("192.0.2.2"), netip.MustParsePrefix("10.42.1.0/24"))
	// Written down, because another value would cut nodes of two versions off.
	if a.String() != "96:ba:65:1a:00:3d" || a[0]&3 != 2 || a.String() == b.String() {
		t.Errorf("got %s and %s", a, b)
	}
}

func TestOldKernel(t *testing.T) {
	for release, want := range map[string]bool{
		"4.18.0-553.el8_10.x86_64": true, "5.4.0-150-generic": true, "5.6.19": true, "": true, "unknown": true,
		"5.7.0": false, "5.10.0-28-amd64": false, "5.15.0": false, "6.18.44": false, "10.0": false,
	} {
		if got := oldKernel(release); got != want {
			t.Errorf("%q: got %v", release, got)
		}
	}
}

func key(n byte) wgtypes.Key { return wgtypes.Key{n, 1: 1} }

func TestPeerChanges(t *testing.T) {
	pods := netip.MustParsePrefix("10.42.2.0/24")
	want := Peer{"a", time.Time{}, Local{Backend: WireGuard, IP: netip.MustParseAddr("192.0.2.2"), PublicKey: key(2).String(), Port: 51820}, []netip.Prefix{pods}}
	right := wgtypes.Peer{
		PublicKey:  key(2),
		Endpoint:   &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 51820},
		AllowedIPs: []net.IPNet{*netOf(pods)},
	}
	moved, wide, bare := right, right, right
	moved.Endpoint = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 51820}
	wide.AllowedIPs = []net.IPNet{*netOf(pods), *netOf(netip.MustParsePrefix("0.0.0.0/0"))}
	bare.Endpoint = nil
	stale := wgtypes.Peer{PublicKey: key(9)}
	for name, test := range map[string]struct {
		have []wgtypes.Peer
		want string
	}{
		"new":   {nil, "set"},
		"right": {[]wgtypes.Peer{right}, ""},
		"stale": {[]wgtypes.Peer{right, stale}, "remove"},
		"moved": {[]wgtypes.Peer{moved}, "set"},
		"wide":  {[]wgtypes.Peer{wide}, "set"},
		"bare":  {[]wgtypes.Peer{bare, stale}, "remove set"},
	} {
		var did []string
		for _, c := range peerChanges(test.have, []Peer{want}) {
			switch {
			case c.Remove && c.PublicKey == key(9):
				did = append(did, "remove")
			case !c.Remove && c.PublicKey == key(2) && c.ReplaceAllowedIPs && len(c.AllowedIPs) == 1 &&
				c.AllowedIPs[0].String() == pods.String() && c.Endpoint.String() == "192.0.2.2:51820" && c.PersistentKeepaliveInterval == nil:
				did = append(did, "set")
			default:
				t.Errorf("%s: %+v", name, c)
			}
		}
		if got := strings.Join(did, " "); got != test.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestWireGuardRefuses(t *testing.T) {
	w := &wireguard{key: key(1), keyFile: "/k"}
	for want, l := range map[string]Local{
		`has "" as its WireGuard key`:          {Port: 51820},
		"has the same WireGuard key as this":   {PublicKey: key(1).PublicKey().String(), Port: 51820},
		"has 0 as its WireGuard port":          {PublicKey: key(2).String()},
		"AAAAAAAAAAAAAAAAA=\" as its WireGuar": {PublicKey: wgtypes.Key{}.String(), Port: 51820},
	} {
		if err := w.refuse(Iface{}, Peer{Local: l}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v instead of %s", err, want)
		}
	}
	must(t, w.refuse(Iface{}, Peer{Local: Local{PublicKey: key(2).String(), Port: 1}}))
}

// What a node publishes may have any length, and every node logs what it refuses.
func TestRefusalsAreShort(t *testing.T) {
	long := strings.Repeat("a", 100<<10)
	o := &Overlay{config: Config{Backend: VXLAN}}
	for what, err := range map[string]error{
		"backend":          o.refuse(Peer{Local: Local{Backend: long}}),
		"address":          o.refuse(Peer{Local: Local{Backend: VXLAN, IP: netip.MustParseAddr("fe80::1%" + long)}}),
		"hardware address": (&vxlan{}).refuse(Iface{}, Peer{Local: Local{MAC: long}}),
		"key":              (&wireguard{key: key(1)}).refuse(Iface{}, Peer{Local: Local{PublicKey: long, Port: 1}}),
	} {
		if err == nil || len(err.Error()) > 200 {
			t.Errorf("%s: got %.300v", what, err)
		}
	}
}

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wireguard", "key")
	made, err := loadKey(path)
	must(t, err)
	again, err := loadKey(path)
	must(t, err)
	if made != again || made == (wgtypes.Key{}) {
		t.Error("the key changed")
	}
	for p, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if info, err := os.Stat(p); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	must(t, os.WriteFile(path, []byte("c2VjcmV0\n"), 0o600))
	if _, err := loadKey(path); err == nil || !strings.Contains(err.Error(), path+" does not contain a WireGuard key: remove it") || strings.Contains(err.Error(), "c2V") {
		t.Errorf("got %v", err)
	}
}
