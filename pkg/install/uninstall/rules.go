package uninstall

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/layout"
)

// removeRules removes the packet filter rules of lite, kube-proxy, the kubelet
// and the CNI's host ports, and no other.
func (w *work) removeRules(ctx context.Context) {
	w.removeTables(ctx)
	for _, front := range w.fronts(ctx) {
		w.removeChains(ctx, front)
	}
	w.removeEmptied(ctx)
}

// nftObject is one of what `nft -j` lists: its kind, and what it says.
type nftObject map[string]nftThing

type nftThing struct {
	Family  string `json:"family"`
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Name    string `json:"name"`
	Handle  int    `json:"handle"`
	Comment string `json:"comment"`
	Policy  string `json:"policy"`
}

// nft lists objects. A kernel without nftables has none; where there is no nft, of
// the machine or of lite, nobody has made any.
func (w *work) nft(ctx context.Context, args ...string) []nftObject {
	if _, ok := w.find("nft"); !ok {
		return nil
	}
	out, err := w.run(ctx, nil, "nft", append([]string{"-j", "-a"}, args...)...)
	if err != nil {
		if netfilter.KernelHasNFTables() {
			w.Fail(err)
		}
		return nil
	}
	var answer struct {
		Nftables []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		w.Fail(fmt.Errorf("nft %s: %w", strings.Join(args, " "), err))
	}
	return answer.Nftables
}

// removeTables removes the tables of nftables that are ours.
func (w *work) removeTables(ctx context.Context) {
	for _, o := range w.nft(ctx, "list", "tables") {
		table, ok := o["table"]
		if !ok {
			continue
		}
		switch t := table.Family + " " + table.Name; t {
		case "ip " + layout.PortmapTable, "ip6 " + layout.PortmapTable:
			w.removeHostPorts(ctx, t)
		default:
			if ownsTable(t, w.hadRun) {
				w.deleteTable(ctx, t)
			}
		}
	}
}

// ownsTable reports whether a table is ours as a whole. Other Kubernetes call the one of kube-proxy the same.
func ownsTable(table string, hadRun bool) bool {
	switch table {
	case "inet " + layout.PolicyTable:
		return true
	case "ip " + layout.ProxyTable, "ip6 " + layout.ProxyTable:
		return hadRun
	}
	return false
}

func (w *work) deleteTable(ctx context.Context, table string) {
	w.Step("Removing table %s of nftables", table)
	_, err := w.run(ctx, nil, "nft", "delete table "+table)
	w.Fail(err)
}

// removeHostPorts removes the rules of our containers from the table that all
// users of the CNI's plugin portmap (1.9) share, and the table when no other's
// are in it. A rule's comment is the ID of its container.
func (w *work) removeHostPorts(ctx context.Context, table string) {
	others, ours := 0, []string(nil)
	for _, o := range w.nft(ctx, "list", "table", strings.Fields(table)[0], strings.Fields(table)[1]) {
		rule := o["rule"]
		switch {
		case rule.Comment == "":
			// A jump, which the plugin makes anew for each container.
		case w.seen.ids[rule.Comment]:
			ours = append(ours, fmt.Sprintf("delete rule %s %s handle %d", table, rule.Chain, rule.Handle))
		default:
			others++
		}
	}
	switch {
	case others == 0 && (len(ours) > 0 || w.hadRun):
		w.deleteTable(ctx, table)
	case len(ours) > 0:
		w.Step("Removing %d rules from table %s of nftables", len(ours), table)
		_, err := w.run(ctx, []byte(strings.Join(ours, "\n")+"\n"), "nft", "-f", "-")
		w.Fail(err)
	}
}

// The tables and chains that programs named iptables make in nftables.
var (
	xtablesTables = []string{"filter", "nat", "mangle", "raw", "security"}
	xtablesHooks  = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
)

// listTables is what the record keeps of the tables that programs named iptables
// have made: "ip filter" and "ip filter FORWARD".
func listTables(objects []nftObject) []string {
	var all []string
	for _, o := range objects {
		if t, ok := o["table"]; ok && isXtables(t.Family, t.Name) {
			all = append(all, t.Family+" "+t.Name)
		}
		if c, ok := o["chain"]; ok && isXtables(c.Family, c.Table) {
			all = append(all, c.Family+" "+c.Table+" "+c.Name)
		}
	}
	return all
}

func isXtables(family, name string) bool {
	return (family == "ip" || family == "ip6") && slices.Contains(xtablesTables, name)
}

// removeEmptied removes tables and chains of the kernel's hooks that our use of
// iptables has made and that hold nothing now. They change no packet's way, so
// without knowledge of what was before they stay.
func (w *work) removeEmptied(ctx context.Context) {
	if w.record.Tables == nil {
		return
	}
	script := emptied(w.nft(ctx, "list", "ruleset"), w.record.Tables)
	if len(script) == 0 {
		return
	}
	_, err := w.run(ctx, []byte(strings.Join(script, "\n")+"\n"), "nft", "-f", "-")
	w.Fail(err)
}

// emptied is what to tell nft to remove them, of all that there is. before are those that were there before lite.
func emptied(objects []nftObject, before []string) (script []string) {
	used := map[string]bool{} // tables and chains that hold something
	for _, o := range objects {
		for kind, thing := range o {
			switch kind {
			case "table", "chain":
			case "rule":
				used[thing.Family+" "+thing.Table+" "+thing.Chain] = true
				used[thing.Family+" "+thing.Table] = true
			default: // a set, a counter, ...
				used[thing.Family+" "+thing.Table] = true
			}
		}
	}
	for _, o := range objects {
		c, ok := o["chain"]
		if !ok || !isXtables(c.Family, c.Table) {
			continue
		}
		table := c.Family + " " + c.Table
		chain := table + " " + c.Name
		ours := slices.Contains(xtablesHooks, c.Name) && c.Policy == "accept" && !used[chain] && !slices.Contains(before, chain)
		if !ours {
			used[table] = true
			continue
		}
		script = append(script, "delete chain "+chain)
	}
	for _, o := range objects {
		if t, ok := o["table"]; ok && isXtables(t.Family, t.Name) {
			if table := t.Family + " " + t.Name; !used[table] && !slices.Contains(before, table) {
				script = append(script, "delete table "+table)
			}
		}
	}
	return script
}

// front is one of the programs by which chains of iptables are reached.
type front struct {
	family        string // ip or ip6
	legacy        bool
	save, restore string
}

func (f front) String() string {
	kind := "nft"
	if f.legacy {
		kind = "legacy"
	}
	return fmt.Sprintf("%stables (%s)", f.family, kind)
}

// fronts is those that may hold rules. The older ones are not asked where the
// kernel has no table of theirs: that would make it.
func (w *work) fronts(ctx context.Context) []front {
	var all []front
	for _, family := range []struct{ name, program, tables string }{
		{"ip", "iptables", "/proc/net/ip_tables_names"},
		{"ip6", "ip6tables", "/proc/net/ip6_tables_names"},
	} {
		version, err := w.run(ctx, nil, family.program, "-V")
		kinds := []bool{false}
		if readText(family.tables) != "" {
			kinds = append(kinds, true)
		}
		for _, legacy := range kinds {
			name := family.program + "-nft"
			if legacy {
				name = family.program + "-legacy"
			}
			if _, ok := w.find(name + "-save"); !ok {
				if err != nil || strings.Contains(version, "nf_tables") == legacy {
					continue
				}
				name = family.program
			}
			all = append(all, front{family.name, legacy, name + "-save", name + "-restore"})
		}
	}
	return all
}

func (w *work) removeChains(ctx context.Context, f front) {
	saved, err := w.run(ctx, nil, f.save)
	if err != nil {
		w.Fail(err)
		return
	}
	owner := chainOwner{kubernetes: w.hadRun, network: w.Network, ids: w.seen.ids}
	script, chains := owner.script(saved)
	if script == "" {
		return
	}
	w.Step("Removing %d chains of %v", chains, f)
	_, err = w.run(ctx, []byte(script), f.restore, "--noflush", "--wait=5")
	w.Fail(err)
}
