package firewall

import (
	"context"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ownNetwork moves the test to its own network namespace permanently: the thread ends with
// the test.
func ownNetwork(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs the program nft")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
}

func nft(t testing.TB, script string) {
	t.Helper()
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

const ruleset = `
table ip shop { chain a { tcp dport 1 accept; tcp dport 2 accept; }; chain b { tcp dport 1 jump a; }; set s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }; }
table inet guard { chain in { type filter hook input priority 0; accept; }; }
`

// TestChanges has the kernel report what programs do to the packet filter.
func TestChanges(t *testing.T) {
	shop, guard := Table{"ip", "shop"}, Table{"inet", "guard"}
	for does, want := range map[string][]Change{
		"flush ruleset":                                        {{Table: guard, Dropped: true, Chains: []string{"in"}}, {Table: shop, Dropped: true, Chains: []string{"a", "b"}}},
		"delete table ip shop":                                 {{Table: shop, Dropped: true, Chains: []string{"a", "b"}}},
		"flush table ip shop":                                  {{Table: shop, Chains: []string{"a", "b"}}},
		"flush chain ip shop a":                                {{Table: shop, Chains: []string{"a"}}},
		"flush set ip shop s":                                  {{Table: shop, Sets: []string{"s"}}},
		"delete chain inet guard in":                           {{Table: guard, Chains: []string{"in"}}},
		"add rule ip shop a accept":                            nil,
		"add table ip6 more":                                   nil,
		"add element ip shop s { 1.1.1.1 }":                    nil,
		"delete element ip shop s { 192.0.2.1 }":               {{Table: shop, Sets: []string{"s"}}},
		"flush chain ip shop a; add rule ip shop a accept":     {{Table: shop, Chains: []string{"a"}, Adds: true}},
		"delete table inet guard; add table inet guard":        {{Table: guard, Dropped: true, Chains: []string{"in"}, Adds: true}},
		"add table ip shop { flags dormant; }":                 {{Table: shop, Dormant: true}},
		"flush chain ip shop b; add rule inet guard in accept": {{Table: shop, Chains: []string{"b"}}},
		"add chain ip shop empty; delete chain ip shop empty":  nil,
	} {
		t.Run(does, func(t *testing.T) {
			ownNetwork(t)
			nft(t, ruleset)
			got, by := changesOf(t, func() { nft(t, strings.ReplaceAll(does, "; ", "\n")) })
			for i := range got {
				if got[i].Sets == nil && got[i].Chains == nil && !got[i].Dormant || got[i].Generation == 0 {
					t.Errorf("%+v is incomplete", got[i])
				}
				got[i].Generation = 0
				if got[i].Dropped {
					got[i].Sets = nil // which kernels report differently
				}
			}
			if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if by != "nft" {
				t.Errorf("done by %q", by)
			}
		})
	}
}

// changesOf returns what one transaction took away, and whose it was.
func changesOf(t *testing.T, do func()) (changes []Change, by string) {
	t.Helper()
	socket, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		t.Fatal(err)
	}
	do()
	ctx, stop := context.WithCancel(t.Context())
	var tx transaction
	err = read(ctx, socket, func(m syscall.NetlinkMessage) {
		if c, program, done := tx.read(m); done {
			changes, by = c, program
			stop()
		}
	}, func() { t.Error("news were lost") })
	if err != nil {
		t.Fatal(err)
	}
	return changes, by
}

// TestLostWays has the kernel report lost addresses, routes and neighbors.
func TestLostWays(t *testing.T) {
	ownNetwork(t)
	const bridge = "ip link add br0 type bridge; ip link set br0 up; "
	const path = bridge + "ip address add 192.0.2.1/24 dev br0; ip -6 address add 2001:db8::1/64 dev br0 nodad; ip route add 198.51.100.0/24 via 192.0.2.2 proto 76; "
	forwards := "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
	index := func(name string) int {
		link, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return link.Index
	}
	for _, c := range []struct {
		before, does string
		is           func(Lost) bool
	}{
		{bridge, "ip link delete br0", func(l Lost) bool { return l.Link("br0") }},
		{bridge, "ip link set br0 down", func(l Lost) bool { return l.Link("br0") }},
		{bridge + "ip link set br0 down; ", "ip link set br0 name br1; ip link set br1 up; ip link set br1 down; ip link set br1 name br0; ip link set br0 up", func(l Lost) bool { return l.Link("br0") }},
		{bridge + "ip link add v0 type veth peer name v1; ip link set v0 up master br0; ", "ip link set v0 nomaster", func(l Lost) bool { return l.Link("v0") }},
		{path, "ip address del 192.0.2.1/24 dev br0", func(l Lost) bool { return l.Way(index("br0")) }},
		{path, "ip address flush dev br0", func(l Lost) bool { return l.Way(index("br0")) }},
		{path, "ip -6 address del 2001:db8::1/64 dev br0", func(l Lost) bool { return l.Way(index("br0")) }},
		{path, "ip route del 192.0.2.0/24 dev br0", func(l Lost) bool { return l.Way(index("br0")) }},
		{path, "ip -6 route del 2001:db8::/64 dev br0", func(l Lost) bool { return l.Way(index("br0")) }},
		{path, "ip route del 198.51.100.0/24", func(l Lost) bool { return l.Route(76) }},
		{path, "ip route flush table main", func(l Lost) bool { return l.Route(76) }},
		{path + "ip route add unreachable 203.0.113.0/24 proto 76; ", "ip route del unreachable 203.0.113.0/24", func(l Lost) bool { return l.Route(76) }},
		{bridge + "ip link add v0 type veth peer name v1; ip link set v0 up master br0; bridge fdb add 02:00:00:00:00:09 dev v0 master; ", "bridge fdb del 02:00:00:00:00:09 dev v0 master", func(l Lost) bool { return l.Way(index("v0")) }},
		{"ip link add v0 type vxlan id 5 dstport 8472; bridge fdb add 02:00:00:00:00:09 dev v0 dst 192.0.2.9; ", "bridge fdb del 02:00:00:00:00:09 dev v0", func(l Lost) bool { return l.Way(index("v0")) }},
		{path + "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev br0 nud permanent; ", "ip neigh flush dev br0 nud permanent", func(l Lost) bool { return l.Way(index("br0")) }},
		{forwards, "echo 0 >/proc/sys/net/ipv4/ip_forward", func(l Lost) bool { return l.Settings }},
		{forwards, "echo 0 >/proc/sys/net/ipv4/conf/all/forwarding", func(l Lost) bool { return l.Settings }},
		{forwards, "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", func(l Lost) bool { return l.Settings }},
	} {
		sh(t, c.before)
		if !tells(t, func() { sh(t, c.does) }, c.is) {
			t.Errorf("%s: not told", c.does)
		}
		_ = exec.Command("sh", "-c", "ip route flush table main; ip link delete br0; ip link delete v0").Run()
	}
	// What lite and others do all day.
	for _, does := range []string{path, forwards, path + "ip route add 203.0.113.0/24 via 192.0.2.2; ip address add 192.0.2.3/24 dev br0"} {
		if tells(t, func() { sh(t, does) }, func(l Lost) bool { return len(l.Ways) > 0 || l.Settings }) {
			t.Errorf("%s: told as a loss", does)
		}
		_ = exec.Command("sh", "-c", "ip route flush table main; ip link delete br0").Run()
	}
}

func sh(t *testing.T, does string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", does).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", does, err, out)
	}
}

// tells reports whether the kernel reports something while it is done.
func tells(t *testing.T, do func(), what func(Lost) bool) (found bool) {
	t.Helper()
	socket, err := listen(unix.NETLINK_ROUTE, wayGroups...)
	if err != nil {
		t.Fatal(err)
	}
	names := listInterfaces()
	do()
	sh(t, "ip link add last type bridge")
	defer sh(t, "ip link delete last")
	ctx, stop := context.WithCancel(t.Context())
	err = read(ctx, socket, func(m syscall.NetlinkMessage) {
		if m.Header.Type == unix.RTM_NEWROUTE || m.Header.Type == unix.RTM_NEWNEIGH {
			t.Error("told of what is new")
		}
		lost := names.lost(m)
		found = found || what(lost)
		if lost.Link("last") {
			stop()
		}
	}, func() { t.Error("news were lost") })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOlderTables counts rules of a table that only iptables-legacy knows.
func TestOlderTables(t *testing.T) {
	ownNetwork(t)
	if err := exec.Command("iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT").Run(); err != nil {
		t.Skip("needs iptables-legacy")
	}
	// /proc/net is that of the process's first thread.
	o := openOlder()
	defer o.close()
	filter := func() olderInfo {
		info, ok := olderTable(o.sockets[0], unix.SOL_IP, "filter")
		if !ok {
			t.Fatal("table filter cannot be counted")
		}
		return info
	}
	before := filter()
	if before.numEntries < 4 || filter() != before {
		t.Errorf("got %+v, then %+v", before, filter())
	}
	if out, err := exec.Command("iptables-legacy", "-F").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if after := filter(); after.numEntries != before.numEntries-1 {
		t.Errorf("%d entries became %d", before.numEntries, after.numEntries)
	}
}

// BenchmarkOlder is what counting costs, which is done every two seconds.
func BenchmarkOlder(b *testing.B) {
	o := openOlder()
	defer o.close()
	for b.Loop() {
		o.state()
	}
}

// TestNewsThatAreLost overflows the socket before anything is read from it.
func TestNewsThatAreLost(t *testing.T) {
	ownNetwork(t)
	socket, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		t.Fatal(err)
	}
	nft(t, manyRules(20000))
	ctx, stop := context.WithCancel(t.Context())
	dropped := false
	err = read(ctx, socket, func(syscall.NetlinkMessage) {}, func() {
		dropped = true
		stop()
	})
	if err != nil || !dropped {
		t.Errorf("dropped: %t, %v", dropped, err)
	}
}

func manyRules(n int) string {
	return "add table ip many\nflush table ip many\nadd chain ip many x\n" + strings.Repeat("add rule ip many x ip saddr 192.0.2.1 tcp dport 80 accept\n", n)
}

// BenchmarkTransaction measures what the event of a transaction with a thousand rules costs
// the program that writes them, and us.
func BenchmarkTransaction(b *testing.B) {
	for _, watched := range []bool{false, true} {
		b.Run(map[bool]string{false: "unwatched", true: "watched"}[watched], func(b *testing.B) {
			ownNetwork(b)
			if watched {
				socket, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
				if err != nil {
					b.Fatal(err)
				}
				var t transaction
				go read(b.Context(), socket, func(m syscall.NetlinkMessage) { t.read(m) }, func() {})
			}
			script := manyRules(1000)
			for b.Loop() {
				nft(b, script)
			}
		})
	}
}

// BenchmarkReading is what we spend on one message of a rule.
func BenchmarkReading(b *testing.B) {
	ownNetwork(b)
	socket, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		b.Fatal(err)
	}
	nft(b, manyRules(1))
	var rule syscall.NetlinkMessage
	ctx, stop := context.WithCancel(b.Context())
	_ = read(ctx, socket, func(m syscall.NetlinkMessage) {
		if m.Header.Type&0xff == unix.NFT_MSG_NEWRULE {
			rule = m
			stop()
		}
	}, func() {})
	var t transaction
	for b.Loop() {
		t.read(rule)
	}
}
