package check

import (
	"context"
	"slices"
	"strings"
)

// chainsOf reads what `iptables -S` prints: the rules of a table's chains and the
// policies of those that have one.
func (e *Env) chainsOf(ctx context.Context, text string) (chains ruleChains, policies map[string]string) {
	chains, policies = ruleChains{}, map[string]string{}
	r := iptablesReader{e: e, sets: map[string]*ipset{}, ctx: ctx, chains: chains}
	var rules [][]string
	for l := range strings.Lines(text) {
		switch f := words(l); {
		case len(f) == 3 && f[0] == "-P":
			policies[f[1]], chains[f[1]] = f[2], nil
		case len(f) == 2 && f[0] == "-N":
			chains[f[1]] = nil
		case len(f) > 2 && f[0] == "-A":
			rules = append(rules, f[1:])
		}
	}
	for _, f := range rules { // once all chains are known that they may name
		chains[f[0]] = append(chains[f[0]], r.read(f[1:]))
	}
	return chains, policies
}

// words takes a line of `iptables -S` apart, where comments are quoted.
func words(line string) (all []string) {
	var word strings.Builder
	inWord, quoted, escaped := false, false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quoted:
			escaped = true
		case c == '"':
			quoted, inWord = !quoted, true
		case !quoted && (c == ' ' || c == '\n' || c == '\t'):
			if inWord {
				all = append(all, word.String())
			}
			inWord = false
			word.Reset()
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		all = append(all, word.String())
	}
	return all
}

// condition is what a rule asks of packets.
type condition func(packets) fit

// iptablesReader makes rules of their text. What it does not know is for some
// packets.
type iptablesReader struct {
	ctx    context.Context
	e      *Env
	chains ruleChains
	sets   map[string]*ipset
}

// plain are matches that ask nothing by themselves.
var plain = []string{"tcp", "udp", "multiport", "conntrack", "state", "set", "comment", "addrtype", "iprange", "pkttype"}

// passing are targets that leave a packet to the next rule.
var passing = []string{"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "SET", "TCPMSS", "TRACE",
	"AUDIT", "CT", "NOTRACK", "CLASSIFY", "TOS", "DSCP", "TTL", "HL", "RATEEST"}

// read makes a rule of its words: "-s 192.0.2.0/24 -p tcp -m tcp ! --dport 22 -j DROP".
func (r iptablesReader) read(f []string) rule {
	var all []condition
	does := doing{}
	for i := 0; i < len(f); {
		negated := f[i] == "!" && i+1 < len(f)
		if negated {
			i++
		}
		name := f[i]
		end := i + 1
		for end < len(f) && f[end] != "!" && !strings.HasPrefix(f[end], "-") {
			end++
		}
		if (name == "-j" || name == "-g") && end > i+1 {
			does = r.target(name, f[i+1])
			break
		}
		if name == "--comment" {
			end = min(i+2, len(f)) // which may begin with a dash
		}
		asks := r.condition(name, f[i+1:end])
		all = append(all, func(p packets) fit { return asks(p).unless(negated) })
		i = end
	}
	return always(func(p packets) fit {
		f := every
		for _, asks := range all {
			f = both(f, asks(p))
		}
		return f
	}, does, strings.Join(f, " "))
}

func (r iptablesReader) target(how, name string) doing {
	switch {
	case name == "DROP" || name == "REJECT" || name == "TARPIT":
		return doing{what: drop}
	case name == "RETURN":
		return doing{what: back}
	case slices.Contains(passing, name):
		return doing{}
	}
	if _, ok := r.chains[name]; !ok {
		return doing{what: accept} // ACCEPT, or a program decides
	}
	if how == "-g" {
		return doing{goTo, name}
	}
	return doing{jump, name}
}

// condition is that of one option.
func (r iptablesReader) condition(name string, args []string) condition {
	arg := strings.Join(args, " ")
	list := strings.Split(arg, ",")
	constant := func(f fit) condition { return func(packets) fit { return f } }
	switch name {
	case "-m":
		if slices.Contains(plain, arg) {
			return constant(every)
		}
	case "--comment":
		return constant(every)
	case "-f":
		return constant(none)
	case "-s", "--src-range":
		if s, ok := parseSpan(arg); ok {
			return func(p packets) fit { return within(p.from, []span{s}) }
		}
	case "-d", "--dst-range":
		if s, ok := parseSpan(arg); ok {
			return func(p packets) fit { return r.e.reaches(p, []span{s}) }
		}
	case "-i":
		return func(p packets) fit { return onInterface(p.in, arg) }
	case "-o":
		return func(p packets) fit { return onInterface(p.out, arg) }
	case "-p":
		return func(p packets) fit { return p.hasProtocol(arg) }
	case "--dport", "--dports":
		return func(p packets) fit { return p.goesTo(func(port int) bool { return inPorts(arg, port) }) }
	case "--sport", "--sports":
		// Clients have one above the well-known ones.
		return constant(map[bool]fit{true: every, false: some}[inPorts(arg, 1024) && inPorts(arg, 65535)])
	case "--ctstate", "--state":
		return func(p packets) fit { return p.inState(list) }
	case "--ctdir":
		return constant(fitOf(arg == "ORIGINAL"))
	case "--tcp-flags":
		if len(args) == 2 {
			return func(p packets) fit { return fitOf(p.flags()&parseFlags(args[0]) == parseFlags(args[1])) }
		}
	case "--dst-type":
		return constant(slices.Max(append(fits(list), none)))
	case "--pkt-type":
		return constant(fitOf(arg == "unicast"))
	case "--match-set":
		if len(args) == 2 {
			set := r.set(args[0])
			return func(p packets) fit { return set.has(p, strings.Split(args[1], ","), r.e) }
		}
	}
	return constant(some)
}

// fits is which packets go to addresses of these types.
func fits(types []string) (all []fit) {
	for _, t := range types {
		f, known := addressTypes[t]
		if !known {
			f = some
		}
		all = append(all, f)
	}
	return all
}

// reaches is which packets go to addresses of some ranges. What the machine takes in
// goes to its own.
func (e *Env) reaches(p packets, spans []span) fit {
	if p.to.IsValid() || p.port == 0 {
		return within(p.to, spans)
	}
	result := every
	found := false
	for _, a := range e.Config.NodeIP {
		if p.from.IsValid() && a.Is4() != p.from.Addr().Is4() {
			continue
		}
		found = true
		own, _ := a.Prefix(a.BitLen())
		result = min(result, within(own, spans))
	}
	if !found {
		return some
	}
	return result
}
