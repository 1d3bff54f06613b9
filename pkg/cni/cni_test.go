package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/tests/golden"
)

var (
	ipv4 = netip.MustParsePrefix("10.42.0.0/24")
	ipv6 = netip.MustParsePrefix("fd42::/64")

	cluster4 = netip.MustParsePrefix("10.42.0.0/16")
	cluster6 = netip.MustParsePrefix("fd42::/56")
)

func TestConflist(t *testing.T) {
	for name, test := range map[string]struct {
		ranges  []netip.Prefix
		mtu     int
		portmap string
	}{
		"conflist-ipv4":      {[]netip.Prefix{ipv4}, 1500, "nftables"},
		"conflist-ipv6":      {[]netip.Prefix{ipv6}, 0, "iptables"},
		"conflist-dualstack": {[]netip.Prefix{ipv4, ipv6}, 8951, "nftables"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := conflist(test.ranges, test.mtu, test.portmap, "/run/lite/cni")
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, name, string(got)+"\n")
			list, err := libcni.ConfListFromBytes(got)
			if err != nil {
				t.Fatalf("the CNI library refuses it: %v", err)
			}
			if list.Name != "lite" || len(list.Plugins) == 0 {
				t.Errorf("got %+v", list)
			}
		})
	}
}

// An unchanged file keeps containerd from loading the network again.
func TestDescribeWritesOnlyWhatChanged(t *testing.T) {
	n := New(Config{NodeIP: netip.MustParseAddr("192.0.2.1"), ConfDir: filepath.Join(t.TempDir(), "net.d"), StateDir: filepath.Join(t.TempDir(), "cni")})
	path := filepath.Join(n.config.ConfDir, "10-lite.conflist")
	describe := func(ranges ...netip.Prefix) fs.FileInfo {
		t.Helper()
		if err := n.describe(ranges, 1450); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := describe(ipv4)
	if first.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", first.Mode().Perm())
	}
	if !os.SameFile(first, describe(ipv4)) {
		t.Error("was written again")
	}
	if os.SameFile(first, describe(ipv6)) {
		t.Error("a change was not written")
	}
	data, err := os.ReadFile(path)
	if err != nil || !json.Valid(data) || !strings.Contains(string(data), ipv6.String()) {
		t.Errorf("got %s, %v", data, err)
	}
}

// The plugin makes its lock for its group as well, and an older lite let it.
func TestAddressesAreForRootAlone(t *testing.T) {
	n := New(Config{NodeIP: netip.MustParseAddr("192.0.2.1"), ConfDir: t.TempDir(), StateDir: filepath.Join(t.TempDir(), "cni")})
	lock := filepath.Join(n.config.StateDir, "lite", "lock")
	for range 2 {
		if err := n.describe([]netip.Prefix{ipv4}, 1450); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]fs.FileMode{lock: 0o600, filepath.Dir(lock): 0o700, n.config.StateDir: 0o700} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", path, info, err)
			}
		}
		if err := os.Chmod(lock, 0o750); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChains(t *testing.T) {
	var b strings.Builder
	for _, pair := range [][2]netip.Prefix{{ipv4, cluster4}, {ipv6, cluster6}} {
		for _, c := range chains(pair[0], pair[1], []int{10053}, overlay.VXLAN) {
			fmt.Fprintf(&b, "-t %s -A %s -j %s\n", c.table, c.parent, c.name)
			for _, r := range c.rules {
				fmt.Fprintf(&b, "-t %s -A %s %s\n", c.table, c.name, strings.Join(r, " "))
			}
		}
	}
	golden.Check(t, "chains", b.String())
}

func TestMTUIsThatOfTheNodesInterface(t *testing.T) {
	if got := mtuOf(netip.MustParseAddr("127.0.0.1")); got < 1280 {
		t.Errorf("loopback has an MTU of %d", got)
	}
	if got := mtuOf(netip.MustParseAddr("192.0.2.77")); got != 0 {
		t.Errorf("an address of nobody has an MTU of %d", got)
	}
}

func TestEnableWritesOnlyWhatIsOff(t *testing.T) {
	dir := t.TempDir()
	off, on := filepath.Join(dir, "off"), filepath.Join(dir, "on")
	for path, content := range map[string]string{off: "0\n", on: "1\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(on)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{off, on} {
		if err := enable(path); err != nil {
			t.Error(err)
		}
		if data, _ := os.ReadFile(path); strings.TrimSpace(string(data)) != "1" {
			t.Errorf("%s holds %q", path, data)
		}
	}
	if after, _ := os.Stat(on); !after.ModTime().Equal(before.ModTime()) {
		t.Error("what was on was written")
	}
	if err := enable(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestNetworkIsNotReadyBeforeItIsDescribed(t *testing.T) {
	n := New(Config{})
	if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "controller manager") {
		t.Errorf("got %v", err)
	}
	n.written.Store(true)
	if err := n.Ready(t.Context()); err != nil || n.Name() != "network" {
		t.Errorf("%s: got %v", n.Name(), err)
	}
}

func TestChainsMentionNoOtherFamily(t *testing.T) {
	for _, c := range chains(ipv6, cluster6, []int{53}, overlay.VXLAN) {
		for _, r := range c.rules {
			if text := strings.Join(r, " "); strings.Contains(text, ".") {
				t.Errorf("%s: %s", c.name, text)
			}
		}
	}
	if reflect.DeepEqual(chains(ipv4, cluster4, nil, "none"), chains(ipv6, cluster6, nil, "none")) {
		t.Error("both families have the same rules")
	}
}
