package cni

import (
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"lite.io/lite/pkg/layout"
)

// ownNetwork moves the test to its own network namespace permanently: the thread ends with
// the test.
func ownNetwork(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
}

func TestBridge(t *testing.T) {
	ownNetwork(t)
	ranges := []netip.Prefix{netip.MustParsePrefix("10.42.3.0/24"), netip.MustParsePrefix("fd00:42:0:3::/64")}
	var mac string
	for round := range 2 { // what is right is left as it is
		if err := ensureBridge(ranges, 1450, nil); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		link, err := netlink.LinkByName(layout.Bridge)
		if err != nil {
			t.Fatal(err)
		}
		if a := link.Attrs(); link.Type() != "bridge" || a.MTU != 1450 || a.Flags&1 == 0 {
			t.Errorf("got %s with MTU %d, flags %s", link.Type(), a.MTU, a.Flags)
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range list {
			if !a.IP.IsLinkLocalUnicast() {
				got = append(got, a.IPNet.String())
			}
		}
		if want := []string{"10.42.3.1/24", "fd00:42:0:3::1/64"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if now := link.Attrs().HardwareAddr.String(); mac != "" && now != mac {
			t.Errorf("the hardware address was %s and is %s", mac, now)
		} else {
			mac = now
		}
	}
}

func TestBridgeInTheWay(t *testing.T) {
	ownNetwork(t)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: layout.Bridge}, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	err := ensureBridge([]netip.Prefix{netip.MustParsePrefix("10.42.3.0/24")}, 1450, nil)
	if err == nil || !strings.Contains(err.Error(), "not a bridge but a veth; remove it") {
		t.Errorf("got %v", err)
	}
}
