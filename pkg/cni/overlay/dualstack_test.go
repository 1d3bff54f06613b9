package overlay

import (
	"net/netip"
	"strings"
	"testing"
)

// Pods that have addresses of both families reach each other by both, through
// tunnels over IPv4; and a second start changes nothing.
func TestDualStack(t *testing.T) {
	for _, backend := range []string{VXLAN, WireGuard} {
		t.Run(backend, func(t *testing.T) { testDualStack(t, newHosts(t, backend, 3, (*host).dual)) })
	}
}

func testDualStack(t *testing.T, hosts []*host) {
	for _, a := range hosts {
		must(t, a.Check())
		before := a.state()
		a.start()
		must(t, a.Set(a.peers(hosts...)))
		expectSame(t, before, a.state())
	}
	for _, ipv6 := range []bool{false, true} {
		for _, h := range hosts {
			h.ipv6 = ipv6
		}
		for _, a := range hosts {
			for _, b := range hosts {
				if a == b {
					continue
				}
				must(t, a.reaches(b, "tcp", 1<<20, false))
				must(t, a.reaches(b, "udp", 60_000, false))
				must(t, a.reaches(b, "udp", 64, true))
			}
		}
	}
	// A node that leaves takes its entries of both families with it.
	must(t, hosts[0].Set(hosts[0].peers(hosts[1])))
	state := strings.Join(hosts[0].state(), "\n")
	if strings.Contains(state, "fd42:0:0:3::") || strings.Contains(state, "10.42.3.0") || !strings.Contains(state, "fd42:0:0:2::") {
		t.Errorf("left behind, or too much removed:\n%s", state)
	}
}

func TestDualStackIsCheckedBeforeAnythingIsTouched(t *testing.T) {
	good := Config{
		Backend: VXLAN, NodeIP: netip.MustParseAddr("192.0.2.1"),
		Pods: netip.MustParsePrefix("10.42.1.0/24"), Pods6: netip.MustParsePrefix("fd42:0:0:1::/64"),
		Cluster: append([]netip.Prefix{netip.MustParsePrefix("fd42::/48")}, cluster...),
	}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"is not an IPv6 network":          func(c *Config) { c.Pods6 = netip.MustParsePrefix("10.42.2.0/24") },
		"is outside of --cluster-cidr 10": func(c *Config) { c.Cluster = cluster },
		"supports only IPv4":              func(c *Config) { c.Backend = HostGW },
	} {
		c := good
		change(&c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
