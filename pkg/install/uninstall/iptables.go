package uninstall

import (
	"fmt"
	"slices"
	"strings"

	"lite.io/lite/pkg/layout"
)

// chainOwner decides whose a chain of iptables is.
type chainOwner struct {
	kubernetes bool            // KUBE-* are of the Kubernetes in lite
	network    string          // of our containers, in the CNI
	ids        map[string]bool // of our containers
}

// savedTable is a table as iptables-save prints it.
type savedTable struct {
	name   string
	chains []string // those of users, in order
	rules  []savedRule
}

type savedRule struct {
	chain, target string
	text          string // without "-A CHAIN "
	comment       string
}

// script is the input of `iptables-restore --noflush` that removes our chains and the jumps
// to them, and how many chains that is; "" if there are none. Rules are named by their
// content and not by their number, so that no rule of others is removed if somebody changes
// the table meanwhile.
func (o chainOwner) script(saved string) (script string, chains int) {
	var b strings.Builder
	for _, t := range parseSaved(saved) {
		ours := o.chains(t)
		var lines []string
		for _, r := range t.rules {
			if !ours[r.chain] && (ours[r.target] || o.ourHostPort(r)) {
				lines = append(lines, "-D "+r.chain+" "+r.text)
			}
		}
		for _, verb := range []string{"-F", "-X"} {
			for _, c := range t.chains {
				if ours[c] {
					lines = append(lines, verb+" "+c)
				}
			}
		}
		if len(lines) == 0 {
			continue
		}
		chains += len(ours)
		fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", t.name, strings.Join(lines, "\n"))
	}
	return b.String(), chains
}

// hostPorts is the chain that leads to one per container, whose name begins with oneHostPort.
const (
	hostPorts   = layout.PortmapDNAT
	oneHostPort = layout.PortmapOne
)

// chains is those of a table that are ours. The ones of the plugin portmap are
// shared by all who use it, but for one per container.
func (o chainOwner) chains(t savedTable) map[string]bool {
	ours := map[string]bool{}
	shared := false
	for _, r := range t.rules {
		switch {
		case r.chain != hostPorts:
		case !o.ourHostPort(r):
			shared = true
		case strings.HasPrefix(r.target, oneHostPort) && slices.Contains(t.chains, r.target): // whatever else somebody has written under our name
			ours[r.target] = true
		}
	}
	for _, c := range t.chains {
		switch {
		case slices.Contains(layout.Chains(), c),
			strings.HasPrefix(c, layout.KubeChains) && o.kubernetes,
			strings.HasPrefix(c, layout.PortmapChains) && !shared && (o.kubernetes || len(ours) > 0):
			ours[c] = true
		}
	}
	return ours
}

// ourHostPort reports whether a rule leads to the host ports of a container of
// ours: its comment names network and container, the latter perhaps cut off.
func (o chainOwner) ourHostPort(r savedRule) bool {
	return r.chain == hostPorts && strings.HasPrefix(r.comment, `dnat name: "`+o.network+`" id: "`)
}

// parseSaved reads what iptables-save prints.
func parseSaved(saved string) []savedTable {
	var tables []savedTable
	for line := range strings.Lines(saved) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutPrefix(line, "*"); ok {
			tables = append(tables, savedTable{name: name})
			continue
		}
		if len(tables) == 0 {
			continue
		}
		t := &tables[len(tables)-1]
		if rest, ok := strings.CutPrefix(line, ":"); ok {
			if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == "-" { // others have a policy
				t.chains = append(t.chains, fields[0])
			}
		}
		if rest, ok := strings.CutPrefix(line, "-A "); ok {
			chain, text, _ := strings.Cut(rest, " ")
			words := split(text)
			t.rules = append(t.rules, savedRule{chain: chain, text: text,
				target: after(words, "-j", "-g"), comment: after(words, "--comment")})
		}
	}
	return tables
}

// after is the word that follows the first of the flags.
func after(words []string, flags ...string) string {
	for i, word := range words[:max(0, len(words)-1)] {
		for _, flag := range flags {
			if word == flag {
				return words[i+1]
			}
		}
	}
	return ""
}

// split parts a rule into words as iptables-save has quoted them.
func split(text string) []string {
	var words []string
	var word strings.Builder
	quoted, started := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case c == '"':
			quoted, started = !quoted, true
		case c == ' ' && !quoted:
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}
