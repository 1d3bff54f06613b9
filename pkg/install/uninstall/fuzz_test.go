package uninstall

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/fuzz"
)

// Whatever iptables-save prints, rules of others stay: what is removed are chains of ours that are there, and rules that
// are there and lead to one of these.
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

// Whatever `nft -j list ruleset` prints, what lite's use of iptables has emptied is removed, and nothing that holds
// something, drops something, or was there before.
func FuzzEmptied(f *testing.F) {
	const table = `{"table":{"family":"ip","name":"filter"}},`
	const chain = `{"chain":{"family":"ip","table":"filter","name":"FORWARD","policy":"accept"}}`
	for _, objects := range []string{
		table + chain, table + strings.Replace(chain, "accept", "drop", 1), table + chain + `,{"rule":{"family":"ip","table":"filter","chain":"FORWARD"}}`, table + `{"set":{"family":"ip","table":"filter","name":"s"}}`,
		table + strings.Replace(chain, "FORWARD", "USER", 1), `{"metainfo":{"version":"1.0.6"}},{"table":{"family":"inet","name":"filter"}}`, table + `{"chain":null,"table":{}}`, `{"table":{"family":"ip","name":"filter; delete table ip nat"}}`,
	} {
		f.Add([]byte("["+objects+"]"), "ip filter INPUT")
		f.Add([]byte("["+objects+"]"), "ip filter FORWARD")
	}
	f.Fuzz(func(t *testing.T, data []byte, before string) {
		var objects []nftObject
		if json.Unmarshal(data, &objects) != nil {
			return
		}
		script := emptied(objects, []string{before})
		known := listTables(objects)
		for _, line := range script {
			words := strings.Fields(line)
			name := strings.Join(words[min(2, len(words)):], " ")
			if len(words) < 4 || words[0] != "delete" || !slices.Contains(known, name) || name == before || strings.ContainsAny(line, ";{}\n") {
				t.Errorf("%q, of %q", line, known)
			}
			for _, o := range objects {
				for kind, thing := range o {
					holder := thing.Family + " " + thing.Table
					inTable, inChain := words[1] == "table" && holder == name, words[1] == "chain" && holder+" "+thing.Chain == name
					switch {
					case kind == "rule" && (inTable || inChain), kind != "rule" && kind != "table" && kind != "chain" && inTable:
						t.Errorf("%q, which holds a %s", line, kind)
					case kind == "chain" && inTable && !slices.Contains(script, "delete chain "+holder+" "+thing.Name):
						t.Errorf("%q, which holds the chain %s", line, thing.Name)
					}
				}
			}
		}
	})
}

// Whatever is in the place of what a machine was like before lite: it is read as it is written, or not at all.
func FuzzMachineRecord(f *testing.F) {
	boot := readText(bootFile)
	for _, seed := range []string{
		"", "null", "{}", "[]", `{"boot":"BOOT"}`, `{"boot":"BOOT","dataDirs":["/var/lib/lite"],"settings":{"net/ipv4/ip_forward":"0"},"set":{},"modules":["br_netfilter"],"tables":[]}`, `{"boot":"other","settings":{"a":"b"}}`, `{"boot":"BOOT","settings":{"../../x":"y"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := layout.Run(t.TempDir())
		data = []byte(strings.ReplaceAll(string(data), "BOOT", boot))
		if err := os.WriteFile(dir.Before(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readRecord(dir)
		if err != nil || r.Boot == "" {
			if !reflect.DeepEqual(r, record{}) {
				t.Errorf("%v, and %+v is left", err, r)
			}
			return
		}
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
		if again, err := readRecord(dir); err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%+v is written, and read as %+v, %v", r, again, err)
		}
	})
}
