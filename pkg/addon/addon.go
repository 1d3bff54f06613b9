// Package addon is the table of batteries: what comes with a cluster, and a user may leave out with --disable to bring
// another. A row has all that is known of one but its components, whose constructors are in package battery:
// configuration reads the table, and must not link CoreDNS and the like for a list of names.
package addon

import (
	"slices"

	"lite.io/lite/pkg/layout"
)

// Name is what a battery is called by --disable, in the facts of a cluster and by its manifest,
// manifests/batteries/<name>.yaml, whose objects are removed where it is disabled.
type Name string

// The batteries.
const (
	DNS           Name = "dns"
	Metrics       Name = "metrics"
	Storage       Name = "storage"
	LoadBalancer  Name = "loadbalancer"
	NetworkPolicy Name = "networkpolicy"
	KubeProxy     Name = "kube-proxy"
	CNI           Name = "cni"
)

// Battery is a row of the table.
type Battery struct {
	Name  Name
	Alias string // what k3s calls it, which --disable takes too; "" = k3s has no name for it
	Needs []Name // it is disabled where one of these is
	Page  string // the section of the docs about disabling it

	Server []string // its components on each server
	Node   []string // its components on every node
	// Offline means that the node's components keep working with what they know when its certificate has
	// expired.
	Offline bool

	Ports  []int    // nobody else listens on these
	Marks  []string // labels and annotations that it gives Nodes, which the node removes where it is disabled
	Leaves []string // what is in the kernel and outlives the process: devices, chains, tables; killall and uninstall remove it
}

// All is the table, in the order in which help lists the names.
func All() []Battery {
	return []Battery{
		{Name: DNS, Alias: "coredns", Page: "dns.md#switching-it-off", Server: []string{"dns-endpoints"}, Node: []string{"dns"}, Offline: true,
			Ports: []int{layout.DNSPort, layout.DNSMetricsPort}},
		{Name: Metrics, Alias: "metrics-server", Page: "metrics.md#switching-it-off", Server: []string{"metrics"},
			Ports: []int{layout.MetricsPort}},
		{Name: Storage, Alias: "local-storage", Page: "storage.md#switching-it-off",
			Server: []string{"storage"}, Node: []string{"volumes"},
			Marks: []string{layout.StoragePathAnnotation, layout.StorageLabel}},
		{Name: LoadBalancer, Alias: "servicelb", Page: "loadbalancer.md#switching-it-off", Server: []string{"loadbalancer"}},
		// Another network plugin enforces policies itself, or not at all.
		{Name: NetworkPolicy, Needs: []Name{CNI}, Page: "networkpolicy.md#switching-it-off", Node: []string{"networkpolicy"},
			Leaves: []string{layout.PolicyTable}},
		{Name: KubeProxy, Page: "configuration.md#components-that-you-can-disable", Node: []string{"kube-proxy"},
			Ports:  []int{layout.ProxyMetricsPort, layout.ProxyHealthPort},
			Leaves: []string{layout.ProxyTable, layout.KubeChains}},
		{Name: CNI, Page: "configuration.md#components-that-you-can-disable", Node: []string{"network"},
			Ports: []int{layout.VXLANPort, layout.WireGuardPort},
			Marks: []string{layout.OverlayAnnotation},
			Leaves: []string{layout.Bridge, layout.VXLANDevice, layout.WireGuardDevice,
				layout.ForwardChain, layout.InputChain, layout.PostroutingChain}},
	}
}

// Names is what --disable takes, without the aliases.
func Names() (names []string) {
	for _, b := range All() {
		names = append(names, string(b.Name))
	}
	return names
}

// Of is the row of a battery. A name that is not in the table, such as one from a server of a later version, has an
// empty row.
func Of(name Name) Battery {
	all := All()
	if i := slices.IndexFunc(all, func(b Battery) bool { return b.Name == name }); i >= 0 {
		return all[i]
	}
	return Battery{Name: name}
}

// Parse finds a battery by its name or its alias.
func Parse(text string) (Name, bool) {
	for _, b := range All() {
		if text != "" && (text == string(b.Name) || text == b.Alias) {
			return b.Name, true
		}
	}
	return "", false
}

// Disabled is what a cluster does without: the names that its servers were given.
type Disabled []Name

// Has reports whether a battery is disabled: because it was named, or because one was that it needs.
func (d Disabled) Has(name Name) bool {
	return slices.Contains(d, name) || slices.ContainsFunc(Of(name).Needs, d.Has)
}

// rows is those of the table that are disabled.
func (d Disabled) rows() []Battery {
	return slices.DeleteFunc(All(), func(b Battery) bool { return !d.Has(b.Name) })
}

// Frees reports whether nobody listens on a port because the battery that does is disabled.
func (d Disabled) Frees(port int) bool {
	return slices.ContainsFunc(d.rows(), func(b Battery) bool { return slices.Contains(b.Ports, port) })
}

// Marks is what batteries that are disabled may have left on the object of a node in an earlier start.
func (d Disabled) Marks() (keys []string) {
	for _, b := range d.rows() {
		keys = append(keys, b.Marks...)
	}
	return keys
}
