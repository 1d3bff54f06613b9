package dns

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/metrics"

	"lite.io/lite/pkg/component/series"
)

// setupSeries comes after prometheus in each server block, and has it serve the series of DNS only.
// That plugin serves Prometheus' default registry, which etcd and other components share, and its
// field for another registry is not exported (1.15). So its listener, whose setup is exported, is
// started once more with a registry of ours.
func setupSeries(c *caddy.Controller) error {
	conf, listening := dnsserver.GetConfig(c), running.Load().loading.figures
	narrow := func() error {
		m, ok := conf.Handler("prometheus").(*metrics.Metrics)
		if !ok {
			return nil
		}
		// Of the blocks that name an address the first listens.
		if first := listening[m.Addr]; first != nil && first != m {
			return nil
		}
		listening[m.Addr] = m
		_ = m.OnFinalShutdown()
		m.Reg = series.DNS.Registry()
		// An address in use does not keep DNS from answering. The log shows it.
		_ = m.OnStartup()
		return nil
	}
	c.OnStartup(narrow)
	c.OnRestartFailed(narrow)
	return nil
}
