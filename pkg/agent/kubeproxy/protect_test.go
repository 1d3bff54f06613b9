package kubeproxy

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/proxy"

	"lite.io/lite/pkg/host/firewall"
)

// topologies is a proxier that records the topology of the node that it gets.
type topologies struct {
	proxy.Provider
	told []string
}

func (p *topologies) OnTopologyChange(labels map[string]string) {
	p.told = append(p.told, labels[v1.LabelTopologyZone])
}

func TestWritingAllChangesNoZone(t *testing.T) {
	upstream := &topologies{}
	w := &writer{Provider: upstream}
	w.writeAll()
	w.OnTopologyChange(map[string]string{v1.LabelTopologyZone: "a"})
	w.writeAll()
	if got := strings.Join(upstream.told, ","); got != ",a,a" {
		t.Errorf("upstream was told of zones %q", got)
	}
}

func TestWhatOthersTakeFromTheTableOfServices(t *testing.T) {
	proxy := firewall.Table{Family: "ip", Name: "kube-proxy"}
	for name, c := range map[string]struct {
		change firewall.Change
		want   string
	}{
		"the table":                 {firewall.Change{Table: proxy, Dropped: true, Chains: []string{"services"}, Sets: []string{"service-ips"}}, "table ip kube-proxy"},
		"the table, made again":     {firewall.Change{Table: proxy, Dropped: true, Adds: true}, "table ip kube-proxy"},
		"a chain":                   {firewall.Change{Table: proxy, Chains: []string{"services"}}, "rules of chain services in table ip kube-proxy"},
		"a map":                     {firewall.Change{Table: proxy, Sets: []string{"service-ips"}}, "elements of service-ips in table ip kube-proxy"},
		"another's table":           {firewall.Change{Table: firewall.Table{Family: "ip", Name: "shop"}, Dropped: true}, ""},
		"a Service by kube-proxy":   {firewall.Change{Table: proxy, Chains: []string{"service-A", "endpoint-A"}, Sets: []string{"cluster-ips", "service-ips"}}, ""},
		"an endpoint by kube-proxy": {firewall.Change{Table: proxy, Chains: []string{"service-A"}, Adds: true}, ""},
		"a Service that had none":   {firewall.Change{Table: proxy, Sets: []string{"cluster-ips", "no-endpoint-services"}}, ""},
	} {
		got, err := guard{}.lostTables(t.Context(), firewall.Lost{Changes: []firewall.Change{c.change}})
		if err != nil || strings.Join(got, "|") != c.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestWhatOthersTakeFromChainsOfServices(t *testing.T) {
	nat := firewall.Table{Family: "ip", Name: "nat"}
	for name, c := range map[string]struct {
		change firewall.Change
		want   bool
	}{
		"all":                     {firewall.Change{Table: nat, Chains: []string{"KUBE-SERVICES", "PREROUTING"}}, true},
		"a Service's":             {firewall.Change{Table: nat, Chains: []string{"KUBE-SVC-AAAA"}}, true},
		"a Service by kube-proxy": {firewall.Change{Table: nat, Chains: []string{"KUBE-SEP-AAAA", "KUBE-SERVICES"}, Adds: true}, false},
		"a table that was saved":  {firewall.Change{Table: nat, Chains: []string{"KUBE-SEP-AAAA", "KUBE-SERVICES", "PREROUTING"}, Adds: true}, true},
		"those of NodePorts":      {firewall.Change{Table: nat, Chains: []string{"KUBE-NODEPORTS"}}, true},
		"the kubelet's":           {firewall.Change{Table: firewall.Table{Family: "ip", Name: "filter"}, Chains: []string{"KUBE-FIREWALL"}}, false},
		"another's chain":         {firewall.Change{Table: nat, Chains: []string{"DOCKER"}}, false},
	} {
		got, err := guard{}.lostChains(t.Context(), firewall.Lost{Changes: []firewall.Change{c.change}})
		if err != nil || len(got) > 0 != c.want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestMissingJumps(t *testing.T) {
	const whole = `-P PREROUTING ACCEPT
-N KUBE-SERVICES
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.43.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SEP-A -p tcp -j DNAT --to-destination 192.0.2.1:6443
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SVC-A -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
`
	without := func(text string) string {
		lines := slices.DeleteFunc(slices.Collect(strings.Lines(whole)), func(line string) bool { return strings.Contains(line, text) })
		return strings.Join(lines, "")
	}
	for name, c := range map[string]struct{ listing, want string }{
		"whole":                       {whole, ""},
		"no jump":                     {without("-A PREROUTING"), "the jump from PREROUTING to KUBE-SERVICES"},
		"no rules of a Service":       {without("-A KUBE-SVC-A"), "rules of chain KUBE-SVC-A"},
		"nothing masqueraded":         {without("-A KUBE-POSTROUTING"), "rules of chain KUBE-POSTROUTING"},
		"nothing marked":              {without("-A KUBE-MARK"), "rules of chain KUBE-MARK-MASQ"},
		"no rules of a Service's pod": {without("-A KUBE-SEP-A"), "rules of chain KUBE-SEP-A"},
		"nothing":                     {"-P PREROUTING ACCEPT\n", "the jump from OUTPUT to KUBE-SERVICES|the jump from POSTROUTING to KUBE-POSTROUTING|the jump from PREROUTING to KUBE-SERVICES"},
	} {
		if got := strings.Join(missingJumps("nat", c.listing), "|"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestLostNodePorts(t *testing.T) {
	const (
		services = "-A KUBE-SERVICES -d 10.43.0.5/32 -p tcp -j KUBE-SVC-A\n-A KUBE-SERVICES -d 10.43.0.6/32 -p tcp -j KUBE-SVC-B\n-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n"
		chains   = "-A KUBE-EXT-A -j KUBE-SVC-A\n-A KUBE-EXT-B -j KUBE-SVC-B\n"
		ports    = "-A KUBE-NODEPORTS -p tcp -m tcp --dport 30001 -j KUBE-EXT-A\n-A KUBE-NODEPORTS -p tcp -m tcp --dport 30002 -j KUBE-EXT-B\n"
	)
	_, before := lostNodePorts(nil, services+chains+ports)
	if !slices.Equal(before, []string{"KUBE-EXT-A", "KUBE-EXT-B"}) {
		t.Fatalf("it leads to %q", before)
	}
	without := func(text string, gone ...string) string {
		return strings.Join(slices.DeleteFunc(slices.Collect(strings.Lines(text)), func(line string) bool {
			return slices.ContainsFunc(gone, func(g string) bool { return strings.Contains(line, g) })
		}), "")
	}
	whole := services + chains + ports
	for name, c := range map[string]struct {
		listing string
		want    bool
	}{
		"nothing":                            {whole, false},
		"the chain is empty":                 {services + chains, true},
		"one rule is gone":                   {without(whole, "30002"), true},
		"a Service is gone, its chain stays": {without(whole, "30002", "10.43.0.6"), false},
		"it is no NodePort any more":         {without(whole, "30002", "KUBE-EXT-B"), false},
		"all Services are gone":              {chains, false},
	} {
		if got, _ := lostNodePorts(before, c.listing); got != c.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if got, _ := lostNodePorts(nil, services+chains); got {
		t.Error("who has seen nothing misses something")
	}
}
