package uninstall

import (
	"context"
	"fmt"
	"strings"

	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/layout"
)

// removeRules removes the packet filter rules of lite, kube-proxy, the kubelet
// and the CNI's host ports, and no other.
func (w *work) removeRules(ctx context.Context) {
	w.removeTables(ctx)
	for _, front := range w.programs.Fronts(ctx) {
		w.removeChains(ctx, front)
	}
	w.removeEmptied(ctx)
}

// nft lists objects of nftables.
func (w *work) nft(ctx context.Context, args ...string) []netfilter.Object {
	objects, err := w.programs.NFT(ctx, args...)
	w.Fail(err)
	return objects
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

// ownsTable reports whether a whole table is ours. Other distributions use the same name for kube-proxy's.
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
	_, err := w.programs.Run(ctx, nil, "nft", "delete table "+table)
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
			// A jump, which the plugin creates for each container.
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
		_, err := w.programs.Run(ctx, []byte(strings.Join(ours, "\n")+"\n"), "nft", "-f", "-")
		w.Fail(err)
	}
}

// removeEmptied removes tables and base chains that lite's use of iptables has created and
// that are empty now. They do not affect packets, so they stay if it is unknown what
// existed before.
func (w *work) removeEmptied(ctx context.Context) {
	if w.record.Tables == nil {
		return
	}
	script := netfilter.Emptied(w.nft(ctx, "list", "ruleset"), w.record.Tables)
	if len(script) == 0 {
		return
	}
	_, err := w.programs.Run(ctx, []byte(strings.Join(script, "\n")+"\n"), "nft", "-f", "-")
	w.Fail(err)
}

func (w *work) removeChains(ctx context.Context, f netfilter.Front) {
	saved, err := w.programs.Run(ctx, nil, f.Save)
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
	_, err = w.programs.Run(ctx, []byte(script), f.Restore, "--noflush", "--wait=5")
	w.Fail(err)
}
