package dns

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"

	"lite.io/lite/tests/harness/cluster"
)

const (
	loadFor = 5 * time.Second
	askers  = 4 // at the same time
	volley  = 4 // queries of one asker, before it awaits their answers
	// settle is how long after a start memory is read, as in tests/harness/bench.
	settle = 75 * time.Second
)

// BenchmarkMemory measures what DNS weighs on a server and on an agent at rest.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		off := memory(b, "--disable=dns")
		on := memory(b)
		b.ReportMetric(on.server-off.server, "server-MB")
		b.ReportMetric(on.agent-off.agent, "agent-MB")
	}
}

type megabytes struct{ server, agent float64 }

// memory returns the RssAnon of a server and an agent at rest.
func memory(b *testing.B, args ...string) megabytes {
	c := &cluster.Cluster{Network: cluster.NewNetwork(b)}
	server := cluster.NewNode(b, cluster.On(c.Network))
	c.Servers = append(c.Servers, server)
	server.Start(b, args...)
	agent := c.NewAgent(b)
	agent.Start(b, "--token-file", cluster.TokenFile)
	time.Sleep(settle)
	m := megabytes{anon(b, server), anon(b, agent)}
	b.Logf("lite %s: RssAnon of the server %.1f MB, of the agent %.1f MB", strings.Join(args, " "), m.server, m.agent)
	agent.Stop(b)
	server.Stop(b)
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

// BenchmarkDNS measures how fast names resolve from a pod of an agent by way of
// Service kube-dns, and what a restart of lite costs the pods of the same node.
// Those who ask share the processors with what they ask.
func BenchmarkDNS(b *testing.B) {
	var u *upstream
	c := cluster.New(b, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		if u == nil {
			u = serveUpstream(b, n.Network())
		}
	}))
	s := suite{cluster: c, upstream: u, ns: c.Server().Namespace(b), pods: map[string]*cluster.PodNetwork{}}
	s.deploy(b)
	for b.Loop() {
		for name, query := range map[string]string{"cluster": "kubernetes.default.svc.cluster.local.", "cached": "www.outside.test."} {
			before := processor(b, c.Agents[0])
			rate, p99 := s.load(b, query)
			used := processor(b, c.Agents[0]) - before
			b.ReportMetric(used.Seconds()*1e6/(rate*loadFor.Seconds()), name+"-µs-of-lite")
			b.ReportMetric(rate, name+"-1/s")
			b.ReportMetric(p99, name+"-p99-ms")
		}
		gap(b, s, c.Agents[0])
		gap(b, s, c.Server())
	}
}

// processor is the processor time that lite has used, as clock ticks of 10 ms count
// it (proc_pid_stat(5)).
func processor(b *testing.B, n *cluster.Node) time.Duration {
	b.Helper()
	stat := n.Output(b, "cat", fmt.Sprintf("/proc/%d/stat", n.PID(b)))
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')'):])
	var ticks time.Duration
	for _, field := range f[12:14] { // utime and stime; the first is the bracket, then the state
		v, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += time.Duration(v)
	}
	return ticks * 10 * time.Millisecond
}

// load asks for a name as fast as the answers come.
func (s suite) load(b *testing.B, name string) (rate, p99 float64) {
	query, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	began := time.Now()
	for range askers {
		conn, err := s.pods[s.cluster.Agents[0].Name].DialContext(b.Context(), "udp", clusterDNS)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			mine, err := volleys(conn.(*net.UDPConn), query, began.Add(loadFor))
			if err != nil {
				b.Error(err)
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
	load, _ := os.ReadFile("/proc/loadavg")
	b.Logf("%s: %.0f queries/s, p50 %.3f ms, p99 %.3f ms; load average %s", name, rate, took[len(took)/2].Seconds()*1000, p99, load)
	return rate, p99
}

// volleys sends a few queries at once and awaits their answers, until the time has
// come. It returns how long each answer took.
func volleys(conn *net.UDPConn, query []byte, until time.Time) (took []time.Duration, err error) {
	packets := ipv4.NewPacketConn(conn)
	out, in := make([]ipv4.Message, volley), make([]ipv4.Message, volley)
	for i := range volley {
		out[i].Buffers, in[i].Buffers = [][]byte{query}, [][]byte{make([]byte, 512)}
	}
	for time.Now().Before(until) {
		sent := time.Now()
		if err := conn.SetDeadline(sent.Add(time.Second)); err != nil {
			return took, err
		}
		if n, err := packets.WriteBatch(out, 0); err != nil || n != volley {
			return took, fmt.Errorf("sent %d of %d queries: %w", n, volley, err)
		}
		for got := 0; got < volley; {
			n, err := packets.ReadBatch(in, 0)
			if err != nil {
				return took, err
			}
			for range n {
				took = append(took, time.Since(sent))
			}
			got += n
		}
	}
	return took, nil
}
