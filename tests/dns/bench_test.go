package dns

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lite.io/lite/tests/cluster"
)

const (
	loadFor = 5 * time.Second
	askers  = 16 // each waits for its answer before it asks again
	// settle is how long after a start memory is read, as in tests/bench.
	settle = 75 * time.Second
)

// BenchmarkDNS measures how fast names resolve, from a pod of an agent by way of
// Service kube-dns, what a restart of the pod's own node costs it, and what DNS
// weighs; docs/benchmarks.md says how to run it. The askers share the processors
// with what they ask.
func BenchmarkDNS(b *testing.B) {
	for b.Loop() {
		off := memory(b, "--disable=dns")
		on := memory(b)
		b.ReportMetric(on.server-off.server, "server-MB")
		b.ReportMetric(on.agent-off.agent, "agent-MB")
	}
	for _, m := range []struct {
		name, ask string
	}{{"cluster", "kubernetes.default.svc.cluster.local."}, {"cached", "www.outside.test."}} {
		rate, p99 := load(b, m.ask)
		b.ReportMetric(rate, m.name+"-1/s")
		b.ReportMetric(p99, m.name+"-p99-ms")
	}
}

type megabytes struct{ server, agent float64 }

// bed is what the last memory left running.
var bed *suite

// memory starts a server and an agent and returns the RssAnon of both at rest.
func memory(b *testing.B, args ...string) megabytes {
	var u *upstream
	network := cluster.NewNetwork(b)
	server := cluster.NewNode(b, cluster.On(network))
	u = serveUpstream(b, network)
	c := &cluster.Cluster{Servers: []*cluster.Node{server}, Network: network}
	server.Start(b, args...)
	agent := c.NewAgent(b)
	agent.Start(b, "--token-file", cluster.TokenFile)
	time.Sleep(settle)
	m := megabytes{anon(b, server), anon(b, agent)}
	b.Logf("lite %s: RssAnon of the server %.1f MB, of the agent %.1f MB", strings.Join(args, " "), m.server, m.agent)
	if len(args) > 0 {
		server.Stop(b)
		agent.Stop(b)
		return m
	}
	s := suite{cluster: c, upstream: u, ns: server.Namespace(b), pods: map[string]*cluster.PodNetwork{}}
	s.deploy(b)
	bed = &s
	gap(b, s, agent)
	gap(b, s, server)
	return m
}

func anon(b *testing.B, n *cluster.Node) float64 {
	b.Helper()
	for line := range strings.Lines(n.Output(b, "cat", fmt.Sprintf("/proc/%d/status", n.PID(b)))) {
		if f := strings.Fields(line); f[0] == "RssAnon:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib * 1024 / 1e6
		}
	}
	b.Fatal("no RssAnon")
	return 0
}

// gap restarts lite on a node while a pod there asks every 20 ms, each query once
// and for up to 5 s, as resolvers do.
func gap(b *testing.B, s suite, n *cluster.Node) {
	type lookup struct {
		at, took time.Duration
		err      error
	}
	var mu sync.Mutex
	var all []lookup
	var wg sync.WaitGroup
	stop := make(chan struct{})
	began := time.Now()
	wg.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			wg.Go(func() {
				at := time.Since(began)
				m, err := ask(b.Context(), s.pods[n.Name], "udp", clusterDNS, "kubernetes.default.svc.cluster.local", dns.TypeA)
				if err == nil && m.Rcode != dns.RcodeSuccess {
					err = fmt.Errorf("%s", dns.RcodeToString[m.Rcode])
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, lookup{at, time.Since(began) - at, err})
			})
		}
	})
	time.Sleep(200 * time.Millisecond)
	stopped := n.Stop(b)
	n.Start(b)
	started := time.Since(began)
	close(stop)
	wg.Wait()
	slices.SortFunc(all, func(a, b lookup) int { return int(a.at - b.at) })
	var first, last, slowest time.Duration
	failed := 0
	for _, l := range all {
		slowest = max(slowest, l.took)
		if l.err != nil {
			if failed++; failed == 1 {
				first = l.at
			}
			last = l.at
		}
	}
	b.Logf("restart of lite on %s (stop %.2f s, stop to ready again %.2f s): %d of %d lookups failed, asked within %.2f s; the slowest took %.2f s",
		n.Name, stopped.Seconds(), started.Seconds()-0.2, failed, len(all), (last - first).Seconds(), slowest.Seconds())
	b.ReportMetric((last - first).Seconds(), n.Role+"-gap-s")
}

// load asks for a name as fast as the answers come.
func load(b *testing.B, name string) (rate, p99 float64) {
	query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	from := bed.pods[bed.cluster.Agents[0].Name]
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	began := time.Now()
	for range askers {
		conn, err := from.DialContext(b.Context(), "udp", clusterDNS)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			var mine []time.Duration
			answer := make([]byte, 512)
			for time.Since(began) < loadFor {
				sent := time.Now()
				conn.SetDeadline(sent.Add(time.Second))
				if _, err := conn.Write(query); err != nil {
					b.Error(err)
					return
				}
				if _, err := conn.Read(answer); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	slices.Sort(took)
	rate = float64(len(took)) / time.Since(began).Seconds()
	p99 = took[len(took)*99/100].Seconds() * 1000
	b.Logf("%s: %.0f queries/s, p50 %.3f ms, p99 %.3f ms", name, rate, took[len(took)/2].Seconds()*1000, p99)
	return rate, p99
}
