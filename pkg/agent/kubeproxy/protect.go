package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
	"k8s.io/kubernetes/pkg/proxy"
	kubeproxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	"k8s.io/kubernetes/pkg/proxy/healthcheck"

	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// writer is a proxier that can be made to write all of its rules again.
type writer struct {
	proxy.Provider

	mu       sync.Mutex
	topology map[string]string // where the node is
}

// OnTopologyChange implements proxy.Provider.
func (w *writer) OnTopologyChange(topology map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topology = topology
	w.Provider.OnTopologyChange(topology)
}

// writeAll has all rules written, where otherwise it is those of what has changed in the
// API, and nothing is reread for an hour (1.37). What makes upstream do so is a node that
// has moved to another zone, even if it is the same one.
func (w *writer) writeAll() {
	w.mu.Lock()
	defer w.mu.Unlock() // or a zone that is new could be taken back
	w.Provider.OnTopologyChange(w.topology)
}

// protect has the watcher protect kube-proxy's rules once they exist, until ctx is done.
func (p *Proxy) protect(ctx context.Context, server *app.ProxyServer) {
	for p.Ready(ctx) != nil {
		if !kube.Sleep(ctx, time.Second) {
			return
		}
	}
	g := guard{server, map[string][]string{}}
	part := firewall.Part{Missing: g.lostTables, Restore: g.syncAll}
	if server.Config.Mode != kubeproxyconfig.ProxyModeNFTables {
		part.Missing, part.Older = g.lostChains, true
		// What leads to NodePorts now is what somebody may take.
		if _, err := g.lostChains(ctx, firewall.Lost{Unknown: true}); err != nil && ctx.Err() == nil {
			slog.Warn("Cannot check the rules of this node", "err", err)
		}
	}
	defer p.config.Firewall.Keep(part)()
	defer p.config.Firewall.Keep(firewall.Awake(proxyTable))()
	<-ctx.Done()
}

// guard looks after the rules of a running kube-proxy.
type guard struct {
	server *app.ProxyServer
	// nodePorts is the chains of Services that KUBE-NODEPORTS led to when it was last
	// checked, by the program that lists them.
	nodePorts map[string][]string
}

// states are the families that kube-proxy writes rules of, and when it last has.
func (g guard) states() map[v1.IPFamily]healthcheck.ProxierHealth {
	return g.server.HealthzServer.Health().Status
}

// syncAll has all rules written and waits until they are.
func (g guard) syncAll(ctx context.Context) error {
	proxier, ok := g.server.Proxier.(*writer)
	if !ok {
		return errors.New("cannot make kube-proxy write its rules")
	}
	since := time.Now()
	clear(g.nodePorts) // what it writes now is right
	proxier.writeAll()
	for time.Since(since) < syncWithin {
		late := false
		for _, family := range g.states() {
			late = late || family.LastUpdated.Before(since)
		}
		if !late || !kube.Sleep(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	return fmt.Errorf("kube-proxy has not written its rules within %s; its log shows why", syncWithin)
}

// syncWithin is far more than it takes to write the rules of thousands of Services.
const syncWithin = 30 * time.Second

// proxyTable is kube-proxy's, in the families ip and ip6.
const proxyTable = "kube-proxy"

// What is always in it: chains with rules, and the maps that lead to those of Services.
var (
	proxyChains = []string{"nat-prerouting", "nat-output", "nat-postrouting", "services"}
	proxyMaps   = []string{"service-ips", "service-nodeports"}
)

// lostTables names what somebody else has taken from kube-proxy's tables. What was in
// them only kube-proxy knows. But what it takes out itself looks different: it never
// removes the table, and a transaction that takes out rules of a Service, or what leads
// there, and brings in none takes out both.
func (g guard) lostTables(_ context.Context, lost firewall.Lost) (gone []string, err error) {
	for _, c := range lost.Changes {
		if c.Name != proxyTable {
			continue
		}
		switch {
		case c.Dropped:
			gone = append(gone, "table "+c.Table.String())
		case c.Adds:
		case len(c.Chains) > 0 && len(c.Sets) == 0:
			gone = append(gone, fmt.Sprintf("rules of %s in table %s", few(c.Chains), c.Table))
		case len(c.Chains) == 0 && slices.ContainsFunc(c.Sets, func(name string) bool { return slices.Contains(proxyMaps, name) }):
			gone = append(gone, fmt.Sprintf("elements of %s in table %s", strings.Join(c.Sets, ", "), c.Table))
		}
	}
	if !lost.Unknown {
		return gone, nil
	}
	for family := range g.states() {
		number, name := uint8(unix.NFPROTO_IPV4), "ip"
		if family == v1.IPv6Protocol {
			number, name = unix.NFPROTO_IPV6, "ip6"
		}
		rules, err := netfilter.Rules(number, proxyTable)
		if err != nil {
			return gone, err
		}
		if slices.ContainsFunc(proxyChains, func(chain string) bool { return rules[chain] == 0 }) {
			gone = append(gone, fmt.Sprintf("rules in table %s %s", name, proxyTable))
		}
	}
	return gone, nil
}

// few names some chains, and a number if there are many: each Service has some.
func few(chains []string) string {
	if len(chains) > 2 {
		return fmt.Sprintf("%d chains", len(chains))
	}
	return "chain " + strings.Join(chains, ", ")
}

// proxyJumps lead to kube-proxy's chains of iptables, by table and chain.
var proxyJumps = []struct{ table, from, to string }{
	{"nat", "PREROUTING", "KUBE-SERVICES"},
	{"nat", "OUTPUT", "KUBE-SERVICES"},
	{"nat", "POSTROUTING", "KUBE-POSTROUTING"},
	{"filter", "FORWARD", "KUBE-FORWARD"},
}

// lostChains names what somebody else has taken from kube-proxy's chains of iptables.
func (g guard) lostChains(ctx context.Context, lost firewall.Lost) (gone []string, err error) {
	suspect := lost.Unknown || lost.Older
	for _, c := range lost.Changes {
		if c.Name != "nat" && c.Name != "filter" {
			continue
		}
		ours := slices.ContainsFunc(c.Chains, isProxys)
		jumps := slices.ContainsFunc(proxyJumps, func(j struct{ table, from, to string }) bool {
			return j.table == c.Name && slices.Contains(c.Chains, j.from)
		})
		// kube-proxy always brings the chains that lead to what it changes. Whoever removes the jumps
		// as well has put a table in its place, such as one that was saved some time ago.
		if ours && (!c.Adds || jumps) {
			gone = append(gone, fmt.Sprintf("chains %s* of %s", layout.KubeChains, c.Table))
		}
		suspect = suspect || c.Dropped || jumps
	}
	if len(gone) > 0 || !suspect {
		return gone, nil
	}
	for family := range g.states() {
		program := "iptables"
		if family == v1.IPv6Protocol {
			program = "ip6tables"
		}
		for _, table := range []string{"nat", "filter"} {
			rules, err := exec.CommandContext(ctx, program, "-w", "5", "-t", table, "-S").Output()
			if err != nil {
				return gone, fmt.Errorf("list the rules of %s: %w", program, err)
			}
			missing := missingJumps(table, string(rules))
			if table == "nat" {
				if lost, now := lostNodePorts(g.nodePorts[program], string(rules)); lost {
					missing = append(missing, "rules of chain "+nodePortsChain)
				} else {
					g.nodePorts[program] = now
				}
			}
			for _, what := range missing {
				gone = append(gone, what+" of "+program)
			}
		}
	}
	return gone, nil
}

// isProxys distinguishes kube-proxy's chains from the kubelet's.
func isProxys(chain string) bool {
	return strings.HasPrefix(chain, layout.KubeChains) &&
		!slices.Contains([]string{layout.KubeletChain, "KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}, chain)
}

// missingJumps names what is missing from the listing of a table: the rules that
// lead to kube-proxy's chains, and some in each chain that rules lead to.
func missingJumps(table, listing string) (gone []string) {
	filled, led := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "-A" {
			continue
		}
		filled[words[1]] = true
		if i := slices.Index(words, "-j"); i > 0 && i+1 < len(words) {
			led[words[1]+" "+words[i+1]] = true
			// The one that is empty where there is no NodePort.
			if isProxys(words[i+1]) && words[i+1] != nodePortsChain {
				led[words[i+1]] = true
			}
		}
	}
	for _, j := range proxyJumps {
		if j.table == table && !led[j.from+" "+j.to] {
			gone = append(gone, fmt.Sprintf("the jump from %s to %s", j.from, j.to))
		}
	}
	for chain := range led {
		if !strings.Contains(chain, " ") && !filled[chain] && table == "nat" {
			gone = append(gone, "rules of chain "+chain)
		}
	}
	slices.Sort(gone)
	return gone
}

// nodePortsChain leads from ports of the node to chains of Services.
const nodePortsChain = "KUBE-NODEPORTS"

// lostNodePorts reports whether rules of nodePortsChain are gone that led to Services which
// still exist: a listing of the table alone does not show that, since the chain may be
// empty. It returns what the chain leads to now. A chain of a Service is called KUBE-EXT-…,
// and the one for its cluster IP has the same suffix.
func lostNodePorts(before []string, listing string) (lost bool, now []string) {
	served := map[string]bool{}
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		i := slices.Index(words, "-j")
		if len(words) < 2 || words[0] != "-A" || i < 0 || i+1 == len(words) {
			continue
		}
		switch target := words[i+1]; words[1] {
		case nodePortsChain:
			now = append(now, target)
		case "KUBE-SERVICES":
			served[target[strings.LastIndex(target, "-")+1:]] = true
		}
	}
	for _, chain := range before {
		if !slices.Contains(now, chain) && served[chain[strings.LastIndex(chain, "-")+1:]] && strings.Contains(listing, "-A "+chain+" ") {
			return true, now
		}
	}
	return false, now
}
