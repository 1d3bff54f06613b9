package boot

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
)

// noProxy is NO_PROXY for a server that has a proxy for the way out: besides what the
// user says, that of the cluster and the networks of the node's addresses, where the
// other nodes are. Otherwise the API server would ask kubelets and pods by the proxy.
func noProxy(cfg *config.Config, facts cluster.Facts, getenv func(string) string, local []net.Addr) string {
	first := func(names ...string) string {
		i := slices.IndexFunc(names, func(name string) bool { return getenv(name) != "" })
		return getenv(names[max(0, i)])
	}
	said := first("NO_PROXY", "no_proxy")
	if cfg.Role != config.Server || first("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy") == "" {
		return said
	}
	all := []string{".svc", "." + facts.ClusterDomain}
	for _, p := range slices.Concat(facts.ClusterCIDR, facts.ServiceCIDR) {
		all = append(all, p.String())
	}
	for _, a := range local {
		if p, err := netip.ParsePrefix(a.String()); err == nil && slices.Contains(cfg.NodeIP, p.Addr()) {
			all = append(all, p.Masked().String())
		}
	}
	if said != "" {
		all = append([]string{said}, all...)
	}
	return strings.Join(all, ",")
}
