package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon/dns"
	"lite.io/lite/pkg/addon/metrics"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/datastore/etcd"
)

// What listens is above this package, which knows its ports all the same.
func TestPortsAreThoseOfTheirParts(t *testing.T) {
	if etcdMetricsPort != etcd.MetricsPort {
		t.Errorf("etcd's metrics are at %d", etcd.MetricsPort)
	}
	if !slices.Equal(podPorts, []int{dns.Port, dns.MetricsPort}) {
		t.Errorf("DNS listens on %d and %d", dns.Port, dns.MetricsPort)
	}
	at := map[int]bool{containerd.StreamPort: true, containerd.RewritePort: true}
	for _, p := range otherPorts {
		if p.local && p.who == "containerd" {
			delete(at, p.number)
		}
	}
	if len(at) > 0 {
		t.Errorf("containerd is at %v too", at)
	}
	var known bool
	for _, p := range otherPorts {
		known = known || p.part == "metrics" && strings.HasSuffix(metrics.Address, fmt.Sprintf(":%d", p.number))
	}
	if !known {
		t.Errorf("the metrics API is at %s", metrics.Address)
	}
}
