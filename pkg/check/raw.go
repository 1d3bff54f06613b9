package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/layout"
)

// findRaw reads the rules themselves, for chains that drop what no rule accepts.
func (e *Env) findRaw(ctx context.Context) (found []firewall, note string, err error) {
	_, firewalldRuns := e.runs("firewalld")
	ufwActive := strings.Contains(strings.ToLower("\n"+e.text("/etc/ufw/ufw.conf")), "\nenabled=yes")
	if e.UID != 0 {
		return nil, "", errors.New("only root can see the rules of iptables and nftables")
	}
	var quiet []string
	for _, tool := range []string{"iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy"} {
		if ufwActive && !strings.HasSuffix(tool, "-legacy") {
			continue // these are its rules
		}
		if !e.hasFamily(tool) {
			continue
		}
		f, forward, err := e.findTables(ctx, tool)
		if err != nil {
			return nil, "", err
		}
		if f != nil {
			found = append(found, f)
		}
		if forward != "" {
			quiet = append(quiet, forward)
		}
	}
	nft, err := e.findNFT(ctx, firewalldRuns)
	if errors.Is(err, exec.ErrNotFound) {
		err = e.unseen()
	}
	return append(found, nft...), strings.Join(quiet, "; "), err
}

// filter runs a program of the packet filter: the machine's, otherwise the bundled one,
// once that is unpacked.
func (e *Env) filter(ctx context.Context, program string, args ...string) (string, error) {
	out, err := e.Run(ctx, "", program, args...)
	if errors.Is(err, exec.ErrNotFound) && e.Config != nil {
		for _, dir := range []string{"nft", "bin"} {
			for _, path := range e.glob(filepath.Join(layout.Data(e.Config.DataDir).Helpers("*").Netfilter(), dir, program)) {
				return e.Run(ctx, "", path, args...)
			}
		}
	}
	return out, err
}

// unseen is an error if nftables has rules, such as those of iptables-nft, and the machine
// has no program that lists them.
func (e *Env) unseen() error {
	tables, err := e.Tables()
	if err != nil || len(tables) == 0 {
		return nil // a kernel without them has no rules there
	}
	return fmt.Errorf("there are nftables rules (tables %s), but no program to read them: install nft, or check again once lite is running, which has its own", strings.Join(tables, ", "))
}

// hasFamily: IPv6 matters where the cluster has it, and the older interface where
// something has made its tables.
func (e *Env) hasFamily(tool string) bool {
	six := strings.HasPrefix(tool, "ip6")
	if six && !slices.ContainsFunc(e.openings(), func(o opening) bool { return o.from.IsValid() && o.from.Addr().Is6() }) {
		return false
	}
	if strings.HasSuffix(tool, "-legacy") {
		return slices.Contains(e.legacyTables(six), "filter")
	}
	return true
}

// legacyTables is those of the older kernel interface, which exist once asked for.
func (e *Env) legacyTables(six bool) []string {
	name := "/proc/net/ip_tables_names"
	if six {
		name = "/proc/net/ip6_tables_names"
	}
	return strings.Fields(e.text(name))
}

// tables is the table filter as iptables sees it.
type tables struct {
	*Env
	tool   string
	how    string // it drops
	chains ruleChains
	policy string // of INPUT
}

func (e *Env) findTables(ctx context.Context, tool string) (f firewall, forward string, err error) {
	out, err := e.filter(ctx, tool, "-w", "5", "-S")
	if errors.Is(err, exec.ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the rules of %s: %w", tool, err)
	}
	chains, policies := e.chainsOf(ctx, out)
	t := &tables{e, tool, dropping(out, "INPUT"), chains, cmp.Or(policies["INPUT"], "ACCEPT")}
	for _, o := range e.openings() {
		if _, how := t.reads(o); t.how == "" && t.fits(o) {
			t.how = how // nothing is dropped but by a rule before the last
		}
	}
	if t.how != "" {
		f = t
	}
	if how := dropping(out, "FORWARD"); how != "" && !e.disabled(addon.CNI) {
		who := ""
		if strings.Contains(out, "-N DOCKER") {
			who = " (docker's)"
		}
		forward = fmt.Sprintf("%s drops forwarded packets%s: %s; lite lets its pods through before that", tool, who, how)
	}
	return f, forward, nil
}

// dropping is how a chain drops what its other rules do not accept: by its policy, or by a
// last rule for everything.
func dropping(rules, chain string) string {
	for l := range strings.Lines(rules) {
		f := strings.Fields(l)
		switch {
		case len(f) == 3 && f[0] == "-P" && f[1] == chain && f[2] != "ACCEPT":
			return "policy " + f[2]
		case len(f) >= 4 && f[0] == "-A" && f[1] == chain && f[2] == "-j" && (f[3] == "DROP" || f[3] == "REJECT"):
			return "its rule " + strings.Join(f[2:], " ")
		}
	}
	return ""
}

func (t *tables) name() string { return t.tool + " (" + t.how + " of INPUT)" }
func (t *tables) note() string {
	return "rules of " + t.tool + " last until a reboot, unless you save them (netfilter-persistent save)"
}

func (t *tables) rule(o opening) command {
	var r command
	if o.from.IsValid() {
		r = append(r, "-s", o.from.String())
	}
	if o.port > 0 {
		r = append(r, "-p", o.proto, "-m", o.proto, "--dport", strconv.Itoa(o.port))
	}
	return append(r, "-m", "comment", "--comment", layout.RulePrefix+o.why, "-j", "ACCEPT")
}

// fits: a rule of one family has no addresses of the other.
func (t *tables) fits(o opening) bool {
	return !o.from.IsValid() || o.from.Addr().Is6() == strings.HasPrefix(t.tool, "ip6")
}

// reads reports whether the rules let an opening in; how is what keeps it out.
func (t *tables) reads(o opening) (ok bool, how string) {
	return t.chains.lets(t.packetsOf(o), "INPUT", t.policy)
}

// lets reads the rules. For lite's, and for the same without lite's comment, it asks the
// program itself, which knows them in whatever form they were added.
func (t *tables) lets(ctx context.Context, o opening) (bool, error) {
	if !t.fits(o) {
		return true, nil
	}
	if ok, _ := t.reads(o); ok {
		return true, nil
	}
	rules := []command{t.rule(o), without(t.rule(o))}
	if o.port > 0 && o.from.IsValid() {
		everybody := o
		everybody.from = opening{}.from
		rules = append(rules, without(t.rule(everybody)))
	}
	for _, r := range rules {
		if _, err := t.filter(ctx, t.tool, append([]string{"-w", "5", "-C", "INPUT"}, r...)...); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// without is a rule without its comment.
func without(r command) command {
	i := slices.Index(r, "comment") - 1
	return append(slices.Clone(r[:i]), r[i+4:]...)
}

func (t *tables) allow(o opening) []command {
	return []command{append(command{t.tool, "-w", "5", "-I", "INPUT"}, t.rule(o)...)}
}

func (t *tables) undo(o opening) []string {
	has, remove := append(command{t.tool, "-w", "5", "-C", "INPUT"}, t.rule(o)...), append(command{t.tool, "-w", "5", "-D", "INPUT"}, t.rule(o)...)
	return []string{"! " + has.String() + " 2>/dev/null || " + remove.String()}
}

// nftChain is a chain of somebody's own in nftables that drops. Our rules are known
// by their comments too.
type nftChain struct {
	*Env
	family, table, chain string
	forward              bool
	comments             []string
	chains               ruleChains // of the table
	policy               string
}

func (e *Env) findNFT(ctx context.Context, firewalldRuns bool) ([]firewall, error) {
	out, err := e.filter(ctx, "nft", "-j", "list", "ruleset")
	if err != nil {
		return nil, fmt.Errorf("read the rules of nftables: %w", err)
	}
	var rules ruleset
	if err := json.Unmarshal([]byte(out), &rules); err != nil {
		return nil, fmt.Errorf("read the rules of nftables: %w", err)
	}
	var found []firewall
	for _, entry := range rules.Nftables {
		c := entry.Chain
		if c == nil || c.Hook != "input" && c.Hook != "forward" || foreign(c.Table, c.Name) || c.Table == "firewalld" && firewalldRuns {
			continue
		}
		if c.Hook == "forward" && e.disabled(addon.CNI) {
			continue
		}
		n := &nftChain{
			Env: e, family: c.Family, table: c.Table, chain: c.Name, forward: c.Hook == "forward",
			chains: e.nftChains(rules, c.Family, c.Table), policy: cmp.Or(strings.ToUpper(c.Policy), "ACCEPT"),
		}
		drops := c.Policy == "drop" || slices.ContainsFunc(e.openings(), func(o opening) bool { return !n.reads(o) })
		for _, other := range rules.Nftables {
			r := other.Rule
			if r == nil || r.Family != c.Family || r.Table != c.Table || r.Chain != c.Name {
				continue
			}
			n.comments = append(n.comments, r.Comment)
			if len(r.Expr) == 1 {
				_, drop := r.Expr[0]["drop"]
				_, reject := r.Expr[0]["reject"]
				drops = drops || drop || reject
			}
		}
		if drops {
			found = append(found, n)
		}
	}
	return found, nil
}

// foreign is tables that are no firewall of the user's: those that iptables makes,
// which it was asked for itself, and those of a cluster.
func foreign(table, chain string) bool {
	switch {
	case table == "filter" && (chain == "INPUT" || chain == "FORWARD"):
		return true
	case slices.Contains([]string{layout.ProxyTable, layout.PolicyTable, layout.PortmapTable, "docker-bridges"}, table):
		return true
	}
	return false
}

func (n *nftChain) name() string {
	return fmt.Sprintf("nftables (chain %s of table %s %s)", n.chain, n.family, n.table)
}

func (n *nftChain) note() string {
	return "nft rules last until its file is reloaded: add them there too (/etc/nftables.conf)"
}

func (n *nftChain) comment(o opening) string { return layout.RulePrefix + o.String() }

// fits: what is forwarded is pods', and a table of one family has its addresses.
func (n *nftChain) fits(o opening) bool {
	family := map[bool]string{false: "ip", true: "ip6"}[o.from.IsValid() && o.from.Addr().Is6()]
	return (!n.forward || o.port == 0) && (n.family == "inet" || n.family == family || !o.from.IsValid())
}

// reads reports whether the rules let an opening in.
func (n *nftChain) reads(o opening) bool {
	all := n.packetsOf(o)
	if n.forward {
		all = n.forwarded(o)
	}
	ok, _ := n.chains.lets(all, n.chain, n.policy)
	return ok || !n.fits(o)
}

func (n *nftChain) lets(_ context.Context, o opening) (bool, error) {
	return n.reads(o) || slices.Contains(n.comments, n.comment(o)), nil
}

func (n *nftChain) allow(o opening) []command {
	var from []string
	family := "ip"
	if o.from.IsValid() {
		if o.from.Addr().Is6() {
			family = "ip6"
		}
		from = []string{family, "saddr", o.from.String()}
	}
	insert := command{"nft", "insert", "rule", n.family, n.table, n.chain}
	end := []string{"accept", "comment", `"` + n.comment(o) + `"`}
	if o.port > 0 {
		return []command{slices.Concat(insert, from, []string{o.proto, "dport", strconv.Itoa(o.port)}, end)}
	}
	all := []command{slices.Concat(insert, from, end)}
	if n.forward {
		all = append(all, slices.Concat(insert, []string{family, "daddr", o.from.String()}, end))
	}
	return all
}

// undo names the rules by their comment: a handle is known only once there is one.
func (n *nftChain) undo(o opening) []string {
	list := fmt.Sprintf(`for h in $(nft -a list chain %s %s %s | sed -n 's|.*comment "%s".*# handle ||p'); do nft delete rule %s %s %s handle $h; done`,
		n.family, n.table, n.chain, n.comment(o), n.family, n.table, n.chain)
	return []string{list}
}

// iptablesMix finds rules on both of the kernel's interfaces: a packet must pass both, and
// the tools of one do not show the other.
func iptablesMix(ctx context.Context, e *Env) []Result {
	out, err := e.filter(ctx, "iptables", "--version")
	if errors.Is(err, exec.ErrNotFound) {
		return pass("the machine has none; lite has its own, for the kernel interface that has rules")
	}
	if err != nil {
		return skip("iptables does not work: " + err.Error())
	}
	version := strings.TrimSpace(out)
	nft := strings.Contains(version, "nf_tables")
	switch {
	case nft && len(e.legacyTables(false))+len(e.legacyTables(true)) > 0:
		return e.olderRules(ctx, version)
	case !nft && e.UID != 0:
		return skip(version + "; only root can see whether there are nftables rules too")
	case !nft:
		out, err := e.filter(ctx, "nft", "list", "tables")
		if err == nil && strings.Contains(out, "table ip filter") {
			return warn(version+", and there are tables of an iptables for the newer kernel interface, which it does not see",
				"use one of them: `update-alternatives --set iptables /usr/sbin/iptables-nft`, and reboot")
		}
	}
	return pass(version + ", and no rules of the other kernel interface")
}

// olderRules checks whether the existing tables of the older interface have rules.
func (e *Env) olderRules(ctx context.Context, version string) []Result {
	const there = "and there are tables of the older kernel interface, which it does not see"
	if e.UID != 0 {
		return skip(version + ", " + there + "; only root can see whether they have rules")
	}
	var with []string
	for tool, tables := range map[string][]string{"iptables-legacy": e.legacyTables(false), "ip6tables-legacy": e.legacyTables(true)} {
		for _, table := range tables {
			rules, err := e.filter(ctx, tool, "-w", "5", "-t", table, "-S")
			if errors.Is(err, exec.ErrNotFound) {
				return warn(version+", "+there, "install the program "+tool+" (package iptables), so that lite can let its pods through there, or reboot once whatever creates them is gone")
			}
			if err != nil {
				return skip(version + ", " + there + ": " + err.Error())
			}
			for l := range strings.Lines(rules) {
				if f := strings.Fields(l); len(f) != 3 || f[0] != "-P" || f[2] != "ACCEPT" {
					with = append(with, tool+" -t "+table)
					break
				}
			}
		}
	}
	if len(with) == 0 {
		return pass(version + ", and tables of the older kernel interface that are empty")
	}
	slices.Sort(with)
	return warn(fmt.Sprintf("%s, and there are rules of the older kernel interface, which it does not see (%s -S)", version, strings.Join(with, " -S, ")),
		"lite lets its pods through in both; to have only one, flush these once the program that creates them is gone, or reboot")
}
