package battery

import (
	"net/netip"
	"slices"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// Each battery of the table has its components here, and nothing else has.
func TestRowsAreTheTables(t *testing.T) {
	var have []string
	for _, r := range rows() {
		have = append(have, string(r.of))
		b := addon.Of(r.of)
		if (r.server != nil) != (len(b.Server) > 0) || (r.node != nil) != (len(b.Node) > 0) {
			t.Errorf("%s: the table has the components %q and %q", r.of, b.Server, b.Node)
		}
		if (r.uses != nil) != (len(b.Server) > 0) {
			t.Errorf("%s: it is to be known by which certificates %q work", r.of, b.Server)
		}
	}
	want := addon.Names()
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("there are the components of %q, and the batteries %q", have, want)
	}
}

// added is the components that are added while some batteries are disabled.
func added(t *testing.T, disable addon.Disabled) (server, node []string) {
	t.Helper()
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.10")}
	cfg := &config.Config{Role: config.Server, DataDir: t.TempDir(), NodeName: "node-a", NodeIP: addresses}
	facts := config.StandardFacts()
	facts.Disable = disable
	names := func(g *component.Group) (names []string) {
		for _, s := range g.Known() {
			names = append(names, s.Name)
		}
		return names
	}
	var servers, nodes component.Group
	AddToServer(&Server{Group: &servers, Config: cfg, Cluster: facts, PKI: pki.Dir(cfg.DataDir)})
	n := &Node{
		Group: &nodes, Config: cfg, Client: kube.NewClient("", "test"), Cluster: facts,
		Runtime: "unix:///run/x.sock", NFTables: true, Firewall: firewall.New(),
	}
	if err := AddToNode(n); err != nil {
		t.Fatal(err)
	}
	if err := CheckNode(n); err != nil {
		t.Error(err)
	}
	if ours := n.Network != nil; ours == disable.Has(addon.CNI) {
		t.Errorf("without %q the pod network is ours: %t", disable, ours)
	}
	return names(&servers), names(&nodes)
}

// TestEachCanBeDisabled leaves out each battery, and all of them.
func TestEachCanBeDisabled(t *testing.T) {
	cases := []addon.Disabled{nil, {}}
	for _, name := range addon.Names() {
		cases = append(cases, addon.Disabled{addon.Name(name)})
		cases[1] = append(cases[1], addon.Name(name))
	}
	// What takes back what was there goes by the name of what it takes back.
	takesBack := func(name addon.Name) bool { return name == addon.LoadBalancer || name == addon.NetworkPolicy }
	for _, disable := range cases {
		var wantServer, wantNode []string
		for _, r := range rows() {
			if !disable.Has(r.of) || takesBack(r.of) {
				wantServer, wantNode = append(wantServer, addon.Of(r.of).Server...), append(wantNode, addon.Of(r.of).Node...)
			}
		}
		server, node := added(t, disable)
		if !slices.Equal(server, wantServer) || !slices.Equal(node, wantNode) {
			t.Errorf("without %q: got %q and %q, want %q and %q", disable, server, node, wantServer, wantNode)
		}
		if got := len(Answers(disable)) > 0; got == disable.Has(addon.Metrics) {
			t.Errorf("without %q the API server answers itself: %t", disable, got)
		}
	}
}

// What pods reach on their node is let through to them, and to nobody where nobody listens.
func TestPortsForPods(t *testing.T) {
	for _, c := range []struct {
		disable addon.Disabled
		want    []int
	}{
		{nil, []int{10053, 9153}},
		{addon.Disabled{addon.Metrics, addon.KubeProxy}, []int{10053, 9153}},
		{addon.Disabled{addon.DNS}, nil},
	} {
		if got := portsForPods(c.disable); !slices.Equal(got, c.want) {
			t.Errorf("without %q: got %v, want %v", c.disable, got, c.want)
		}
	}
}

func TestCarrier(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		of   []netip.Addr
		want netip.Addr
	}{{[]netip.Addr{four}, four}, {[]netip.Addr{four, six}, four}, {[]netip.Addr{six, four}, four}, {[]netip.Addr{six}, six}} {
		if got := carrier(c.of); got != c.want {
			t.Errorf("%v: got %v", c.of, got)
		}
	}
}
