package netfilter

import (
	"context"
	"slices"
	"strings"
)

// The tables and chains that programs named iptables make in nftables.
var (
	xtablesTables = []string{"filter", "nat", "mangle", "raw", "security"}
	xtablesHooks  = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
)

// XTables is the tables and chains of nftables that programs named iptables have made: "ip filter" and
// "ip filter FORWARD".
func (p Programs) XTables(ctx context.Context) ([]string, error) {
	tables := []string{}
	if _, ok := p.Find("nft"); ok {
		for _, kind := range []string{"tables", "chains"} {
			objects, err := p.NFT(ctx, "list", kind)
			if err != nil {
				return nil, err
			}
			tables = append(tables, madeByIPTables(objects)...)
		}
		return tables, nil
	}
	for _, f := range p.Fronts(ctx) {
		if f.Legacy {
			continue
		}
		saved, err := p.Run(ctx, nil, f.Save)
		if err != nil {
			return nil, err
		}
		tables = append(tables, savedTables(f.Family, saved)...)
	}
	return tables, nil
}

// madeByIPTables finds them among what nft lists.
func madeByIPTables(objects []Object) []string {
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

// Emptied is a script for nft that removes tables and base chains which are empty and do not affect packets. Those in
// before, which are named as by XTables, stay.
func Emptied(objects []Object, before []string) (script []string) {
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

// savedTables is madeByIPTables for the output of iptables-save.
func savedTables(family, saved string) []string {
	var all []string
	table := ""
	for line := range strings.Lines(saved) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "*"); ok {
			table = family + " " + name
			all = append(all, table)
		}
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[0], ":") {
			all = append(all, table+" "+fields[0][1:])
		}
	}
	return all
}
