package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"

	"github.com/coreos/go-iptables/iptables"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/layout"
)

// guardChain is the kubelet's. It blocks packets from outside for loopback addresses, which
// hostPorts would let in. The kubelet restores it only if somebody removes its chain in
// another table as well (1.37).
const guardChain = layout.KubeletChain

// chain is one chain of ours and what is in it.
type chain struct {
	table, parent, name string
	rules               [][]string
	bare                bool // only a jump leads to it
}

// family is the rules of one address family.
type family struct {
	name   string // as nft spells it
	tool   *iptables.IPTables
	at     netip.Addr // the node's address in the pod network
	chains []chain
	older  bool // it is beside another, of the newer interface
}

// rules are those of all families. What looks after them and what follows the nodes
// are two goroutines.
type rules struct {
	mu       sync.Mutex
	families []family
	nodes    []netip.Addr      // see admit
	watcher  *firewall.Watcher // learns whether the older interface is used as well
	settled  map[string]bool   // families of which it is known whose the older interface is
}

// newRules makes the rules that let packets of pods through, whatever the
// policy of FORWARD, and to ports of their nodes, whatever that of INPUT, keep
// others from these and pods from the tunnel, and masquerade what leaves the pod
// network.
func newRules(local, cluster []netip.Prefix, ports []int, backend string) (*rules, error) {
	all := &rules{settled: map[string]bool{}}
	for i, pods := range local {
		protocol := iptables.ProtocolIPv4
		if pods.Addr().Is6() {
			protocol = iptables.ProtocolIPv6
		}
		tool, err := iptables.New(iptables.IPFamily(protocol), iptables.Timeout(5))
		if err != nil {
			return nil, fmt.Errorf("find iptables: %w", err)
		}
		at := gateway(pods).Addr()
		mine := chains(pods, cluster[min(i, len(cluster)-1)], ports, backend)
		if !slices.ContainsFunc(mine, func(c chain) bool { return c.name == layout.InputChain }) {
			if err := removeInput(tool); err != nil {
				return nil, fmt.Errorf("remove chain %s: %w", layout.InputChain, err)
			}
		}
		name := map[iptables.Protocol]string{iptables.ProtocolIPv4: "ip", iptables.ProtocolIPv6: "ip6"}[protocol]
		all.families = append(all.families, family{name: name, tool: tool, at: at, chains: mine})
		if other := legacy(protocol); other != nil {
			all.families = append(all.families, beside(all.families[len(all.families)-1], other))
			all.settled[name] = true
		}
	}
	return all, nil
}

// beside is what a family has in the older interface, besides: its chains of the table
// filter, without the kubelet's.
func beside(f family, tool *iptables.IPTables) family {
	f.tool, f.older = tool, true
	f.chains = slices.DeleteFunc(slices.Clone(f.chains), func(c chain) bool { return c.table != "filter" || c.name == guardChain })
	return f
}

// findOlder finds that somebody uses the older interface by now, such as a program that
// drops there by policy what nobody lets through.
func (r *rules) findOlder(lost firewall.Lost) (found bool) {
	if !lost.Older && !lost.Unknown && len(lost.Links) == 0 {
		return false
	}
	for _, f := range slices.Clone(r.families) {
		if r.settled[f.name] {
			continue
		}
		tool := legacy(f.tool.Proto())
		if tool == nil {
			continue
		}
		r.settled[f.name] = true
		// If the node uses it, our chains exist.
		if there, err := tool.ChainExists("filter", layout.ForwardChain); err == nil && !there {
			r.families = append(r.families, beside(f, tool))
			r.watcher.FollowOlder()
			found = true
		}
	}
	return found
}

// legacy is the iptables of the older kernel interface where the machine uses
// both: a packet must get past the policies of both, whoever asks which. Nothing
// is asked of it if it has no rules, since that would make its tables.
func legacy(protocol iptables.Protocol) *iptables.IPTables {
	is6, program := protocol == iptables.ProtocolIPv6, "iptables-legacy"
	if is6 {
		program = "ip6tables-legacy"
	}
	if !slices.Contains(netfilter.OlderTables(is6), "filter") {
		return nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil
	}
	tool, err := iptables.New(iptables.IPFamily(protocol), iptables.Timeout(5), iptables.Path(path))
	if err != nil {
		return nil
	}
	return tool
}

// chains is those of the table filter, and last the one of nat.
func chains(pods, cluster netip.Prefix, ports []int, backend string) []chain {
	multicast := "224.0.0.0/4"
	if pods.Addr().Is6() {
		multicast = "ff00::/8"
	}
	forward := chain{table: "filter", parent: "FORWARD", name: layout.ForwardChain, rules: [][]string{
		{"-s", cluster.String(), "-j", "ACCEPT"},
		{"-d", cluster.String(), "-j", "ACCEPT"},
	}}
	in := chain{table: "filter", parent: "INPUT", name: layout.InputChain, rules: input(gateway(pods).Addr(), cluster, ports)}
	if device, port := overlay.Unauthenticated(backend); port != 0 && pods.Addr().Is4() {
		forward.rules = append([][]string{tunneled(port, "!", "-d", cluster.String(), "-i", layout.Bridge)}, forward.rules...)
		in.rules = append(in.rules, tunneled(port, "-i", layout.Bridge), tunneled(port, "-i", device))
	}
	all := []chain{forward}
	if len(in.rules) > 0 {
		all = append(all, in)
	}
	return append(all, chain{table: "nat", parent: "POSTROUTING", name: layout.PostroutingChain, rules: [][]string{
		{"-s", pods.String(), "-d", cluster.String(), "-j", "RETURN"},
		{"-s", pods.String(), "!", "-d", multicast, "-j", "MASQUERADE", "--random-fully"},
	}})
}

// tunneled keeps pods from the port at which nodes accept packets for pods from anybody: in
// such a packet a pod can pose as another, and neither its NetworkPolicies nor the
// receiver's apply. Other nodes come from outside the bridge and the tunnel.
func tunneled(port int, from ...string) []string {
	return append(from, "-p", "udp", "-m", "udp", "--dport", strconv.Itoa(port), "-j", "DROP")
}

// input lets only pods and the machine itself reach ports of the node's address in the pod
// network: anybody with a route could send packets there, and Services lead there as well.
// What other nodes send comes from an address of the pod network through a tunnel; see
// admit for networks without one.
func input(at netip.Addr, cluster netip.Prefix, ports []int) (rules [][]string) {
	for _, who := range []struct{ match, verdict []string }{
		{[]string{"-s", cluster.String()}, []string{"-j", "ACCEPT"}},
		{[]string{"!", "-i", "lo"}, []string{"-j", "DROP"}},
	} {
		for _, port := range ports {
			for _, protocol := range []string{"udp", "tcp"} {
				rules = append(rules, slices.Concat(who.match,
					[]string{"-d", at.String(), "-p", protocol, "-m", protocol, "--dport", strconv.Itoa(port)}, who.verdict))
			}
		}
	}
	return rules
}

// admitted is the rule that allows a node what its pods may do.
func admitted(node, at netip.Addr) []string {
	return []string{"-s", node.String(), "-d", at.String(), "-j", "RETURN"}
}

// admit lets other nodes themselves reach what their pods do, where their packets come
// from their own addresses, and over IPv4 alone.
func (r *rules) admit(nodes []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes = slices.Compact(slices.SortedFunc(slices.Values(nodes), netip.Addr.Compare))
	if slices.Equal(nodes, r.nodes) {
		return nil
	}
	var errs []error
	for _, f := range r.families {
		i := slices.IndexFunc(f.chains, func(c chain) bool { return c.name == layout.InputChain })
		if i >= 0 && f.name == "ip" {
			errs = append(errs, f.chains[i].admit(f, r.nodes, nodes))
		}
	}
	r.nodes = nodes
	return errors.Join(errs...)
}

// admit exchanges the rules of nodes, which come first.
func (c *chain) admit(f family, before, after []netip.Addr) error {
	var errs []error
	own := c.rules[len(before):]
	c.rules = nil
	for _, node := range after {
		c.rules = append(c.rules, admitted(node, f.at))
		if !slices.Contains(before, node) {
			errs = append(errs, f.tool.InsertUnique(c.table, c.name, 1, admitted(node, f.at)...))
		}
	}
	c.rules = append(c.rules, own...)
	for _, node := range before {
		if !slices.Contains(after, node) {
			errs = append(errs, f.tool.DeleteIfExists(c.table, c.name, admitted(node, f.at)...))
		}
	}
	return errors.Join(errs...)
}

// guard is the kubelet's chain as the kubelet makes it.
func guard() []chain {
	rules := [][]string{{"-m", "comment", "--comment", "block incoming localnet connections", "-d", "127.0.0.0/8", "!", "-s", "127.0.0.0/8",
		"-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT", "-j", "DROP"}}
	return []chain{
		{table: "filter", parent: "INPUT", name: guardChain, rules: rules, bare: true},
		{table: "filter", parent: "OUTPUT", name: guardChain, rules: rules, bare: true},
	}
}

// removeInput removes what is no longer needed.
func removeInput(tool *iptables.IPTables) error {
	exists, err := tool.ChainExists("filter", layout.InputChain)
	if err != nil || !exists {
		return err
	}
	if err := tool.DeleteIfExists("filter", "INPUT", chain{name: layout.InputChain}.jump()...); err != nil {
		return err
	}
	return tool.ClearAndDeleteChain("filter", layout.InputChain)
}

// unreadable reports whether iptables cannot read a chain. That happens with rules that nft
// has written, such as when somebody loads what nft has listed: they work, and iptables can
// add to them and flush them, but not read them.
func unreadable(err error) bool {
	failed, ok := errors.AsType[*iptables.Error](err)
	return ok && (failed.ExitStatus() == 1 || failed.ExitStatus() == 3)
}

// jump is the rule that leads to a chain.
func (c chain) jump() []string {
	if c.bare {
		return []string{"-j", c.name}
	}
	return []string{"-m", "comment", "--comment", layout.JumpComment, "-j", c.name}
}

// ensure restores what is missing and leaves what exists alone.
func (r *rules) ensure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		for _, c := range f.chains {
			if err := c.ensure(f.tool); err != nil {
				return fmt.Errorf("%s chain %s: %w", c.table, c.name, err)
			}
		}
	}
	return nil
}

func (c chain) ensure(tool *iptables.IPTables) error {
	right, err := c.holds(tool)
	if err != nil {
		return err
	}
	if !right {
		// It makes the chain if there is none.
		if err := tool.ClearChain(c.table, c.name); err != nil {
			return err
		}
		for _, rule := range c.rules {
			if err := tool.Append(c.table, c.name, rule...); err != nil {
				return err
			}
		}
	}
	if led, err := c.led(tool); err != nil || led {
		return err
	}
	// First, so that another's DROP does not come before it.
	return tool.Insert(c.table, c.parent, 1, c.jump()...)
}

// missing reports whether the chain, a rule of it or what leads to it is gone.
func (c chain) missing(tool *iptables.IPTables) (bool, error) {
	if right, err := c.holds(tool); err != nil || !right {
		return err == nil, err
	}
	led, err := c.led(tool)
	return err == nil && !led, err
}

// led reports whether there is a jump to the chain. Before ours there is nothing that
// iptables could not read, unless somebody has put it there since.
func (c chain) led(tool *iptables.IPTables) (bool, error) {
	led, err := tool.Exists(c.table, c.parent, c.jump()...)
	if unreadable(err) {
		return false, nil
	}
	return led, err
}

// holds reports whether the chain exists and has exactly our rules, since one may have been
// replaced. Of the kubelet's chains it compares the number of rules alone.
func (c chain) holds(tool *iptables.IPTables) (bool, error) {
	present, err := tool.List(c.table, c.name)
	if unreadable(err) {
		return false, nil
	}
	// The first line is the chain itself.
	if err != nil || len(present)-1 != len(c.rules) || c.bare {
		return len(present)-1 == len(c.rules), err
	}
	for _, rule := range c.rules {
		found, err := tool.Exists(c.table, c.name, rule...)
		if err != nil && !unreadable(err) {
			return false, err
		}
		if err != nil || !found {
			return false, nil
		}
	}
	return true, nil
}

// prepareKernel switches on what forwarding between pods needs.
func prepareKernel(ranges []netip.Prefix) error {
	const bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := os.Stat(bridged); errors.Is(err, os.ErrNotExist) {
		// In a container or without kmod this may fail; what matters is whether the file
		// exists afterwards.
		_ = exec.Command("modprobe", "br_netfilter").Run()
	}
	for _, s := range kernel(ranges) {
		if err := enable(s.path); err != nil {
			if errors.Is(err, os.ErrNotExist) && s.module != "" {
				return fmt.Errorf("kernel module %s is missing (no %s): load it with `modprobe %s`; kernels have it with CONFIG_BRIDGE_NETFILTER", s.module, s.path, s.module)
			}
			return fmt.Errorf("switch on %s: %w", s.path, err)
		}
	}
	return nil
}
