package vip

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestWhoHasAnAddress(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.100")
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, last} }
	ours, other := &arp{ip: ip, mac: mac(1)}, &arp{ip: ip, mac: mac(2)}
	elsewhere := &arp{ip: netip.MustParseAddr("192.0.2.7"), mac: mac(2)}
	none := make(net.HardwareAddr, 6)
	for name, test := range map[string]struct {
		frame []byte
		has   bool
	}{
		"an answer":              {other.frame(reply, ip, mac(1)), true},
		"an announcement":        {other.frame(request, ip, none), true},
		"asks for another":       {elsewhere.frame(request, ip, none), true},
		"another's probe":        {other.frame(request, netip.IPv4Unspecified(), none), true},
		"our own probe":          {ours.frame(request, netip.IPv4Unspecified(), none), false},
		"our own announcement":   {ours.frame(reply, ip, broadcast), false},
		"a probe of another":     {elsewhere.frame(request, netip.IPv4Unspecified(), none), false},
		"a question about it":    {other.frame(request, netip.MustParseAddr("192.0.2.7"), none), false},
		"an answer of another":   {elsewhere.frame(reply, netip.MustParseAddr("192.0.2.7"), mac(1)), false},
		"one that was cut":       {other.frame(reply, ip, mac(1))[:41], false},
		"nothing":                {nil, false},
		"not ARP":                {append(append(other.frame(reply, ip, mac(1))[:12:12], 8, 0), make([]byte, 60)...), false},
		"not of IPv4":            {append(append(other.frame(reply, ip, mac(1))[:14:14], 0, 1, 0x86, 0xdd, 6, 16), make([]byte, 60)...), false},
		"padded, as cables want": {append(other.frame(reply, ip, mac(1)), make([]byte, 18)...), true},
	} {
		if who := ours.claims(test.frame); (who != nil) != test.has || who != nil && who.String() != mac(2).String() {
			t.Errorf("%s: %v has it", name, who)
		}
	}
}

// A user's address that is the same must not be given an end, and be taken away.
func TestAddressesThatPass(t *testing.T) {
	for seconds, passes := range map[int]bool{0: false, 3: true, 5: true, 6: false, 86400: false, -1: false, 1<<32 - 1: false} {
		if got := passing(netlink.Addr{ValidLft: seconds}); got != passes {
			t.Errorf("%d s: passes %v", seconds, got)
		}
	}
}
