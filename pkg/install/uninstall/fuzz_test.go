package uninstall

import (
	"strings"
	"testing"

	"lite.io/lite/tests/harness/fuzz"
)

// Whatever iptables-save prints, rules of others stay: only existing chains of ours are removed, and existing rules
// that lead to one of them.
func FuzzSavedRules(f *testing.F) {
	f.Add(savedRules, true)
	f.Add(savedRules, false)
	for _, seed := range []string{
		"*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "-A INPUT -j KUBE-X\n:KUBE-X - [0:0]\n*filter\n", "*filter\n:KUBE-X - [0:0]\n-A INPUT -m comment --comment \"-j KUBE-X\" -j OTHER\n", "*filter\r\n:LITE-FORWARD - [0:0]\r\n-A X -j LITE-FORWARD\r\n",
		"*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n-A CNI-HOSTPORT-DNAT -m comment --comment \"dnat name: \\\"lite\\\" id: \\\"a\" -j USER\n:USER - [0:0]\n", "*filter\n:KUBE-X KUBE-Y - [0:0]\n-A \n-A  -j KUBE-X\n", "*nat\nCOMMIT\n:KUBE-X - [0:0]\n",
		"*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n-A CNI-HOSTPORT-DNAT -m comment --comment \"dnat name: \\\"lite\\\" id: \\\"a\\\"\"\n-A PREROUTING -s 192.0.2.1/32\n",
		"*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n:PREROUTING ACCEPT [0:0]\n-A CNI-HOSTPORT-DNAT -m comment --comment \"dnat name: \\\"lite\\\" id: \\\"a\\\"\" -j ACCEPT\n-A PREROUTING -j ACCEPT\n",
	} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, saved string, kubernetes bool) {
		var script string
		fuzz.AllocatesAtMost(t, 16+uint64(len(saved))/1024, func() { script, _ = chainOwner{kubernetes: kubernetes, network: "lite"}.script(saved) })
		if script == "" {
			return
		}
		has := map[string]bool{} // tables, chains and rules, with their table
		table := ""
		for line := range strings.Lines(saved) {
			line = strings.TrimRight(line, "\n")
			if strings.HasPrefix(line, "*") {
				table = line
			}
			if rest, ok := strings.CutPrefix(line, ":"); ok && strings.TrimSpace(rest) != "" {
				line = ":" + strings.Fields(rest)[0]
			}
			has[table+" "+line] = true
		}
		inTable := ""
		for line := range strings.Lines(script) {
			line = strings.TrimSuffix(line, "\n")
			verb, what, _ := strings.Cut(line, " ")
			switch {
			case strings.HasPrefix(line, "*"):
				if inTable = line; !has[line+" "+line] {
					t.Errorf("%q is no table of\n%s", line, saved)
				}
			case line == "COMMIT":
				inTable = ""
			case verb == "-D":
				if !has[inTable+" -A "+what] || !leadsTo(what, script) {
					t.Errorf("%q is no rule of ours in\n%s", line, saved)
				}
			case verb == "-F" || verb == "-X":
				ours := strings.HasPrefix(what, "LITE-") || kubernetes && strings.HasPrefix(what, "KUBE-") ||
					strings.HasPrefix(what, "CNI-DN-") || strings.HasPrefix(what, "CNI-HOSTPORT-")
				if !has[inTable+" :"+what] || !ours {
					t.Errorf("%q is for no chain of ours in\n%s", line, saved)
				}
			default:
				t.Errorf("the script has the line %q", line)
			}
		}
	})
}

// leadsTo reports whether a rule leads to a chain that a script removes, or is the one of a host port of ours.
func leadsTo(rule, script string) bool {
	chain, text, _ := strings.Cut(rule, " ")
	words := split(text)
	for i, word := range words[:max(0, len(words)-1)] {
		if (word == "-j" || word == "-g") && strings.Contains(script, "\n-X "+words[i+1]+"\n") {
			return true
		}
	}
	return chain == hostPorts && strings.HasPrefix(after(words, "--comment"), `dnat name: "lite" id: "`)
}
