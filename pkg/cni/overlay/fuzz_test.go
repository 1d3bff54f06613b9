package overlay

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/fuzz"
)

// A node claims about itself what it likes, in an annotation and CIDRs: whatever that is, nothing leads to it but what lies in
// the cluster and is nobody else's, and the nodes that were there before stay.
func FuzzPeer(f *testing.F) {
	for _, local := range []string{
		`{"backend":"vxlan","ip":"192.0.2.3","mac":"02:00:00:00:00:01","port":8472}`, `{"backend":"vxlan","ip":"192.0.2.2","mac":"02:00:00:00:00:01","port":8472}`, `{"backend":"vxlan","ip":"10.42.2.2","port":8472}`, "", "null", "[]",
		`{"backend":"wireguard-native","ip":"192.0.2.3","publicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","port":51820}`, `{"backend":"host-gw","ip":"0.0.0.0"}`, `{"backend":"vxlan","ip":"fe80::1%a\nb","mac":"\n"}`, `{"backend":"a\nb"}`,
	} {
		f.Add([]byte(local), "a0", "10.42.3.0/24", int64(2))
		f.Add([]byte(local), "zz", "10.42.2.0/24", int64(3))
		f.Add([]byte(local), "b", "10.42.0.0/16,fd42::/64,0.0.0.0/0", int64(0))
	}
	own := netip.MustParsePrefix("10.42.1.0/24")
	of := func(node string, number byte, created int64) Peer {
		ip, pods := netip.AddrFrom4([4]byte{192, 0, 2, number}), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, number, 0}), 24)
		return Peer{node, time.Unix(created, 0), Local{Backend: VXLAN, IP: ip, MAC: hardwareAddr(ip, pods).String(), Port: layout.VXLANPort}, []netip.Prefix{pods}}
	}
	f.Fuzz(func(t *testing.T, data []byte, node, ranges string, created int64) {
		p := Peer{Node: node, Created: time.Unix(1+created&(1<<40-1), 0)}
		_ = json.Unmarshal(data, &p.Local)
		for text := range strings.SplitSeq(ranges, ",") {
			if r, err := netip.ParsePrefix(text); err == nil {
				p.Pods = append(p.Pods, r)
			}
		}
		o := &Overlay{
			config:  Config{Backend: VXLAN, Pods: own, Cluster: cluster},
			outer:   Iface{IP: netip.MustParseAddr("192.0.2.1")},
			backend: &vxlan{port: layout.VXLANPort, mac: hardwareAddr(netip.MustParseAddr("192.0.2.1"), own)},
		}
		older := of("h2", 2, 0)
		if node == older.Node || strings.ContainsAny(node, "\r\n") {
			return
		}
		accepted, errs := o.accept([]Peer{p, older})
		if !slices.ContainsFunc(accepted, func(a Peer) bool { return a.Node == older.Node }) {
			t.Errorf("%+v takes the place of %s: %v", p, older.Node, errors.Join(errs...))
		}
		for _, a := range accepted {
			if a.Node == older.Node {
				continue
			}
			if !a.IP.Is4() || a.IP.IsLoopback() || a.IP.IsMulticast() || a.IP.IsUnspecified() || a.IP == o.outer.IP || cluster[0].Contains(a.IP) {
				t.Errorf("packets would go to %s", a.IP)
			}
			for _, pods := range a.Pods {
				if !cluster[0].Contains(pods.Addr()) || pods.Bits() < cluster[0].Bits() || pods.Overlaps(own) || pods.Overlaps(older.Pods[0]) {
					t.Errorf("packets for %s would go to %s", pods, a.IP)
				}
			}
		}
		for _, err := range errs {
			fuzz.OneLine(t, err)
		}
	})
}
