package check

import (
	"slices"
	"strings"
)

// ipset is a set of addresses, ports and interfaces that rules of iptables name.
type ipset struct {
	kinds   []string   // of the parts of its elements: ip, net, port, iface …; nil = it cannot be seen
	members [][]string // parts, as ipset writes them
	sets    []*ipset   // of a list of sets
	except  bool       // it has elements that are not in it (nomatch)
}

// set asks ipset for a set. Without the program, it is unknown.
func (r iptablesReader) set(name string) *ipset {
	if s, ok := r.sets[name]; ok {
		return s
	}
	s := &ipset{}
	r.sets[name] = s
	text, err := r.e.Run(r.ctx, "", "ipset", "save", name)
	if err != nil {
		return s
	}
	for l := range strings.Lines(text) {
		f := strings.Fields(l)
		switch {
		case len(f) > 2 && f[0] == "create" && f[1] == name:
			_, kinds, _ := strings.Cut(f[2], ":")
			s.kinds = strings.Split(kinds, ",")
		case len(f) > 2 && f[0] == "add" && f[1] == name && slices.Contains(f, "nomatch"):
			s.except = true
		case len(f) > 2 && f[0] == "add" && f[1] == name && slices.Equal(s.kinds, []string{"set"}):
			s.sets = append(s.sets, r.set(f[2]))
		case len(f) > 2 && f[0] == "add" && f[1] == name:
			s.members = append(s.members, strings.Split(f[2], ","))
		}
	}
	return s
}

// has is which packets are in the set. directions has src or dst for each part of its
// elements.
func (s *ipset) has(p packets, directions []string, e *Env) fit {
	if s.sets != nil {
		result := none
		for _, other := range s.sets {
			result = max(result, other.has(p, directions, e))
		}
		return result
	}
	if len(s.kinds) == 0 || len(directions) < len(s.kinds) {
		return some
	}
	// Elements that differ only in their addresses are combined.
	var spans []span
	address := slices.IndexFunc(s.kinds, func(k string) bool { return k == "ip" || k == "net" })
	result := none
	for _, member := range s.members {
		if len(member) != len(s.kinds) {
			return some
		}
		rest := every
		for i, kind := range s.kinds {
			if i != address {
				rest = both(rest, memberFit(p, kind, member[i], directions[i] == "src"))
			}
		}
		switch {
		case address < 0:
			result = max(result, rest)
		case rest == some:
			result = some
		case rest == every:
			one, ok := parseSpan(member[address])
			if !ok {
				return some
			}
			spans = append(spans, one)
		}
	}
	if len(spans) > 0 && directions[address] == "src" {
		result = max(result, within(p.from, spans))
	} else if len(spans) > 0 {
		result = max(result, e.reaches(p, spans))
	}
	if s.except {
		result = both(result, some)
	}
	return result
}

// memberFit is that of one part of an element.
func memberFit(p packets, kind, text string, source bool) fit {
	switch {
	case kind == "port" && !source:
		proto, ports, ok := strings.Cut(text, ":")
		if !ok {
			proto, ports = p.proto, text
		}
		ports = strings.ReplaceAll(ports, "-", ":")
		return both(p.hasProtocol(proto), p.goesTo(func(port int) bool { return inPorts(ports, port) }))
	case kind == "iface" && source:
		return onInterface(p.in, text)
	}
	return some
}
