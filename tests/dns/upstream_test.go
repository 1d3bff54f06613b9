package dns

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"lite.io/lite/tests/harness/cluster"
)

// upstream is the name server of the network that the hosts are on. It knows the
// names below outside.test.
type upstream struct {
	mu    sync.Mutex
	asked map[string]int // how often, by "name type protocol"
	// silent makes it answer nothing.
	silent bool
}

// serveUpstream serves at the address that the hosts' /etc/resolv.conf names.
func serveUpstream(t testing.TB, n *cluster.Network) *upstream {
	t.Helper()
	u := &upstream{asked: map[string]int{}}
	packets, err := n.ListenPacket("udp", net.JoinHostPort(cluster.Gateway, "53"))
	if err != nil {
		t.Fatal(err)
	}
	conns, err := n.Listen("tcp", net.JoinHostPort(cluster.Gateway, "53"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: u}, {Listener: conns, Handler: u}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return u
}

// ServeDNS implements dns.Handler.
func (u *upstream) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	q := r.Question[0]
	u.mu.Lock()
	u.asked[fmt.Sprintf("%s %s %s", strings.ToLower(q.Name), dns.TypeToString[q.Qtype], w.LocalAddr().Network())]++
	silent := u.silent
	u.mu.Unlock()
	if silent {
		return
	}
	m := new(dns.Msg).SetReply(r)
	records := map[string][]string{
		"www.outside.test.":   {"www.outside.test. 60 IN A 192.0.2.80"},
		"other.outside.test.": {"other.outside.test. 60 IN A 192.0.2.81"},
		"short.outside.test.": {"short.outside.test. 1 IN A 192.0.2.82"},
	}
	for i := range 200 {
		records["big.outside.test."] = append(records["big.outside.test."], fmt.Sprintf("big.outside.test. 60 IN A 198.51.100.%d", i))
	}
	for _, text := range records[strings.ToLower(q.Name)] {
		rr, err := dns.NewRR(text)
		if err == nil && rr.Header().Rrtype == q.Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	if _, known := records[strings.ToLower(q.Name)]; !known {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		soa, _ := dns.NewRR("outside.test. 60 IN SOA ns.outside.test. root.outside.test. 1 60 60 60 60")
		m.Ns = append(m.Ns, soa)
	}
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := r.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		m.Truncate(size)
	}
	w.WriteMsg(m)
}

// count is how often a question has been asked.
func (u *upstream) count(question string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked[question]
}

// silence makes it answer nothing, or again.
func (u *upstream) silence(silent bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = silent
}
