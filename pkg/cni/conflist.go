package cni

import (
	"encoding/json"
	"net/netip"
	"slices"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// conflist is the network's description in the form of the CNI specification
// 1.0.0 (https://www.cni.dev/docs/spec/). An mtu of 0 leaves the choice to the
// kernel.
func conflist(ranges []netip.Prefix, mtu int, portmap, stateDir string) ([]byte, error) {
	type object = map[string]any
	var pools []any
	for _, r := range ranges {
		pools = append(pools, []any{object{"subnet": r.String()}})
	}
	return json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       layout.Network,
		"plugins": []any{
			object{
				"type":             "bridge",
				"bridge":           layout.Bridge,
				"isDefaultGateway": true,
				"hairpinMode":      true,
				"mtu":              mtu,
				"ipam":             object{"type": "host-local", "ranges": pools, "dataDir": stateDir},
			},
			object{"type": "portmap", "backend": portmap, "snat": true, "capabilities": object{"portMappings": true}},
			object{"type": "bandwidth", "capabilities": object{"bandwidth": true}},
		},
	}, "", "  ")
}

// portmapBackend is what carries hostPorts: the same as carries Services.
func portmapBackend(nftables bool) string {
	if nftables {
		return "nftables"
	}
	return "iptables"
}

// mtuOf is the MTU of the interface that has an address, 0 if none has.
func mtuOf(addr netip.Addr) int {
	interfaces, err := probe.Interfaces()
	if err != nil {
		return 0
	}
	for _, i := range interfaces {
		if slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return i.MTU
		}
	}
	return 0
}
