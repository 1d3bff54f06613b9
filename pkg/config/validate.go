package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cluster"
)

// validate checks values that must fit each other. Those that are invalid on their own are
// empty here and were reported.
func (c *Config) validate() (errs []error) {
	wrong := func(key string, value any, problem, remedy string) {
		errs = append(errs, c.wrong(key, value, problem, remedy))
	}
	c.validatePort(wrong)
	c.validateMoved(wrong)
	c.validatePodRanges(wrong)
	c.validateFamilies(wrong)
	c.validateOverlaps(wrong)
	c.validateVIP(wrong)
	c.validateDatastore(wrong)
	if len(c.cluster.ServiceCIDR) > 0 && c.cluster.ClusterDNS.IsValid() {
		in := func(p netip.Prefix) bool { return p.Contains(c.cluster.ClusterDNS) }
		first := func(p netip.Prefix) bool {
			return p.Addr().Next() == c.cluster.ClusterDNS || p.Addr() == c.cluster.ClusterDNS
		}
		remedy := "use an address like " + nth(c.cluster.ServiceCIDR[0], 10).String()
		if !slices.ContainsFunc(c.cluster.ServiceCIDR, in) {
			wrong("cluster-dns", c.cluster.ClusterDNS, "is not in service-cidr", remedy)
		} else if slices.ContainsFunc(c.cluster.ServiceCIDR, first) {
			wrong("cluster-dns", c.cluster.ClusterDNS, "is the address of the kubernetes service", remedy)
		}
	}
	if path, hook := c.AuditLog(); c.AuditPolicyFile != "" && path == "" && !hook {
		wrong("audit-policy-file", c.AuditPolicyFile, "has no effect without an audit log", "set audit-log-path")
	}
	if c.Token != "" && c.TokenFile != "" {
		wrong("token-file", c.TokenFile, "cannot be combined with token", "set only one of them")
	}
	seen := map[string]bool{}
	for _, taint := range c.NodeTaints {
		spec, effect, _ := strings.Cut(taint, ":")
		key, _, _ := strings.Cut(spec, "=")
		if seen[key+":"+effect] {
			wrong("node-taint", taint, "repeats the key and effect of another taint", "keep one of them")
		}
		seen[key+":"+effect] = true
	}
	return errs
}

// AuditLog is the file to which the API server logs requests, "" = none, and whether it
// sends them to a webhook. Users' arguments override audit-log-path.
func (c *Config) AuditLog() (path string, hook bool) {
	path = c.AuditLogPath
	if argument, value := c.argument("kube-apiserver-arg", "audit-log-path"); argument != "" {
		path = value
	}
	argument, _ := c.argument("kube-apiserver-arg", "audit-webhook-config-file")
	return path, argument != ""
}

// validatePodRanges requires that nodes get ranges of pod addresses, because the pod
// network would wait for one forever. Another network may have ranges of its own.
func (c *Config) validatePodRanges(wrong func(key string, value any, problem, remedy string)) {
	const key, problem = "kube-controller-manager-arg", "no node would get a pod CIDR"
	const remedy = "remove it, or set disable: cni and install a network that has its own ranges"
	if c.cluster.Disable.Has(addon.CNI) {
		return
	}
	if argument, on := c.argument(key, "allocate-node-cidrs"); on == "false" {
		wrong(key, argument, problem, remedy)
	}
	for _, argument := range c.arguments(key, "controllers") {
		_, list, _ := strings.Cut(argument, "=")
		if off := strings.Split(list, ","); slices.Contains(off, "-node-ipam-controller") || slices.Contains(off, "-nodeipam") {
			wrong(key, argument, problem, remedy)
		}
	}
}

// families names the IP families of addresses, in order.
func families[T any](of []T, addr func(T) netip.Addr) (names []string) {
	for _, v := range of {
		if addr(v).Is4() {
			names = append(names, "IPv4")
		} else {
			names = append(names, "IPv6")
		}
	}
	return names
}

// validateFamilies wants at most one value per family, and pods, services and
// the API server to agree on them; kube-apiserver takes the family of the
// first service range for that of the kubernetes service.
func (c *Config) validateFamilies(wrong func(key string, value any, problem, remedy string)) {
	nodes := families(c.NodeIP, func(a netip.Addr) netip.Addr { return a })
	pods := families(c.cluster.ClusterCIDR, netip.Prefix.Addr)
	services := families(c.cluster.ServiceCIDR, netip.Prefix.Addr)
	unique := func(key string, families []string) bool {
		if len(slices.Compact(slices.Sorted(slices.Values(families)))) == len(families) {
			return true
		}
		wrong(key, c.text(key), "has more than one value of an IP family", "give at most one IPv4 and one IPv6")
		return false
	}
	distinct := []bool{unique("node-ip", nodes), unique("cluster-cidr", pods), unique("service-cidr", services)}
	switch {
	case slices.Contains(distinct, false) || len(pods) == 0 || len(services) == 0:
	case !slices.Equal(pods, services):
		wrong("service-cidr", c.text("service-cidr"), "does not have the same IP families as cluster-cidr",
			"give it "+strings.Join(pods, ", then "))
	case c.AdvertiseAddress.IsValid() && c.AdvertiseAddress.Is4() != (services[0] == "IPv4"):
		wrong("advertise-address", c.AdvertiseAddress, "does not belong to the first IP family of service-cidr",
			"use an "+services[0]+" address, or put the other family first in cluster-cidr and service-cidr")
	}
	switch {
	case len(pods) == 0 || c.cluster.Backend == "none":
	case !slices.Contains(pods, "IPv4"):
		wrong("flannel-backend", c.cluster.Backend, "carries packets between nodes over IPv4, but cluster-cidr has only IPv6",
			"add an IPv4 range to cluster-cidr and to service-cidr, or set flannel-backend to none and install your own network")
	case len(pods) > 1 && c.cluster.Backend == "host-gw":
		wrong("flannel-backend", c.cluster.Backend, "carries only IPv4, but cluster-cidr has two IP families", "use vxlan")
	}
}

// validateOverlaps keeps pods, services and the node apart.
func (c *Config) validateOverlaps(wrong func(key string, value any, problem, remedy string)) {
	for _, service := range c.cluster.ServiceCIDR {
		for _, pod := range c.cluster.ClusterCIDR {
			if service.Overlaps(pod) {
				wrong("service-cidr", service, fmt.Sprintf("overlaps cluster-cidr %s", pod), "choose ranges that do not overlap")
			}
		}
	}
	for _, r := range c.ranges() {
		for _, addr := range c.NodeIP {
			if r.prefix.Contains(addr) {
				wrong(r.key, r.prefix, fmt.Sprintf("contains node-ip %s", addr), "choose a range that no node is in")
			}
		}
	}
}

// validateVIP wants the address that servers share to be nobody else's.
func (c *Config) validateVIP(wrong func(key string, value any, problem, remedy string)) {
	const key, remedy = "cluster-vip", "use an unused address of the network in which the servers are"
	vip := c.cluster.VIP
	if !vip.IsValid() {
		return
	}
	for _, r := range c.ranges() {
		if r.prefix.Contains(vip) {
			wrong(key, vip, fmt.Sprintf("is in %s %s", r.key, r.prefix), remedy)
		}
	}
	switch {
	case slices.Contains(c.NodeIP, vip):
		wrong(key, vip, "is the address of this node (node-ip)", remedy)
	case c.AdvertiseAddress == vip:
		wrong("advertise-address", vip, "is cluster-vip, which moves to another server", "use an address that this server keeps")
	case c.Role == Server && (!c.BindAddress.IsUnspecified() || vip.Is6() && c.BindAddress.Is4()):
		wrong("bind-address", c.BindAddress, "keeps the API server from listening on cluster-vip",
			"set it to 0.0.0.0, or to :: for IPv6 too, or remove cluster-vip")
	}
}

// own is without what the node only expects of its cluster: that has to fit the
// cluster's facts, and nothing else.
func (c *Config) own() *Config {
	if c.Role == Server || c.received {
		return c
	}
	own := *c
	own.cluster = cluster.Facts{}
	return &own
}

// keyed is a range and its option.
type keyed struct {
	key    string
	prefix netip.Prefix
}

func (c *Config) ranges() (all []keyed) {
	for _, p := range c.cluster.ClusterCIDR {
		all = append(all, keyed{"cluster-cidr", p})
	}
	for _, p := range c.cluster.ServiceCIDR {
		all = append(all, keyed{"service-cidr", p})
	}
	return all
}
