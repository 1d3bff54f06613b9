package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cluster"
)

// Propose is what a server makes the facts of a new cluster from. Only package server uses
// it: everybody else gets the facts themselves.
func (c *Config) Propose() cluster.Facts {
	f := c.cluster
	f.ClusterCIDR, f.ServiceCIDR, f.Disable = slices.Clone(f.ClusterCIDR), slices.Clone(f.ServiceCIDR), slices.Clone(f.Disable)
	_, text := c.argument("kube-apiserver-arg", "service-node-port-range")
	f.NodePorts = nodePortRange(text)
	f.Profile = c.Profile
	f.APIPort = c.HTTPSListenPort
	f.Encryption = cluster.OwnEncryption
	if argument, _ := c.argument("kube-apiserver-arg", "encryption-provider-config"); argument != "" {
		f.Encryption = cluster.UserEncryption
	}
	f.Datastore = datastoreKind(c.DatastoreEndpoint)
	return f
}

// Amend changes what may differ among the servers of a cluster for as long as its user changes it
// on one after the other.
func (c *Config) Amend(f cluster.Facts) cluster.Facts {
	if source := c.sources["cluster-vip"]; source != "" && !strings.HasPrefix(source, "default") {
		f.VIP = c.cluster.VIP
	}
	return f
}

// StandardFacts is those of a cluster of whose servers nobody has configured anything.
func StandardFacts() cluster.Facts {
	c := &Config{Role: Server, sources: map[string]string{}}
	all := fromDefaults(Server)
	maps.DeleteFunc(all, func(name string, _ setting) bool {
		o, _ := lookup(name)
		return !o.shared
	})
	c.parse(all) // defaults are right
	c.cluster.ClusterDNS = nth(c.cluster.ServiceCIDR[0], 10)
	return c.Propose()
}

// nodePortRange is a range of ports as facts spell it, the default for an empty text, and
// the text itself if it is not a range: kube-apiserver reports the mistake.
func nodePortRange(text string) string {
	ports := nodePorts
	if text != "" {
		if err := ports.Set(text); err != nil {
			return text
		}
	}
	if ports.Size == 0 {
		ports = nodePorts
	}
	return fmt.Sprintf("%d-%d", ports.Base, ports.Base+ports.Size-1)
}

// With is a copy of the configuration that goes by the facts of the cluster that the
// node is in: for CheckNetworks and Print.
func (c *Config) With(f cluster.Facts) *Config {
	known := *c
	known.cluster, known.received = f, true
	known.sources = maps.Clone(c.sources)
	if known.sources == nil {
		known.sources = map[string]string{}
	}
	for _, o := range options {
		if o.shared {
			known.sources[o.name] = "the cluster's"
		}
	}
	return &known
}

// fact is one of the facts that a configuration can contradict.
type fact struct {
	key      string
	argument string // the one of key that decides it; "" = key itself is the fact
	// fixed ones are in use from the first start on: not even the only server of a
	// cluster can change them.
	fixed bool
	// servers alone need it to be the same.
	servers bool
	// own is what each node goes by its own configuration for, so that its default counts.
	own  bool
	text func(cluster.Facts) string
	// known reports whether facts contain it: those of older versions lack some.
	known func(cluster.Facts) bool
	// same is nil if equal texts are.
	same func(ours, theirs cluster.Facts, role Role) bool
}

func (one fact) equal(ours, theirs cluster.Facts, role Role) bool {
	if one.same != nil {
		return one.same(ours, theirs, role)
	}
	return one.text(ours) == one.text(theirs)
}

// facts is in the order of help.
var facts = []fact{
	{key: "https-listen-port", servers: true, own: true,
		text:  func(f cluster.Facts) string { return strconv.Itoa(f.APIPort) },
		known: func(f cluster.Facts) bool { return f.APIPort != 0 }},
	{key: "cluster-vip", servers: true,
		text: func(f cluster.Facts) string { return addressText(f.VIP) },
		// None is a value, too.
		known: knownToServers},
	{key: "cluster-cidr", fixed: true,
		text:  func(f cluster.Facts) string { return list(f.ClusterCIDR) },
		known: func(f cluster.Facts) bool { return len(f.ClusterCIDR) > 0 },
		same:  sameRanges(func(f cluster.Facts) []netip.Prefix { return f.ClusterCIDR })},
	{key: "service-cidr", fixed: true,
		text:  func(f cluster.Facts) string { return list(f.ServiceCIDR) },
		known: func(f cluster.Facts) bool { return len(f.ServiceCIDR) > 0 },
		same:  sameRanges(func(f cluster.Facts) []netip.Prefix { return f.ServiceCIDR })},
	{key: "cluster-dns",
		text:  func(f cluster.Facts) string { return f.ClusterDNS.String() },
		known: func(f cluster.Facts) bool { return f.ClusterDNS.IsValid() }},
	{key: "cluster-domain", fixed: true,
		text:  func(f cluster.Facts) string { return f.ClusterDomain },
		known: func(f cluster.Facts) bool { return f.ClusterDomain != "" }},
	{key: "flannel-backend",
		text:  func(f cluster.Facts) string { return f.Backend },
		known: func(f cluster.Facts) bool { return f.Backend != "" }},
	{key: "disable",
		text: func(f cluster.Facts) string { return strings.Join(names(f.Disable), ",") },
		// None is a value, too: facts that have a domain list all that is disabled.
		known: func(f cluster.Facts) bool { return f.ClusterDomain != "" },
		same: func(ours, theirs cluster.Facts, _ Role) bool {
			return slices.Equal(without(ours.Disable), without(theirs.Disable))
		}},
	// Versions until 1.37 had the embedded etcd alone.
	{key: "datastore-endpoint", fixed: true, servers: true,
		text:  func(f cluster.Facts) string { return cmp.Or(f.Datastore, cluster.Etcd) },
		known: cluster.Facts.Known},
	{key: "profile", servers: true,
		text:  func(f cluster.Facts) string { return f.Profile },
		known: knownToServers},
	{key: "kube-apiserver-arg", argument: "service-node-port-range", servers: true,
		text:  func(f cluster.Facts) string { return f.NodePorts },
		known: knownToServers},
	{key: "kube-apiserver-arg", argument: "encryption-provider-config", servers: true,
		text:  func(f cluster.Facts) string { return f.Encryption },
		known: knownToServers},
}

func knownToServers(f cluster.Facts) bool { return f.Datastore != "" }

func list[T fmt.Stringer](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, ",")
}

func names(disable addon.Disabled) (all []string) {
	for _, name := range disable {
		all = append(all, string(name))
	}
	return all
}

// without is all that a cluster does without, named or not, once and in order.
func without(disable addon.Disabled) []string {
	all := names(disable)
	for _, name := range addon.Names() {
		if disable.Has(addon.Name(name)) {
			all = append(all, name)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// sameRanges takes ranges in another order for the same: of two families there is one
// each. On a server the first is the family that Services have by default, and the
// server's own address has to be of it.
func sameRanges(of func(cluster.Facts) []netip.Prefix) func(ours, theirs cluster.Facts, role Role) bool {
	return func(ours, theirs cluster.Facts, role Role) bool {
		a, b := slices.Clone(of(ours)), slices.Clone(of(theirs))
		if role == Agent {
			slices.SortFunc(a, netip.Prefix.Compare)
			slices.SortFunc(b, netip.Prefix.Compare)
		}
		return slices.Equal(a, b)
	}
}

// Difference is a fact for which a node's own configuration has another value.
type Difference struct {
	Key     string
	Value   string // of the node; an argument is key=value
	Source  string // where the value comes from
	Cluster string // of the cluster
}

// Contradiction is that a node is configured for another cluster than the one it is in.
type Contradiction struct {
	Differences []Difference
	// Remedy is in the imperative.
	Remedy string
}

// Error is one line.
func (e *Contradiction) Error() string {
	var all []string
	for _, d := range e.Differences {
		all = append(all, fmt.Sprintf("%s %q (%s), but the cluster has %q", d.Key, d.Value, d.Source, d.Cluster))
	}
	return "the configuration of this node contradicts its cluster: " + strings.Join(all, "; ") + "; " + e.Remedy
}

// Contradicts compares what the user has configured on this node with the facts of the
// cluster that it is in. What nobody configured contradicts nothing. The error is a
// *Contradiction that lists all differences.
func (c *Config) Contradicts(f cluster.Facts) error {
	return c.contradiction(f, func(one fact) bool { return one.own || c.configured(one) },
		"remove these settings from this node, which gets them from its cluster, or set them to the cluster's values")
}

// ContradictsOwn is Contradicts for the only server of a cluster, whose configuration
// the facts are made from: it may change all but those that are in use. f is the facts
// of its last start. What it leaves to the defaults counts as well.
func (c *Config) ContradictsOwn(f cluster.Facts) error {
	return c.contradiction(f, func(one fact) bool { return one.fixed },
		"set them to the cluster's values, which are in use, or create a new cluster in another data-dir")
}

// Differs is Contradicts for a server whose configuration is to make the facts that others have made before: what it leaves
// to the defaults counts as well.
func (c *Config) Differs(f cluster.Facts) error {
	return c.contradiction(f, func(fact) bool { return true }, "set them on this node to the cluster's values")
}

func (c *Config) contradiction(f cluster.Facts, counts func(fact) bool, remedy string) error {
	ours := c.Propose()
	var all []Difference
	for _, one := range facts {
		if one.servers && c.Role != Server || !one.known(f) || !counts(one) || one.equal(ours, f, c.Role) {
			continue
		}
		all = append(all, Difference{Key: one.key, Value: c.value(one), Source: c.sources[one.key], Cluster: one.text(f)})
	}
	if len(all) == 0 {
		return nil
	}
	return &Contradiction{all, remedy}
}

// configured reports whether a fact is configured.
func (c *Config) configured(one fact) bool {
	if one.argument != "" {
		argument, _ := c.argument(one.key, one.argument)
		return argument != ""
	}
	source := c.sources[one.key]
	return source != "" && !strings.HasPrefix(source, "default")
}

// value is the configured value of a fact.
func (c *Config) value(one fact) string {
	if o, _ := lookup(one.key); o.secret {
		return one.text(c.Propose())
	}
	if one.argument == "" {
		return c.text(one.key)
	}
	argument, _ := c.argument(one.key, one.argument)
	return argument
}
