package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cluster"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// dualStack is the facts of a cluster with two IP families.
func dualStack() cluster.Facts {
	return cluster.Facts{
		ClusterCIDR: prefixes("10.42.0.0/16", "fd00:42::/56"), ServiceCIDR: prefixes("10.43.0.0/16", "fd00:43::/112"),
		ClusterDNS: netip.MustParseAddr("10.43.0.10"), ClusterDomain: "cluster.local", Backend: "vxlan", Disable: addon.Disabled{addon.DNS, addon.Metrics},
		NodePorts: "30000-32767", Encryption: cluster.OwnEncryption, Datastore: cluster.Etcd,
	}
}

// TestContradiction gives nodes files and variables of another cluster, and others that
// only spell the same differently.
func TestContradiction(t *testing.T) {
	const file = "/etc/lite/config.yaml"
	older := func(f *cluster.Facts) { f.NodePorts, f.Encryption, f.Datastore = "", "", "" }
	for name, test := range map[string]struct {
		role   Role // an agent unless set
		yaml   string
		env    []string
		args   []string
		change func(*cluster.Facts)
		want   []string // the differences, in order; none = no error
	}{
		"nothing is set": {},
		"all is set, alike": {yaml: "cluster-cidr: [10.42.0.0/16, 'fd00:42::/56']\nservice-cidr: 10.43.0.0/16,fd00:43::/112\ncluster-dns: 10.43.0.10\n" +
			"cluster-domain: cluster.local\nflannel-backend: vxlan\ndisable: [dns, metrics]\n"},
		"the other order":         {yaml: "cluster-cidr: ['fd00:42::/56', 10.42.0.0/16]\nservice-cidr: fd00:43::/112,10.43.0.0/16\ndisable: [metrics, dns]\n"},
		"IPv6 in full":            {env: []string{"LITE_CLUSTER_CIDR=10.42.0.0/16,FD00:0042:0000:0000:0000:0000:0000:0000/56", "LITE_SERVICE_CIDR=10.43.0.0/16,fd00:43:0::0/112"}},
		"capitals, and a dot":     {yaml: "cluster-domain: Cluster.LOCAL.\n"},
		"what no network means":   {yaml: "disable: [cni, networkpolicy]\n", change: func(f *cluster.Facts) { f.Disable = addon.Disabled{addon.CNI} }},
		"as k3s calls them":       {yaml: "disable: [coredns, metrics-server]\n"},
		"twice":                   {yaml: "disable: [metrics, dns, metrics]\n"},
		"the DNS address in IPv6": {yaml: "cluster-dns: FD00:43:0:0:0:0:0:000a\n", change: func(f *cluster.Facts) { f.ClusterDNS = netip.MustParseAddr("fd00:43::a") }},

		"one range": {yaml: "cluster-cidr: 10.60.0.0/16\n", want: []string{`cluster-cidr "10.60.0.0/16" (` + file + `:1), but the cluster has "10.42.0.0/16,fd00:42::/56"`}},
		"one family of two": {env: []string{"LITE_SERVICE_CIDR=10.43.0.0/16"},
			want: []string{`service-cidr "10.43.0.0/16" (environment LITE_SERVICE_CIDR), but the cluster has "10.43.0.0/16,fd00:43::/112"`}},
		"another mask":             {yaml: "cluster-cidr: [10.42.0.0/17, 'fd00:42::/56']\n", want: []string{`cluster-cidr "10.42.0.0/17,fd00:42::/56"`}},
		"none is disabled":         {yaml: "disable: []\n", want: []string{`disable "" (` + file + `:1), but the cluster has "dns,metrics"`}},
		"one more is":              {yaml: "disable: [dns, metrics, cni]\n", want: []string{`disable "dns,metrics,cni"`}},
		"a domain that ends alike": {yaml: "cluster-domain: a.cluster.local\n", want: []string{`cluster-domain "a.cluster.local" (` + file + `:1), but the cluster has "cluster.local"`}},
		"all at once": {
			yaml: "cluster-domain: Example.Internal.\ndisable: cni\ncluster-dns: 10.43.0.11\n", env: []string{"LITE_CLUSTER_CIDR=10.60.0.0/16", "LITE_FLANNEL_BACKEND=host-gw", "LITE_SERVICE_CIDR=10.61.0.0/16"},
			want: []string{`cluster-cidr "10.60.0.0/16" (environment LITE_CLUSTER_CIDR)`, `service-cidr "10.61.0.0/16"`, `cluster-dns "10.43.0.11" (` + file + `:3)`,
				`cluster-domain "example.internal" (` + file + `:1)`, `flannel-backend "host-gw" (environment LITE_FLANNEL_BACKEND), but the cluster has "vxlan"`, `disable "cni"`},
		},
		"a cluster with fewer facts": {yaml: "cluster-domain: x.test\nflannel-backend: none\ndisable: cni\ncluster-cidr: [10.42.0.0/16, 'fd00:42::/56']\n",
			change: func(f *cluster.Facts) { *f = cluster.Facts{ClusterCIDR: f.ClusterCIDR, ServiceCIDR: f.ServiceCIDR} }},
		// It depends on the kernel whether a node follows it.
		"a profile of the agent's": {args: []string{"--profile=cis"}},

		"a server of defaults": {role: Server, change: func(f *cluster.Facts) { f.ClusterCIDR, f.NodePorts = prefixes("10.60.0.0/16"), "20000-21000" }},
		"a server that says the same": {role: Server, args: []string{"--cluster-domain=CLUSTER.local", "--kube-apiserver-arg=service-node-port-range=30000+2767"},
			change: func(f *cluster.Facts) { f.NodePorts = "30000-32767" }},
		"a server's own": {role: Server, args: []string{"--profile=cis", "--kube-apiserver-arg=service-node-port-range=20000-21000", "--kube-apiserver-arg=--encryption-provider-config=/e.yaml"},
			want: []string{`profile "cis" (flag --profile), but the cluster has ""`, `kube-apiserver-arg "service-node-port-range=20000-21000" (flag --kube-apiserver-arg), but the cluster has "30000-32767"`,
				`kube-apiserver-arg "encryption-provider-config=/e.yaml" (flag --kube-apiserver-arg), but the cluster has "lite"`}},
		"a server's own, older": {role: Server, args: []string{"--profile=cis", "--kube-apiserver-arg=service-node-port-range=20000-21000"}, change: older},
		"a server's order of families": {role: Server, args: []string{"--cluster-cidr=fd00:42::/56,10.42.0.0/16", "--service-cidr=fd00:43::/112,10.43.0.0/16", "--node-ip=2001:db8::10,192.0.2.10"},
			want: []string{`cluster-cidr "fd00:42::/56,10.42.0.0/16"`, `service-cidr "fd00:43::/112,10.43.0.0/16" (flag --service-cidr), but the cluster has "10.43.0.0/16,fd00:43::/112"`}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.role == "" {
				test.role = Agent
			}
			c, err := loadAs(t, test.role, test.args, test.env, fakeHost(map[string]string{file: test.yaml}))
			if err != nil {
				t.Fatal(err)
			}
			f := dualStack()
			if test.change != nil {
				test.change(&f)
			}
			checkContradiction(t, c.Contradicts(f), test.want)
		})
	}
}

// checkContradiction wants one line that has all differences, in order, and a remedy.
func checkContradiction(t *testing.T, err error, want []string) {
	t.Helper()
	var all *Contradiction
	switch {
	case len(want) == 0:
		if err != nil {
			t.Error(err)
		}
		return
	case !errors.As(err, &all) || len(all.Differences) != len(want):
		t.Fatalf("got %v, want %d differences", err, len(want))
	}
	rest := err.Error()
	for _, w := range append(slices.Clone(want), "; "+all.Remedy) {
		i := strings.Index(rest, w)
		if i < 0 {
			t.Fatalf("no %s, after those before, in: %v", w, err)
		}
		rest = rest[i+len(w):]
	}
	if strings.ContainsRune(err.Error(), '\n') || rest != "" {
		t.Errorf("it is not one line that ends with the remedy: %v", err)
	}
}

// TestOwnContradiction starts the server that has made a cluster with other values.
func TestOwnContradiction(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		was  cluster.Facts
		want []string
	}{
		"as ever":                    {nil, StandardFacts(), nil},
		"new":                        {[]string{"--cluster-cidr=10.60.0.0/16"}, cluster.Facts{}, nil},
		"what it may change":         {[]string{"--disable=dns", "--flannel-backend=host-gw", "--profile=cis", "--cluster-dns=10.43.0.20", "--kube-apiserver-arg=service-node-port-range=20000-21000"}, StandardFacts(), nil},
		"ranges":                     {[]string{"--cluster-cidr=10.60.0.0/16", "--service-cidr=10.61.0.0/16"}, StandardFacts(), []string{`cluster-cidr "10.60.0.0/16" (flag --cluster-cidr), but the cluster has "10.42.0.0/16"`, `service-cidr "10.61.0.0/16"`}},
		"the domain, and a range":    {[]string{"--cluster-domain=x.test", "--cluster-cidr=10.60.0.0/16"}, StandardFacts(), []string{`cluster-cidr "10.60.0.0/16"`, `cluster-domain "x.test" (flag --cluster-domain), but the cluster has "cluster.local"`}},
		"the domain, another way":    {[]string{"--cluster-domain=CLUSTER.local."}, StandardFacts(), nil},
		"a flag that was taken away": {nil, cluster.Facts{ClusterCIDR: prefixes("10.60.0.0/16"), ServiceCIDR: prefixes("10.43.0.0/16")}, []string{`cluster-cidr "10.42.0.0/16" (default), but the cluster has "10.60.0.0/16"`}},
		"ranges of an older version": {[]string{"--cluster-domain=x.test"}, cluster.Facts{ClusterCIDR: prefixes("10.42.0.0/16"), ServiceCIDR: prefixes("10.43.0.0/16")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := loadAs(t, Server, test.args, nil, fakeHost(nil))
			if err != nil {
				t.Fatal(err)
			}
			checkContradiction(t, c.ContradictsOwn(test.was), test.want)
		})
	}
}

// Servers of a cluster listen on one port, as the Service kubernetes has one, and share an address.
func TestWhatServersShare(t *testing.T) {
	f := StandardFacts()
	f.APIPort, f.VIP = 7443, netip.MustParseAddr("192.0.2.99")
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"the same":         {[]string{"--https-listen-port=7443", "--cluster-vip=192.0.2.99"}, nil},
		"no address named": {[]string{"--https-listen-port=7443"}, nil},
		"the default port": {nil, []string{`https-listen-port "6443" (default), but the cluster has "7443"`}},
		"both":             {[]string{"--https-listen-port=8443", "--cluster-vip=192.0.2.98"}, []string{`https-listen-port "8443"`, `cluster-vip "192.0.2.98" (flag --cluster-vip), but the cluster has "192.0.2.99"`}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := loadAs(t, Server, test.args, nil, fakeHost(nil))
			if err != nil {
				t.Fatal(err)
			}
			checkContradiction(t, c.Contradicts(f), test.want)
			// A server that is one of several already changes the address at its next start.
			if len(test.args) == 2 {
				if got := c.Amend(f).VIP; got != c.Propose().VIP {
					t.Errorf("it goes by %s", got)
				}
			} else if got := c.Amend(f); got.VIP != f.VIP {
				t.Errorf("it goes by %s", got.VIP)
			}
		})
	}
	if c, err := loadAs(t, Server, nil, nil, fakeHost(nil)); err != nil || c.Contradicts(cluster.Facts{ClusterCIDR: f.ClusterCIDR, ServiceCIDR: f.ServiceCIDR}) != nil {
		t.Errorf("facts of an older version: %v", err)
	}
}

// What is not configured is proposed with its default.
func TestStandardFacts(t *testing.T) {
	c, err := loadAs(t, Server, nil, nil, fakeHost(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []cluster.Facts{c.Propose(), StandardFacts()} {
		if list(f.ClusterCIDR) != "10.42.0.0/16" || list(f.ServiceCIDR) != "10.43.0.0/16" || f.ClusterDNS.String() != "10.43.0.10" || f.ClusterDomain != "cluster.local" ||
			f.Backend != "vxlan" || f.Disable != nil || f.NodePorts != "30000-32767" || f.Profile != "" || f.Encryption != cluster.OwnEncryption || f.Datastore != cluster.Etcd {
			t.Errorf("got %+v", f)
		}
	}
}

// Every option that is the cluster's can be compared with its facts.
func TestSharedOptions(t *testing.T) {
	for _, o := range options {
		if known := slices.ContainsFunc(facts, func(one fact) bool { return one.key == o.name && one.argument == "" }); o.shared && !known {
			t.Errorf("%s is the cluster's, and is not in the table of facts", o.name)
		}
	}
}

// What an agent expects of its cluster does not change its own settings.
func TestExpectations(t *testing.T) {
	const said = "cluster-cidr: [192.0.2.0/24, 'fd00:42::/56']\nservice-cidr: ['fd00:43::/112']\n"
	c, err := loadAs(t, Agent, nil, nil, fakeHost(map[string]string{"/etc/lite/config.yaml": said}))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.NodeIP) != 1 || c.NodeIP[0] != netip.MustParseAddr("192.0.2.10") {
		t.Errorf("node-ip is %v", c.NodeIP)
	}
	if errs := c.checkNetworks(fakeHost(nil)); len(errs) != 0 {
		t.Error(errs)
	}
	if errs := c.With(c.Propose()).checkNetworks(fakeHost(nil)); len(errs) != 1 || !strings.Contains(errs[0].Error(), `cluster-cidr "192.0.2.0/24" (the cluster's): overlaps`) {
		t.Errorf("a range that the cluster has: %v", errs)
	}
}

// TestPrintFacts shows which values are the cluster's.
func TestPrintFacts(t *testing.T) {
	for name, test := range map[string]struct {
		role  Role
		env   []string
		known cluster.Facts
		want  []string
		not   []string
	}{
		"a server":         {role: Server, env: []string{"LITE_DISABLE=dns"}, want: []string{"disable: [dns] # environment LITE_DISABLE; cluster-wide", "cluster-domain: cluster.local # default; cluster-wide", "node-name: node-a # default, the host name\n"}},
		"a changed server": {role: Server, env: []string{"LITE_DISABLE=dns"}, known: StandardFacts(), want: []string{`disable: [dns] # environment LITE_DISABLE; cluster-wide, and the cluster has ""`, "cluster-domain: cluster.local # default; cluster-wide\n"}},
		"a new agent":      {role: Agent, env: []string{"LITE_CLUSTER_DOMAIN=x.test"}, want: []string{"cluster-domain: x.test # environment LITE_CLUSTER_DOMAIN; cluster-wide\n"}, not: []string{"cluster-cidr", "disable"}},
		"an agent":         {role: Agent, known: dualStack(), want: []string{"cluster-cidr: [10.42.0.0/16, 'fd00:42::/56'] # the cluster's\n", "disable: [dns, metrics] # the cluster's\n", "cluster-dns: 10.43.0.10 # the cluster's\n"}},
		"an agent of others": {role: Agent, env: []string{"LITE_CLUSTER_DOMAIN=x.test", "LITE_DISABLE=metrics,dns"}, known: dualStack(),
			want: []string{`cluster-domain: x.test # environment LITE_CLUSTER_DOMAIN; cluster-wide, and the cluster has "cluster.local"`, "disable: [metrics, dns] # environment LITE_DISABLE; cluster-wide\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := loadAs(t, test.role, nil, test.env, fakeHost(nil))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if err := c.Print(&out, test.known); err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			for _, not := range test.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("%q in\n%s", not, out.String())
				}
			}
			if _, err := loadAs(t, test.role, nil, nil, fakeHost(map[string]string{"/etc/lite/config.yaml": out.String()})); err != nil {
				t.Errorf("what was printed cannot be loaded: %v", err)
			}
		})
	}
}
