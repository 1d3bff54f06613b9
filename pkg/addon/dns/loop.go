package dns

import (
	"context"
	"crypto/rand"
	"net"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"lite.io/lite/pkg/kube"
)

// loopProbe finds out whether the forwarding of a server block leads back to it:
// it is asked for a name that nobody else asks for, and must not be asked for it
// again. CoreDNS' own would end the process.
type loopProbe struct {
	block  int // number of the server block
	name   string
	listen string
	seen   atomic.Int32
}

func setupLoop(c *caddy.Controller) error {
	c.Next()
	if c.NextArg() {
		return plugin.Error("loop", c.ArgErr())
	}
	s := running.Load()
	conf := dnsserver.GetConfig(c)
	p := &loopProbe{block: c.ServerBlockIndex, name: dns.Fqdn(rand.Text() + "." + conf.Zone)}
	if conf.Zone == "." {
		p.name = rand.Text() + "."
	}
	s.loading.loops = append(s.loading.loops, p)
	conf.AddPlugin(func(next plugin.Handler) plugin.Handler {
		return handlerFunc{"loop", func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if len(r.Question) > 0 && dns.CanonicalName(r.Question[0].Name) == dns.CanonicalName(p.name) && p.seen.Add(1) > 1 {
				return dns.RcodeRefused, nil // it ends here
			}
			return plugin.NextOrFailure("loop", next, ctx, w, r)
		}}
	})
	c.OnStartup(func() error {
		p.listen = net.JoinHostPort(conf.ListenHosts[0], conf.Port)
		return nil
	})
	return nil
}

// probeFor bounds for how long name servers that cannot be reached are tried: the
// machine's network may come up after us.
const probeFor = time.Minute

// found reports whether there is a loop. It ends when that is known, or ctx is
// done.
func (p *loopProbe) found(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	q := new(dns.Msg).SetQuestion(p.name, dns.TypeHINFO)
	client := dns.Client{Timeout: 6 * time.Second} // more than forwarding is given
	for wait := time.Second; ; wait *= 2 {
		p.seen.Store(0)
		answer, _, err := client.ExchangeContext(ctx, q, p.listen)
		if p.seen.Load() > 1 {
			return true
		}
		if err == nil && answer.Rcode != dns.RcodeServerFailure {
			return false
		}
		if !kube.Sleep(ctx, wait) {
			return false
		}
	}
}
