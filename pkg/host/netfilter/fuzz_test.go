package netfilter

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

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
		var objects []Object
		if json.Unmarshal(data, &objects) != nil {
			return
		}
		script := Emptied(objects, []string{before})
		known := madeByIPTables(objects)
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
