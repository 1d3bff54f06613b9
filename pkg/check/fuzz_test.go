package check

import (
	"encoding/json"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/fuzz"
)

// ruled is the environment of a healthy machine, for checks of rules.
func ruled(f *testing.F) *Env {
	f.Helper()
	b := healthy(f)
	b.write(f)
	return newEnv(f.Context(), b.Machine, b.Subject)
}

// Whatever nft lists: it is soon looked through; where nothing lets packets in, they are not let in; and a first rule
// that is for all of them decides.
func FuzzNftables(f *testing.F) {
	for _, rules := range []string{
		``, `{"accept": null}`, `{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [6443, {"range": [10250, 10256]}]}}}, {"accept": null}`, `{"jump": {"target": "in"}}, {"goto": {"target": "in"}}`,
		`{"match": {"op": "!=", "left": {"ct": {"key": "state"}}, "right": ["new", "invalid"]}}, {"accept": null}`, `{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": "@m"}}`, `{"match": {"op": "in", "left": {"concat": [{"meta": {"key": "iifname"}}]}, "right": "@m"}}, {"drop": null}`,
		`{"match": {"op": ">=", "left": {"payload": {"protocol": "th", "field": "dport"}}, "right": 1e300}}, {"accept": null}`, `{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"range": ["192.0.2.9", "::1"]}}}, {"accept": null}`,
		`{"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}, {"accept": null}`, `{"queue": null}`, `{"x": []}, {"counter": {}}`,
	} {
		f.Add([]byte(`{"nftables": [{"map": {"family": "inet", "table": "user", "name": "m", "elem": [[6443, {"accept": null}], {"elem": {"val": "eth0"}}]}}, ` +
			`{"rule": {"family": "inet", "table": "user", "chain": "in", "expr": [` + rules + `]}}]}`))
	}
	doubling := `{"nftables": [`
	for _, chain := range "abcdefghijklmnopqrstuvwxyz" {
		for range 2 {
			doubling += `{"rule": {"family": "inet", "table": "user", "chain": "` + string(chain) + `", "expr": [{"jump": {"target": "` + string(chain+1) + `"}}]}},`
		}
	}
	f.Add([]byte(doubling + `{"rule": {"family": "inet", "table": "user", "chain": "in", "expr": [{"jump": {"target": "a"}}]}}]}`))
	e := ruled(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var rules ruleset
		if json.Unmarshal(data, &rules) != nil {
			return
		}
		fuzz.AllocatesAtMost(t, 64+uint64(len(data))/16, func() {
			decided(t, e, e.nftChains(rules, "inet", "user"), "in", strings.Contains(string(data), "accept") || strings.Contains(string(data), "queue") || strings.Contains(string(data), `\u`))
		})
	})
}

// As FuzzNftables, for what `iptables -S` prints.
func FuzzIptables(f *testing.F) {
	for _, seed := range []string{
		"", "-P INPUT ACCEPT\n-N X\n-A INPUT -j X\n-A X -p tcp -m tcp --dport 6443 -j ACCEPT\n", "-A INPUT -j INPUT\n-A INPUT -g INPUT\n", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-port-unreachable\n",
		"-A INPUT -m comment --comment \"a \\\"b\" -j ACCEPT\n", "-A INPUT ! -s 192.0.2.0/24 -m multiport --dports 1:65535,80 -j RETURN\n-A INPUT -p tcp --tcp-flags FIN,SYN SYN -j DROP\n", "-A INPUT -m set --match-set x src -j ACCEPT\n", "-A INPUT -m iprange --src-range 192.0.2.1-192.0.2.9 -j ACCEPT\n",
		"-A INPUT -s 10.0.0.0/255.0.255.0 -j ACCEPT\n", "-A INPUT -j\n-A INPUT !\n-A INPUT -p\n-N\n-P INPUT\n", "-A INPUT -p icmp -m limit --limit 1/sec -j NFQUEUE --queue-num 0\n",
	} {
		f.Add(seed)
	}
	doubling := "-A INPUT -j a\n"
	for _, chain := range "abcdefghijklmnopqrstuvwxyz" {
		doubling += strings.Repeat("-A "+string(chain)+" -j "+string(chain+1)+"\n", 2)
	}
	f.Add(doubling)
	e := ruled(f)
	f.Fuzz(func(t *testing.T, text string) {
		fuzz.AllocatesAtMost(t, 64+uint64(len(text))/16, func() {
			chains, _ := e.chainsOf(t.Context(), text)
			// To a target that is no chain and not known, a program decides.
			decided(t, e, chains, "INPUT", strings.Contains(text, "j") || strings.Contains(text, "g"))
		})
	})
}

// decided checks whether chains let in what a server needs.
func decided(t *testing.T, e *Env, chains ruleChains, first string, lets bool) {
	for _, o := range e.openings() {
		all := e.packetsOf(o)
		if ok, _ := chains.lets(all, first, "DROP"); ok && !lets {
			t.Errorf("no rule lets %v in, and it is let in", o)
		}
		if ok, how := chains.lets(all, first, "ACCEPT"); ok != (how == "") {
			t.Errorf("%v is let in: %t, and kept out by %q", o, ok, how)
		}
		for _, end := range []outcome{accept, drop} {
			with := ruleChains{}
			for name, rules := range chains {
				with[name] = rules
			}
			everything := rule{func(packets) (fit, doing) { return every, doing{what: end} }, "everything"}
			with[first] = append([]rule{everything}, chains[first]...)
			if ok, _ := with.lets(all, first, "DROP"); ok != (end == accept) {
				t.Errorf("a first rule decides of all packets, and %v is let in: %t", o, ok)
			}
		}
	}
}
