package check

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/layout"
)

// packets is packets that are alike in what rules ask of them. A zero field is all
// that there may be.
type packets struct {
	from, to netip.Prefix
	in, out  string // interfaces
	proto    string // tcp or udp
	port     int    // that they go to
	state    string // of their connection: new or established
}

// fit is which of some packets a rule matches. If that is unknown, it is some.
type fit int

const (
	none fit = iota
	some
	every
)

func fitOf(ok bool) fit {
	if ok {
		return every
	}
	return none
}

// unless is the fit of the rest.
func (f fit) unless(negated bool) fit {
	if negated {
		return every - f
	}
	return f
}

// both is the fit of two conditions at once.
func both(a, b fit) fit { return min(a, b) }

// doing is what becomes of a packet that a rule is for.
type doing struct {
	what  outcome
	chain string // of jump and go
}

type outcome int

const (
	on     outcome = iota // to the next rule
	accept                // also what waits for a program, which cannot be asked
	drop
	back // to the chain before
	jump
	goTo // as jump, and back from there to the chain before
)

// rule is for some packets, and does something with them.
type rule struct {
	judge func(packets) (fit, doing)
	text  string
}

// always is a rule whose end is the same for all packets.
func always(matches func(packets) fit, does doing, text string) rule {
	return rule{func(p packets) (fit, doing) { return matches(p), does }, text}
}

// ruleChains are chains of rules by their names.
type ruleChains map[string][]rule

// ending is what becomes of packets at the end of a chain, and why.
type ending struct {
	what outcome
	why  string
}

// run passes packets through a chain and returns what happens to all of them; on if the
// chain leaves that open. A rule that matches a part of them decides nothing: what it
// accepts is not enough, and what it drops, such as strangers on a list, is not in
// question. why is the rule that drops them.
//
// endings are the results of chains that were evaluated, so that a chain to which many
// rules jump is evaluated once. A chain that leads to itself leaves open what happens to
// packets.
func (c ruleChains) run(p packets, chain string, first bool, endings map[string]ending) (end outcome, why string) {
	if e, known := endings[chain]; known {
		return e.what, e.why
	}
	endings[chain] = ending{what: on}
	defer func() { endings[chain] = ending{end, why} }()
	for _, r := range c[chain] {
		f, does := r.judge(p)
		if f != every {
			continue
		}
		switch does.what {
		case accept, drop:
			if !first {
				return does.what, r.text + " in chain " + chain
			}
			return does.what, r.text
		case back:
			return on, ""
		case jump, goTo:
			if end, why := c.run(p, does.chain, false, endings); end != on {
				return end, why
			}
			if does.what == goTo {
				return on, ""
			}
		}
	}
	return on, ""
}

// lets reports whether all kinds of packets are let in. how is what drops one.
func (c ruleChains) lets(all []packets, chain, policy string) (ok bool, how string) {
	for _, p := range all {
		end, why := c.run(p, chain, true, map[string]ending{})
		if end == drop {
			return false, "its rule " + why
		}
		if end == on && policy != "ACCEPT" {
			return false, "policy " + policy
		}
	}
	return true, ""
}

// packetsOf is what an opening has to let in, on each interface: the first packet of a
// connection and those that follow.
func (e *Env) packetsOf(o opening) (all []packets) {
	p := packets{from: o.from, proto: o.proto, port: o.port}
	if !o.from.IsValid() {
		p.from = e.everywhere()
	}
	interfaces := []string{e.nodeInterface()}
	switch {
	case o.port > 0:
	case e.disabled(addon.CNI):
		interfaces = []string{""}
	default:
		interfaces = []string{layout.Bridge}
		switch e.Facts.Backend {
		case "vxlan":
			interfaces = append(interfaces, layout.VXLANDevice)
		case overlay.WireGuard:
			interfaces = append(interfaces, layout.WireGuardDevice)
		case overlay.HostGW:
			interfaces = append(interfaces, e.nodeInterface())
		}
	}
	for _, in := range interfaces {
		for _, state := range []string{"new", "established"} {
			p.in, p.state = in, state
			all = append(all, p)
		}
	}
	return all
}

// everywhere is all addresses of the family of this node's first one.
func (e *Env) everywhere() netip.Prefix {
	if e.Config != nil && len(e.Config.NodeIP) > 0 && e.Config.NodeIP[0].Is6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// forwarded is what an opening has to let through: from there to pods and elsewhere,
// and what comes back.
func (e *Env) forwarded(o opening) (all []packets) {
	there := packets{from: o.from}
	back := packets{to: o.from}
	for _, state := range []string{"new", "established"} {
		there.state, back.state = state, state
		all = append(all, there, back)
	}
	return all
}

// span is a range of addresses, with both ends.
type span struct{ first, last netip.Addr }

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(last)
	return span{p.Addr(), a}
}

// parseSpan reads an address, a network, or a range of two addresses.
func parseSpan(text string) (span, bool) {
	if first, last, ok := strings.Cut(text, "-"); ok {
		a, err1 := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		return span{a, b}, err1 == nil && err2 == nil
	}
	if network, mask, ok := strings.Cut(text, "/"); ok && strings.Contains(mask, ".") {
		m, err := netip.ParseAddr(mask) // 255.255.255.0
		if err != nil || !m.Is4() {
			return span{}, false
		}
		ones := 0
		for _, b := range m.AsSlice() {
			ones += strings.Count(strconv.FormatInt(int64(b), 2), "1")
		}
		text = network + "/" + strconv.Itoa(ones)
	}
	p, err := parseNetwork(text)
	if err != nil {
		return span{}, false
	}
	return spanOf(p), true
}

// within is which of the addresses of p lie in one of several ranges. A prefix that
// is not valid is any address.
func within(p netip.Prefix, spans []span) fit {
	if !p.IsValid() {
		if len(spans) == 1 && spans[0] == spanOf(netip.PrefixFrom(spans[0].first, 0)) {
			return every
		}
		return some
	}
	whole := spanOf(p)
	spans = slices.DeleteFunc(slices.Clone(spans), func(s span) bool {
		return s.first.Is4() != whole.first.Is4() || s.last.Less(whole.first) || whole.last.Less(s.first)
	})
	if len(spans) == 0 {
		return none
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	next := whole.first // the first that is not covered yet
	for _, s := range spans {
		if next.Less(s.first) {
			return some
		}
		if s.last.Less(next) {
			continue
		}
		if next = s.last.Next(); !next.IsValid() || whole.last.Less(next) {
			return every
		}
	}
	return some
}

// onInterface is whether packets of an interface are those of a pattern; "" is any. + at
// the end of a pattern stands for all that begin so (iptables), or * (nftables).
func onInterface(name, pattern string) fit {
	start, wild := strings.CutSuffix(pattern, "+")
	if !wild {
		start, wild = strings.CutSuffix(pattern, "*")
	}
	switch {
	case wild && start == "":
		return every
	case name == "" && pattern == "lo":
		return none // what comes from elsewhere never has it
	case name == "":
		return some
	case wild:
		return fitOf(strings.HasPrefix(name, start))
	}
	return fitOf(name == pattern)
}

// hasProtocol is whether packets are of a protocol.
func (p packets) hasProtocol(proto string) fit {
	switch {
	case proto == "all" || proto == "0":
		return every
	case p.proto == "":
		return some
	}
	names := map[string]string{"6": "tcp", "17": "udp"}
	if name, ok := names[proto]; ok {
		proto = name
	}
	return fitOf(p.proto == proto)
}

// goesTo is whether packets go to one of some ports.
func (p packets) goesTo(ports func(int) bool) fit {
	if p.port == 0 {
		return some
	}
	return fitOf(ports(p.port))
}

// inState is whether the connection of packets is in one of some states.
func (p packets) inState(states []string) fit {
	return fitOf(slices.ContainsFunc(states, func(s string) bool { return strings.EqualFold(s, p.state) }))
}

// flags is the flags of TCP that packets have, one bit each.
func (p packets) flags() int {
	if p.state == "new" {
		return tcpFlags["SYN"]
	}
	return tcpFlags["ACK"]
}

var tcpFlags = map[string]int{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128, "ALL": 63, "NONE": 0}

func parseFlags(list string) (bits int) {
	for name := range strings.SplitSeq(strings.ToUpper(list), ",") {
		bits |= tcpFlags[name]
	}
	return bits
}

// addressTypes is which packets that the machine takes in go to such an address.
var addressTypes = map[string]fit{"LOCAL": every, "UNICAST": none, "BROADCAST": none, "MULTICAST": none, "ANYCAST": none}
