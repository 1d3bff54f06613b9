package cni

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/layout"
)

// ensured is rules that have been made, in a network of the test's own.
func ensured(t *testing.T) *rules {
	t.Helper()
	ownNetwork(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs the program iptables")
	}
	r, err := newRules([]netip.Prefix{ipv4, ipv6}, []netip.Prefix{cluster4, cluster6}, []int{10053}, overlay.VXLAN)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ensure(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRulesThatSomebodyRemovesAreMissed(t *testing.T) {
	rules := ensured(t)
	filter := firewall.Table{Family: "ip", Name: "filter"}
	for _, c := range []struct {
		does string
		lost firewall.Lost
		want string
	}{
		{"true", firewall.Lost{Unknown: true}, ""},
		{"iptables -F", firewall.Lost{Unknown: true}, "chain LITE-FORWARD of ip filter, chain LITE-INPUT of ip filter"},
		{"ip6tables -t nat -F; true", firewall.Lost{Unknown: true}, "chain LITE-POSTROUTING of ip6 nat"},
		{"iptables -F FORWARD", firewall.Lost{Changes: []firewall.Change{{Table: filter, Chains: []string{"FORWARD"}}}}, "chain LITE-FORWARD of ip filter"},
		{"iptables -F INPUT", firewall.Lost{Changes: []firewall.Change{{Table: filter, Chains: []string{"DOCKER"}}}}, ""}, // INPUT was not reported
		{"iptables -R LITE-FORWARD 1 -j DROP", firewall.Lost{Changes: []firewall.Change{{Table: filter, Chains: []string{"LITE-FORWARD"}, Adds: true}}}, "chain LITE-FORWARD of ip filter"},
		// What nft has listed, iptables cannot read when it is loaded again; nor sets in a chain.
		{"(echo flush ruleset; nft list ruleset) | nft -f -", firewall.Lost{Changes: []firewall.Change{{Table: firewall.Table{Family: "ip", Name: "nat"}, Dropped: true}}}, "chain LITE-POSTROUTING of ip nat"},
		{"(echo flush ruleset; nft list ruleset) | nft -f -; iptables -N LITE-INPUT 2>/dev/null || true", firewall.Lost{Unknown: true},
			"chain LITE-FORWARD of ip filter, chain LITE-INPUT of ip filter, chain LITE-POSTROUTING of ip nat, chain LITE-FORWARD of ip6 filter, chain LITE-INPUT of ip6 filter, chain LITE-POSTROUTING of ip6 nat"},
		{"nft insert rule ip filter FORWARD ct status dnat accept", firewall.Lost{Unknown: true}, "chain LITE-FORWARD of ip filter"},
		{"nft flush chain ip filter FORWARD; iptables -N KUBE-FIREWALL", firewall.Lost{Changes: []firewall.Change{{Table: filter, Chains: []string{"KUBE-FIREWALL"}}}}, "chain KUBE-FIREWALL of ip filter"},
	} {
		if out, err := exec.Command("sh", "-ec", c.does).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c.does, err, out)
		}
		got, err := rules.missing(t.Context(), c.lost)
		if err != nil || strings.Join(got, ", ") != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.does, got, err, c.want)
		}
		if err := rules.restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := rules.missing(t.Context(), firewall.Lost{Unknown: true}); err != nil || len(got) > 0 {
			t.Errorf("%s: still missing: %q, %v", c.does, got, err)
		}
	}
	out, err := exec.Command("iptables", "-S").CombinedOutput()
	for _, want := range []string{"-A OUTPUT -j KUBE-FIREWALL\n", "-A INPUT -j KUBE-FIREWALL\n", "--ctstate RELATED,ESTABLISHED,DNAT -j DROP\n"} {
		if err != nil || strings.Count(string(out), want) != 1 {
			t.Errorf("%q is not there once: %v\n%s", want, err, out)
		}
	}
}

// TestNodesAreAdmitted has nodes come and go that ask by their own addresses.
func TestNodesAreAdmitted(t *testing.T) {
	rules := ensured(t)
	const a, b, c = "192.0.2.1", "192.0.2.2", "192.0.2.3"
	for _, nodes := range [][]string{{a}, {b, a, b}, {c, b}, {c, b}, nil} {
		var addrs []netip.Addr
		for _, text := range nodes {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		if err := rules.admit(addrs); err != nil {
			t.Fatal(err)
		}
		for _, again := range []string{"true", "iptables -F"} { // and they come back with the others
			if out, err := exec.Command("sh", "-ec", again).CombinedOutput(); err != nil {
				t.Fatal(string(out))
			}
			if err := rules.restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("iptables", "-S", layout.InputChain).CombinedOutput()
			if err != nil {
				t.Fatal(string(out))
			}
			for _, text := range []string{a, b, c} {
				i, drop := strings.Index(string(out), "-s "+text+"/32 -d 10.42.0.1/32 -j RETURN\n"), strings.Index(string(out), "DROP")
				if (i >= 0) != slices.Contains(nodes, text) || i > drop {
					t.Errorf("of %v, after %s:\n%s", nodes, again, out)
				}
			}
			if gone, err := rules.missing(t.Context(), firewall.Lost{Unknown: true}); err != nil || len(gone) > 0 {
				t.Errorf("of %v missing: %q, %v", nodes, gone, err)
			}
		}
	}
}

// TestDeletedBridge makes the bridge again under a pod that knows its hardware address.
func TestDeletedBridge(t *testing.T) {
	ownNetwork(t)
	b := &bridge{cached: libcni.NewCNIConfigWithCacheDir(nil, t.TempDir(), nil), ranges: []netip.Prefix{ipv4}, mtu: 1450}
	if err := ensureBridge(b.ranges, b.mtu, nil); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(layout.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	b.address = link.Attrs().HardwareAddr
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1", MasterIndex: link.Attrs().Index}, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	lost := firewall.Lost{Links: []string{layout.Bridge}}
	if gone, err := b.missing(t.Context(), lost); err != nil || len(gone) > 0 {
		t.Errorf("missing before anything was: %q, %v", gone, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if gone, err := b.missing(t.Context(), lost); err != nil || len(gone) != 1 || gone[0] != "interface cni0" {
		t.Errorf("missing: %q, %v", gone, err)
	}
	b.off = []attachment{{port: "veth1"}, {port: "gone"}}
	if err := b.restore(); err != nil {
		t.Fatal(err)
	}
	if link, err = netlink.LinkByName(layout.Bridge); err != nil {
		t.Fatal(err)
	}
	port, err := netlink.LinkByName("veth1")
	if err != nil || port.Attrs().MasterIndex != link.Attrs().Index || link.Attrs().HardwareAddr.String() != b.address.String() {
		t.Errorf("%v: port %+v on %+v, want %s", err, port.Attrs(), link.Attrs(), b.address)
	}
	if info, err := netlink.LinkGetProtinfo(port); err != nil || !info.Hairpin {
		t.Errorf("a pod does not reach itself: %+v, %v", info, err)
	}
}

// TestBridgeThatIsTakenApart takes from the bridge what programs do that set up a
// machine's network, and puts it back under a pod.
func TestBridgeThatIsTakenApart(t *testing.T) {
	ownNetwork(t)
	b := &bridge{cached: libcni.NewCNIConfigWithCacheDir(nil, t.TempDir(), nil), ranges: []netip.Prefix{ipv4, ipv6}, mtu: 1450}
	if err := ensureBridge(b.ranges, b.mtu, nil); err != nil {
		t.Fatal(err)
	}
	b.remember()
	if err := exec.Command("ip", "link", "add", "veth1", "up", "master", layout.Bridge, "type", "veth", "peer", "name", "peer").Run(); err != nil {
		t.Fatal(err)
	}
	own4, own6 := gateway(ipv4).String(), gateway(ipv6).String()
	address := func(own string) string { return "address " + own + " of cni0" }
	local := addressesOf(b.ranges, b.address)[2].String()
	way := func(p netip.Prefix) string { return "the route to " + p.Masked().String() + " by cni0" }
	before, index := wayOf(t), b.index
	for _, c := range []struct {
		does string
		want []string
	}{
		{"true", nil},
		{"ip address del " + own4 + " dev cni0", []string{address(own4)}},
		{"ip -6 address del " + own6 + " dev cni0", []string{address(own6)}},
		{"ip address flush dev cni0", []string{address(own4), address(own6), address(local)}},
		{"ip address flush dev cni0 scope link", []string{address(local)}},
		{"ip route flush dev cni0", []string{way(ipv4)}},
		{"ip -6 route flush dev cni0", []string{way(ipv6)}},
		{"ip link set cni0 down; ip link set cni0 name br0; ip link set br0 up", []string{"interface cni0"}},
		{"ip link set cni0 down; ip link set cni0 name br0; ip link add cni0 address " + b.address.String() + " type bridge; ip link set cni0 up", []string{address(own4), address(own6), address(local)}},
		{"ip link set cni0 down", []string{"interface cni0"}},
	} {
		if out, err := exec.Command("sh", "-ec", c.does).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c.does, err, out)
		}
		if gone, err := b.missing(t.Context(), firewall.Lost{Ways: []firewall.Way{{Link: index}}, Links: []string{layout.Bridge}}); err != nil || !slices.Equal(gone, c.want) {
			t.Errorf("%s: missing %q, %v, want %q", c.does, gone, err, c.want)
		}
		if err := b.restore(); err != nil {
			t.Fatalf("%s: %v", c.does, err)
		}
		if gone, err := b.missing(t.Context(), firewall.Lost{Unknown: true}); err != nil || len(gone) > 0 {
			t.Errorf("%s: still missing %q, %v", c.does, gone, err)
		}
		if now := wayOf(t); now != before || b.index != index {
			t.Errorf("%s: interface %d was\n%sand interface %d is\n%s", c.does, index, before, b.index, now)
		}
	}
	if gone, err := b.missing(t.Context(), firewall.Lost{Ways: []firewall.Way{{Link: index + 100}}}); err != nil || len(gone) > 0 {
		t.Errorf("looked after another's: %q, %v", gone, err)
	}
}

// wayOf is what packets to pods go by.
func wayOf(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", "ip -o link show master cni0 | grep -o veth1; { ip route show dev cni0; ip -6 route show dev cni0; } | grep -v fe80 | sed 's/ pref.*//; s/ linkdown//; s/ *$//'").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// TestKernelThatForwardsNoMore switches off what a file of settings for hardened machines does.
func TestKernelThatForwardsNoMore(t *testing.T) {
	ownNetwork(t)
	ranges := []netip.Prefix{ipv4, ipv6}
	if err := prepareKernel(ranges); err != nil {
		t.Skip("needs br_netfilter: ", err)
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: layout.Bridge}}); err != nil {
		t.Fatal(err)
	}
	needed := true
	s := &settings{all: kernel(ranges), local: func() bool { return needed }}
	watch, err := newSentinel()
	if err != nil {
		t.Fatal(err)
	}
	s.watch = watch
	s.follow()
	reported := make(chan struct{}, 100)
	go watch.notify(t.Context(), func() { reported <- struct{}{} })
	if err := os.WriteFile(localnet, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-reported
	for path, want := range map[string]string{
		"/proc/sys/net/ipv4/ip_forward":                 "the setting net.ipv4.ip_forward",
		"/proc/sys/net/ipv6/conf/all/forwarding":        "the setting net.ipv6.conf.all.forwarding",
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "the setting net.bridge.bridge-nf-call-iptables",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "the setting net.bridge.bridge-nf-call-ip6tables",
		localnet: "the setting net.ipv4.conf.cni0.route_localnet",
	} {
		if err := os.WriteFile(path, []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
		<-reported
		if gone, err := s.missing(t.Context(), firewall.Lost{Links: []string{"eth0"}}); err != nil || len(gone) > 0 {
			t.Errorf("%s: looked at without reason: %q, %v", path, gone, err)
		}
		if gone, err := s.missing(t.Context(), firewall.Lost{Settings: true}); err != nil || len(gone) != 1 || gone[0] != want {
			t.Errorf("%s: missing %q, %v", path, gone, err)
		}
		if err := s.restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-reported
		if gone, err := s.missing(t.Context(), firewall.Lost{Unknown: true}); err != nil || len(gone) > 0 {
			t.Errorf("%s: still missing %q, %v", path, gone, err)
		}
	}
	needed = false // by no pod
	if err := os.WriteFile(localnet, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-reported
	if gone, err := s.missing(t.Context(), firewall.Lost{Unknown: true}); err != nil || len(gone) > 0 {
		t.Errorf("missing %q, %v, and nobody needs it", gone, err)
	}
	needed = true
	// Another bridge has other files.
	old, err := netlink.LinkByName(layout.Bridge)
	if err == nil {
		err = netlink.LinkDel(old)
	}
	if err == nil {
		err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: layout.Bridge}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if gone, err := s.missing(t.Context(), firewall.Lost{Links: []string{layout.Bridge}}); err != nil || len(gone) != 1 {
		t.Errorf("missing %q, %v, of another bridge", gone, err)
	}
	if err := s.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-reported
}

// TestOlderInterfaceComes has somebody drop packets with rules of the older interface after
// everything is set up.
func TestOlderInterfaceComes(t *testing.T) {
	rules := ensured(t)
	older := exec.Command("iptables-legacy", "-P", "FORWARD", "DROP")
	if out, err := older.CombinedOutput(); err != nil {
		t.Skipf("needs iptables-legacy: %s", out)
	}
	if legacy(rules.families[0].tool.Proto()) == nil {
		t.Skip("/proc/net is not that of the test's network")
	}
	if gone, err := rules.missing(t.Context(), firewall.Lost{Changes: []firewall.Change{{Table: firewall.Table{Family: "ip", Name: "shop"}, Dropped: true}}}); err != nil || len(gone) > 0 {
		t.Errorf("looked at without reason: %q, %v", gone, err)
	}
	for _, does := range []string{"true", "iptables-legacy -F", "iptables-legacy -D FORWARD 1"} {
		if out, err := exec.Command("sh", "-ec", does).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", does, out)
		}
		gone, err := rules.missing(t.Context(), firewall.Lost{Links: []string{"docker0"}, Older: does != "true"})
		if err != nil || len(gone) == 0 || gone[0] != "chain LITE-FORWARD of ip filter of the older interface" {
			t.Fatalf("%s: missing %q, %v", does, gone, err)
		}
		if err := rules.restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if gone, err := rules.missing(t.Context(), firewall.Lost{Unknown: true}); err != nil || len(gone) > 0 {
			t.Errorf("%s: still missing %q, %v", does, gone, err)
		}
	}
}

// TestAttachments reads the cache as the CNI library writes it.
func TestAttachments(t *testing.T) {
	dir := t.TempDir()
	namespace := filepath.Join(dir, "netns")
	if err := os.MkdirAll(filepath.Join(dir, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := conflist([]netip.Prefix{ipv4}, 1450, "nftables", "/run/lite/cni")
	if err != nil {
		t.Fatal(err)
	}
	const result = `{"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}, {"name": "veth7"}, {"name": "eth0", "sandbox": "/x"}], "ips": [{"interface": 2, "address": "10.42.3.7/24"}], "dns": {}}`
	for name, c := range map[string]struct{ network, namespace, ports string }{
		"web":   {layout.Network, namespace, `[{"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]`},
		"plain": {layout.Network, namespace, `[]`},
		"dead":  {layout.Network, namespace + "-gone", `[]`},
		"other": {"other", namespace, `[]`},
	} {
		entry := fmt.Sprintf(`{"kind": "cniCacheV1", "containerId": %q, "config": %q, "ifName": "eth0", "networkName": %q, "netns": %q,
			"cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", %q]], "capabilityArgs": {"portMappings": %s}, "result": %s}`,
			name, base64.StdEncoding.EncodeToString(list), c.network, c.namespace, name, c.ports, result)
		if err := os.WriteFile(filepath.Join(dir, "results", c.network+"-"+name+"-eth0"), []byte(entry), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(namespace, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := attachments(libcni.NewCNIConfigWithCacheDir(nil, dir, nil))
	if err != nil || len(got) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, a := range got {
		if a.port != "veth7" || a.pod != "shop/"+a.ContainerID || a.plugin != nil != (a.ContainerID == "web") || a.gone() {
			t.Errorf("got %+v", a)
		}
		if a.plugin == nil {
			continue
		}
		for _, want := range []string{`"runtimeConfig":{"portMappings":[{`, `"hostPort":8081`, `"prevResult":{`, `"name":"lite"`, `"type":"portmap"`, `10.42.3.7/24`} {
			if !strings.Contains(string(a.plugin.Bytes), want) {
				t.Errorf("%q is not in what the plugin reads: %s", want, a.plugin.Bytes)
			}
		}
		if left := stay(t.Context(), []attachment{a}, time.Millisecond); len(left) != 1 {
			t.Error("a pod that stays is taken for one that goes")
		}
		if err := os.Remove(filepath.Join(dir, "results", "lite-web-eth0")); err != nil || !a.gone() || len(stay(t.Context(), []attachment{a}, removal)) != 0 {
			t.Errorf("is still there: %v", err)
		}
	}
}
