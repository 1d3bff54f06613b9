package check

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

var (
	api       = opening{proto: "tcp", port: 6443}
	toKubelet = opening{from: netip.MustParsePrefix("192.0.2.0/24"), proto: "tcp", port: 10250}
	vxlan     = opening{from: netip.MustParsePrefix("192.0.2.0/24"), proto: "udp", port: 8472}
	pods      = opening{from: netip.MustParsePrefix("10.42.0.0/16")}
)

// usual is what nearly every firewall of iptables begins with.
const usual = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -m conntrack --ctstate INVALID -j DROP\n"

func TestRulesOfIptables(t *testing.T) {
	for name, c := range map[string]struct {
		rules string
		for_  opening
		want  bool
	}{
		"nothing":                    {usual, api, false},
		"a port":                     {usual + "-A INPUT -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"another port":               {usual + "-A INPUT -p tcp -m tcp --dport 6444 -j ACCEPT", api, false},
		"another protocol":           {usual + "-A INPUT -p udp -m udp --dport 6443 -j ACCEPT", api, false},
		"its number":                 {usual + "-A INPUT -p 6 -m tcp --dport 6443 -j ACCEPT", api, true},
		"multiport":                  {usual + "-A INPUT -p tcp -m multiport --dports 22,80,6443,10250 -j ACCEPT", api, true},
		"multiport, a range":         {usual + "-A INPUT -p tcp -m multiport --dports 22,6000:7000 -j ACCEPT", api, true},
		"multiport, others":          {usual + "-A INPUT -p tcp -m multiport --dports 22,80,443 -j ACCEPT", api, false},
		"multiport, negated":         {usual + "-A INPUT -p tcp -m multiport ! --dports 22,80 -j ACCEPT", api, true},
		"multiport, state":           {usual + "-A INPUT -p udp -m multiport --dports 8472,51820 -m conntrack --ctstate NEW -j ACCEPT", vxlan, true},
		"multiport, a network":       {usual + "-A INPUT -s 192.0.2.0/24 -p tcp -m multiport --dports 10250,10256 -m comment --comment \"nodes -j DROP\" -j ACCEPT", toKubelet, true},
		"a range":                    {usual + "-A INPUT -p tcp -m tcp --dport 6000:7000 -j ACCEPT", api, true},
		"a range, negated":           {usual + "-A INPUT -p tcp -m tcp ! --dport 6000:7000 -j ACCEPT", api, false},
		"all but one port":           {usual + "-A INPUT -p tcp -m tcp ! --dport 22 -j ACCEPT", api, true},
		"all but this":               {"-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp ! --dport 22 -j DROP", api, false},
		"a larger network":           {usual + "-A INPUT -s 192.0.0.0/16 -p tcp -m tcp --dport 10250 -j ACCEPT", toKubelet, true},
		"a smaller one":              {usual + "-A INPUT -s 192.0.2.0/25 -p tcp -m tcp --dport 10250 -j ACCEPT", toKubelet, false},
		"a mask":                     {usual + "-A INPUT -s 192.0.2.0/255.255.255.0 -j ACCEPT", toKubelet, true},
		"all but a network":          {usual + "-A INPUT ! -s 198.51.100.0/24 -j ACCEPT", toKubelet, true},
		"a network, for all":         {usual + "-A INPUT -s 192.0.2.0/24 -p tcp -m tcp --dport 6443 -j ACCEPT", api, false},
		"a range of addresses":       {usual + "-A INPUT -m iprange --src-range 192.0.1.0-192.0.3.255 -j ACCEPT", toKubelet, true},
		"loopback only":              {usual + "-A INPUT -i lo -p tcp -m tcp --dport 6443 -j ACCEPT", api, false},
		"all but loopback":           {usual + "-A INPUT ! -i lo -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"its interface":              {usual + "-A INPUT -i eth0 -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"interfaces like it":         {usual + "-A INPUT -i eth+ -j ACCEPT", api, true},
		"another interface":          {usual + "-A INPUT -i eth1 -j ACCEPT", api, false},
		"its address":                {usual + "-A INPUT -d 192.0.2.10/32 -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"another address":            {usual + "-A INPUT -d 192.0.2.11/32 -p tcp -m tcp --dport 6443 -j ACCEPT", api, false},
		"local addresses":            {usual + "-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT", api, true},
		"the first packets":          {usual + "-A INPUT -p tcp -m state --state NEW -m tcp --dport 6443 -j ACCEPT", api, true},
		"no packets that follow":     {"-P INPUT DROP\n-A INPUT -p tcp -m state --state NEW -m tcp --dport 6443 -j ACCEPT", api, false},
		"SYN":                        {usual + "-A INPUT -p tcp -m tcp --dport 6443 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT", api, true},
		"no SYN is dropped":          {usual + "-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP\n-A INPUT -p tcp -j ACCEPT", api, true},
		"odd flags are dropped":      {usual + "-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP\n-A INPUT -p tcp -j ACCEPT", api, true},
		"an uncertain match":         {usual + "-A INPUT -p tcp -m tcp --dport 6443 -m limit --limit 3/min -j ACCEPT", api, false},
		"strangers are dropped":      {usual + "-A INPUT -m set --match-set banned src -j DROP\n-A INPUT -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"one address is dropped":     {usual + "-A INPUT -s 192.0.2.66/32 -j DROP\n-A INPUT -p tcp -m tcp --dport 10250 -j ACCEPT", toKubelet, true},
		"dropped before":             {usual + "-A INPUT -p tcp -m tcp --dport 6443 -j REJECT --reject-with tcp-reset\n-A INPUT -p tcp -j ACCEPT", api, false},
		"dropped after":              {usual + "-A INPUT -p tcp -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 6443 -j DROP", api, true},
		"logged":                     {usual + "-A INPUT -j LOG --log-prefix \"in -j DROP \"\n-A INPUT -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"a chain":                    {"-N mine\n" + usual + "-A INPUT -p tcp -j mine\n-A mine -p tcp -m tcp --dport 6443 -j ACCEPT", api, true},
		"a chain, not for it":        {"-N mine\n" + usual + "-A INPUT -p udp -j mine\n-A mine -j ACCEPT", api, false},
		"a chain, defined later":     {usual + "-A INPUT -j mine\n-A mine -j ACCEPT\n-N mine", api, true},
		"a chain that returns":       {"-N mine\n" + usual + "-A INPUT -j mine\n-A INPUT -p tcp -j ACCEPT\n-A mine -p tcp -m tcp --dport 6443 -j RETURN\n-A mine -j DROP", api, true},
		"a chain that drops":         {"-N mine\n-P INPUT ACCEPT\n-A INPUT -j mine\n-A mine -p tcp -m tcp --dport 22 -j RETURN\n-A mine -j REJECT", api, false},
		"chains below":               {"-N a\n-N b\n" + usual + "-A INPUT -j a\n-A a -j b\n-A b -p tcp -m multiport --dports 6443 -j ACCEPT", api, true},
		"goto, and no return":        {"-N a\n" + usual + "-A INPUT -g a\n-A INPUT -j ACCEPT\n-A a -p tcp -m tcp --dport 22 -j ACCEPT", api, false},
		"RHEL's":                     {"-P INPUT ACCEPT\n-N RH-Firewall-1-INPUT\n-A INPUT -j RH-Firewall-1-INPUT\n-A RH-Firewall-1-INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A RH-Firewall-1-INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT\n-A RH-Firewall-1-INPUT -j REJECT --reject-with icmp-host-prohibited", api, false},
		"a set of networks":          {usual + "-A INPUT -p tcp -m set --match-set nodes src -m tcp --dport 10250 -j ACCEPT", toKubelet, true},
		"a set of addresses":         {usual + "-A INPUT -p tcp -m set --match-set few src -m tcp --dport 10250 -j ACCEPT", toKubelet, false},
		"not in a set":               {usual + "-A INPUT -m set ! --match-set other src -j ACCEPT", toKubelet, true},
		"a set of ports":             {usual + "-A INPUT -p tcp -m set --match-set ports dst -j ACCEPT", api, true},
		"a set of networks, ports":   {usual + "-A INPUT -m set --match-set both src,dst -j ACCEPT", toKubelet, true},
		"the same, of another":       {usual + "-A INPUT -m set --match-set both src,dst -j ACCEPT", vxlan, false},
		"a set of sets":              {usual + "-A INPUT -m set --match-set lists src -j ACCEPT", toKubelet, true},
		"a set with an exception":    {usual + "-A INPUT -m set --match-set holes src -j ACCEPT", toKubelet, false},
		"a set that cannot be seen":  {usual + "-A INPUT -m set --match-set unknown src -j ACCEPT", toKubelet, false},
		"pods":                       {usual + "-A INPUT -s 10.42.0.0/16 -j ACCEPT", pods, true},
		"pods of this node only":     {usual + "-A INPUT -i cni0 -j ACCEPT", pods, false},
		"pods by their interfaces":   {usual + "-A INPUT -i cni0 -j ACCEPT\n-A INPUT -i lite-vxlan -j ACCEPT", pods, true},
		"pods, TCP only":             {usual + "-A INPUT -s 10.42.0.0/16 -p tcp -j ACCEPT", pods, false},
		"the port that clients have": {usual + "-A INPUT -p tcp -m tcp --sport 1024:65535 --dport 6443 -j ACCEPT", api, true},
		"an unknown target":          {usual + "-A INPUT -p tcp -j NFQUEUE --queue-num 1", api, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := healthy(t)
			for set, content := range map[string]string{
				"nodes": "create nodes hash:net family inet\nadd nodes 192.0.2.0/25\nadd nodes 192.0.2.128/25\nadd nodes 198.51.100.0/24\n",
				"few":   "create few hash:ip family inet\nadd few 192.0.2.11\nadd few 192.0.2.12\n",
				"other": "create other hash:net family inet\nadd other 203.0.113.0/24\n",
				"ports": "create ports bitmap:port range 0-65535\nadd ports 22\nadd ports 6443\n",
				"both":  "create both hash:net,port family inet\nadd both 192.0.0.0/16,tcp:10250\nadd both 192.0.2.0/24,udp:53\n",
				"lists": "create lists list:set size 8\nadd lists other\nadd lists nodes\n",
				"holes": "create holes hash:net family inet\nadd holes 192.0.0.0/16\nadd holes 192.0.2.66 nomatch\n",
			} {
				b.answers["ipset save "+set] = content
			}
			b.answers["iptables -w 5 -S"] = c.rules + "\n"
			b.run(t)
			e := newEnv(t.Context(), b.Machine, b.Subject)
			chains, policies := e.chainsOf(t.Context(), c.rules)
			if got, how := chains.lets(e.packetsOf(c.for_), "INPUT", policies["INPUT"]); got != c.want {
				t.Errorf("%s: let in: %v (%s)", c.for_, got, how)
			}
		})
	}
}

// The machine's words for it, from what keeps it out to what is done about it.
func TestARuleThatDropsIsNamed(t *testing.T) {
	b := healthy(t)
	b.answers["iptables -w 5 -S"] = "-P INPUT ACCEPT\n-N mine\n-A INPUT -j mine\n-A mine -p tcp -m multiport --dports 6443,10250 -j DROP\n"
	r := b.run(t)
	expect(t, r, "firewall", Fail, "iptables (its rule -p tcp -m multiport --dports 6443,10250 -j DROP in chain mine of INPUT)", "blocks 6443/tcp (API server), 10250/tcp (kubelet) from 192.0.2.0/24")
	complete(t, r)
}

func TestRulesOfNftables(t *testing.T) {
	const (
		established = `{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}`
		dport       = `{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": `
		saddr       = `{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": `
		iifname     = `{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": `
		acc         = `, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}`
		concat      = `{"match": {"op": "==", "left": {"concat": [{"payload": {"protocol": "ip", "field": "saddr"}}, {"payload": {"protocol": "tcp", "field": "dport"}}]}, "right": `
		vmapPorts   = `{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": `
	)
	for name, c := range map[string]struct {
		rules []string // of chain in; "other: …" of chain other
		for_  opening
		want  bool
	}{
		"nothing":               {nil, api, false},
		"a port":                {[]string{dport + `6443}}` + acc}, api, true},
		"another":               {[]string{dport + `22}}` + acc}, api, false},
		"ports":                 {[]string{dport + `{"set": [22, 6443]}}}` + acc}, api, true},
		"a range":               {[]string{dport + `{"range": [6000, 7000]}}}` + acc}, api, true},
		"ranges":                {[]string{dport + `{"set": [22, {"range": [6000, 7000]}]}}}` + acc}, api, true},
		"a named set of ports":  {[]string{dport + `"@ports"}}` + acc}, api, true},
		"not these":             {[]string{`{"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [22, 80]}}}` + acc}, api, true},
		"from a port on":        {[]string{`{"match": {"op": ">=", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 1024}}` + acc}, api, true},
		"th":                    {[]string{`{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": {"set": ["tcp", "udp"]}}}, {"match": {"op": "==", "left": {"payload": {"protocol": "th", "field": "dport"}}, "right": 8472}}` + acc}, vxlan, true},
		"a network":             {[]string{saddr + `{"prefix": {"addr": "192.0.2.0", "len": 24}}}}, ` + dport + `10250}}` + acc}, toKubelet, true},
		"two halves":            {[]string{saddr + `{"set": [{"prefix": {"addr": "192.0.2.0", "len": 25}}, {"range": ["192.0.2.128", "192.0.2.255"]}]}}}` + acc}, toKubelet, true},
		"with a hole":           {[]string{saddr + `{"set": [{"prefix": {"addr": "192.0.2.0", "len": 25}}, {"range": ["192.0.2.129", "192.0.2.255"]}]}}}` + acc}, toKubelet, false},
		"a named set":           {[]string{saddr + `"@nodes"}}` + acc}, toKubelet, true},
		"another family":        {[]string{`{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "saddr"}}, "right": {"prefix": {"addr": "2001:db8::", "len": 32}}}}` + acc}, toKubelet, false},
		"networks and ports":    {[]string{concat + `{"set": [{"concat": [{"prefix": {"addr": "192.0.0.0", "len": 16}}, 10250]}]}}}` + acc}, toKubelet, true},
		"named ones":            {[]string{concat + `"@pairs"}}` + acc}, toKubelet, true},
		"its interface":         {[]string{iifname + `"eth0"}}` + acc}, api, true},
		"interfaces like it":    {[]string{iifname + `"et*"}}` + acc}, api, true},
		"loopback":              {[]string{iifname + `"lo"}}` + acc}, api, false},
		"jump":                  {[]string{`{"jump": {"target": "other"}}`, `other: ` + dport + `6443}}` + acc}, api, true},
		"jump and return":       {[]string{`{"jump": {"target": "other"}}`, dport + `6443}}` + acc, `other: ` + dport + `6443}}, {"return": null}`, `other: {"drop": null}`}, api, true},
		"goto":                  {[]string{`{"goto": {"target": "other"}}`, dport + `6443}}` + acc, `other: ` + dport + `22}}` + acc}, api, false},
		"a map of verdicts":     {[]string{vmapPorts + `{"set": [[22, {"accept": null}], [{"range": [6000, 7000]}, {"jump": {"target": "other"}}]]}}}`, `other: {"accept": null}`}, api, true},
		"a map that drops":      {[]string{vmapPorts + `{"set": [[6443, {"drop": null}]]}}}`, `{"accept": null}`}, api, false},
		"a named map":           {[]string{vmapPorts + `"@verdicts"}}`}, api, true},
		"a map, not for it":     {[]string{vmapPorts + `{"set": [[22, {"accept": null}]]}}}`}, api, false},
		"states, by a map":      {[]string{`{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["new", {"continue": null}]]}}}`, dport + `6443}}` + acc}, api, true},
		"a limit":               {[]string{dport + `6443}}, {"limit": {"rate": 5, "per": "minute"}}` + acc}, api, false},
		"logged":                {[]string{`{"log": {"prefix": "in"}}`, dport + `6443}}` + acc}, api, true},
		"strangers are dropped": {[]string{saddr + `"@banned"}}, {"drop": null}`, dport + `6443}}` + acc}, api, true},
		"dropped before":        {[]string{dport + `6443}}, {"reject": null}`, `{"accept": null}`}, api, false},
		"no route back":         {[]string{`{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, "right": false}}, {"drop": null}`, dport + `6443}}` + acc}, api, true},
		"local addresses":       {[]string{`{"match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}, {"drop": null}`, dport + `6443}}` + acc}, api, true},
		"pods":                  {[]string{saddr + `{"prefix": {"addr": "10.42.0.0", "len": 16}}}}` + acc}, pods, true},
		"pods by interface":     {[]string{iifname + `{"set": ["cni0", "lite-vxlan"]}}}` + acc}, pods, true},
	} {
		t.Run(name, func(t *testing.T) {
			const head = `{"chain": {"family": "inet", "table": "user", "name": "in", "hook": "input", "policy": "drop"}}, {"chain": {"family": "inet", "table": "user", "name": "other"}},
				{"set": {"family": "inet", "table": "user", "name": "ports", "elem": [{"elem": {"val": 6443, "comment": "API"}}]}},
				{"set": {"family": "inet", "table": "user", "name": "nodes", "elem": [{"prefix": {"addr": "192.0.2.0", "len": 24}}, "198.51.100.7"]}},
				{"set": {"family": "inet", "table": "user", "name": "pairs", "elem": [{"concat": [{"prefix": {"addr": "192.0.2.0", "len": 24}}, {"range": [10250, 10256]}]}]}},
				{"set": {"family": "inet", "table": "user", "name": "banned", "elem": [{"elem": {"val": "203.0.113.9", "timeout": 60}}]}},
				{"map": {"family": "inet", "table": "user", "name": "verdicts", "map": "verdict", "elem": [[6443, {"accept": null}]]}}`
			text := head
			for _, r := range append([]string{established}, c.rules...) {
				chain, rest, ok := strings.Cut(r, ": ")
				if !ok || chain != "other" {
					chain, rest = "in", r
				}
				text += `, {"rule": {"family": "inet", "table": "user", "chain": "` + chain + `", "expr": [` + rest + `]}}`
			}
			var rules ruleset
			if err := json.Unmarshal([]byte(`{"nftables": [`+text+`]}`), &rules); err != nil {
				t.Fatal(err)
			}
			b := healthy(t)
			b.run(t)
			e := newEnv(t.Context(), b.Machine, b.Subject)
			got, how := e.nftChains(rules, "inet", "user").lets(e.packetsOf(c.for_), "in", "DROP")
			if got != c.want {
				t.Errorf("%s: let in: %v (%s)", c.for_, got, how)
			}
		})
	}
}

// What is forwarded has to get there and back.
func TestForwardedByNftables(t *testing.T) {
	const rule = `{"rule": {"family": "ip", "table": "user", "chain": "through", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "%"}}, "right": {"prefix": {"addr": "10.40.0.0", "len": 14}}}}, {"accept": null}]}}`
	there, back := strings.ReplaceAll(rule, "%", "saddr"), strings.ReplaceAll(rule, "%", "daddr")
	for text, want := range map[string]Status{"": Fail, ", " + there: Fail, ", " + back: Fail, ", " + there + ", " + back: Pass} {
		b := healthy(t)
		b.answers["nft -j list ruleset"] = `{"nftables": [{"chain": {"family": "ip", "table": "user", "name": "through", "hook": "forward", "policy": "drop"}}` + text + `]}`
		expect(t, b.run(t), "firewall", want, "chain through of table ip user")
	}
}
