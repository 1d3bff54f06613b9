package check

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ruleset is what nft lists, as JSON (libnftables-json(5)).
type ruleset struct {
	Nftables []struct {
		Chain *struct {
			Family, Table, Name, Hook, Policy string
		}
		Rule *struct {
			Family, Table, Chain, Comment string
			Expr                          []map[string]json.RawMessage
		}
		Set *nftSet
		Map *nftSet
	}
}

// nftSet is a named set, or a named map: elements are keys with what they lead to.
type nftSet struct {
	Family, Table, Name string
	Elem                []any
}

// nftReader makes rules of what nft lists of one table. What it does not know is for
// some packets.
type nftReader struct {
	e    *Env
	sets map[string][]any
}

// nftChains reads the chains of one table.
func (e *Env) nftChains(rules ruleset, family, table string) ruleChains {
	r := nftReader{e, map[string][]any{}}
	chains := ruleChains{}
	for _, entry := range rules.Nftables {
		for _, s := range []*nftSet{entry.Set, entry.Map} {
			if s != nil && s.Family == family && s.Table == table {
				r.sets["@"+s.Name] = s.Elem
			}
		}
	}
	for _, entry := range rules.Nftables {
		if o := entry.Rule; o != nil && o.Family == family && o.Table == table {
			chains[o.Chain] = append(chains[o.Chain], r.rule(o.Expr))
		}
	}
	return chains
}

// rule makes one of its statements: some ask, the last decides.
func (r nftReader) rule(statements []map[string]json.RawMessage) rule {
	var all []func(packets) (fit, doing)
	var text []string
	for _, statement := range statements {
		for kind, raw := range statement {
			var value any
			if err := json.Unmarshal(raw, &value); err != nil {
				value = nil
			}
			all = append(all, r.statement(kind, value))
			text = append(text, kind)
		}
	}
	return rule{func(p packets) (fit, doing) {
		f, does := every, doing{}
		for _, s := range all {
			one, what := s(p)
			f = both(f, one)
			if what.what != on {
				does = what
			}
		}
		return f, does
	}, strings.Join(text, " ")}
}

// silent are statements that neither ask nor decide.
var silent = []string{"counter", "log", "comment", "mangle", "set", "map", "notrack", "ct helper", "ct timeout", "flow"}

func (r nftReader) statement(kind string, value any) func(packets) (fit, doing) {
	if what, ok := verdict(map[string]any{kind: value}); ok {
		return func(packets) (fit, doing) { return every, what }
	}
	switch fields, _ := value.(map[string]any); {
	case kind == "match":
		return func(p packets) (fit, doing) { return r.match(p, fields), doing{} }
	case kind == "vmap":
		return func(p packets) (fit, doing) { return r.lookUp(p, fields["key"], fields["data"]) }
	case slices.Contains(silent, kind):
		return func(packets) (fit, doing) { return every, doing{} }
	}
	return func(packets) (fit, doing) { return some, doing{} }
}

// verdict reads {"accept": null}, {"jump": {"target": "chain"}} and so on.
func verdict(value any) (doing, bool) {
	fields, ok := value.(map[string]any)
	if !ok {
		return doing{}, false
	}
	for kind, what := range map[string]outcome{"accept": accept, "queue": accept, "drop": drop, "reject": drop, "return": back,
		"continue": on} {
		if _, ok := fields[kind]; ok {
			return doing{what: what}, true
		}
	}
	for kind, what := range map[string]outcome{"jump": jump, "goto": goTo} {
		if to, ok := fields[kind].(map[string]any); ok {
			name, _ := to["target"].(string)
			return doing{what, name}, true
		}
	}
	return doing{}, false
}

// match is which packets a comparison is true of.
func (r nftReader) match(p packets, fields map[string]any) fit {
	f := r.equal(p, fields["left"], fields["right"])
	switch op, _ := fields["op"].(string); op {
	case "==", "in", "":
		return f
	case "!=":
		return f.unless(true)
	case "<", "<=", ">", ">=":
		limit, ok := number(fields["right"])
		if left := fieldOf(fields["left"]); !ok || left != "tcp dport" && left != "udp dport" && left != "th dport" {
			return some
		}
		proto, _, _ := strings.Cut(fieldOf(fields["left"]), " ")
		return both(p.hasTransport(proto), p.goesTo(func(port int) bool {
			return map[string]bool{"<": port < limit, "<=": port <= limit, ">": port > limit, ">=": port >= limit}[op]
		}))
	}
	return some
}

// fieldOf names what is asked of a packet: "tcp dport", "meta iifname", "ct state".
func fieldOf(left any) string {
	fields, _ := left.(map[string]any)
	for kind, value := range fields {
		v, _ := value.(map[string]any)
		switch kind {
		case "payload":
			return text(v["protocol"]) + " " + text(v["field"])
		case "meta", "ct":
			return kind + " " + text(v["key"])
		case "fib":
			flags, _ := v["flags"].([]any)
			return "fib " + strings.Join(append([]string{text(v["result"])}, texts(flags)...), " ")
		}
	}
	return ""
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatInt(int64(v), 10)
	}
	return ""
}

func number(v any) (int, bool) {
	f, ok := v.(float64)
	return int(f), ok
}

// equal is which packets have a field that is the value, or in it.
func (r nftReader) equal(p packets, left, right any) fit {
	if parts, ok := member(left, "concat").([]any); ok {
		return r.equalParts(p, parts, r.elements(right))
	}
	values := r.elements(right)
	switch field := fieldOf(left); field {
	case "ip saddr", "ip6 saddr", "ip daddr", "ip6 daddr":
		return r.addresses(p, field, values)
	case "ct state":
		return p.inState(texts(values))
	}
	result := none
	for _, v := range values {
		result = max(result, r.one(p, fieldOf(left), v))
	}
	return result
}

// addresses is which packets come from, or go to, some addresses. A family asks for
// itself.
func (r nftReader) addresses(p packets, field string, values []any) fit {
	family, which, _ := strings.Cut(field, " ")
	if p.from.IsValid() && p.from.Addr().Is4() != (family == "ip") || p.to.IsValid() && p.to.Addr().Is4() != (family == "ip") {
		return none
	}
	var spans []span
	for _, v := range values {
		s, ok := spanIn(v)
		if !ok {
			return some
		}
		spans = append(spans, s)
	}
	if len(spans) == 0 {
		return none
	}
	if which == "saddr" {
		return within(p.from, spans)
	}
	return r.e.reaches(p, spans)
}

// spanIn reads "192.0.2.1", {"prefix": …} and {"range": [a, b]}.
func spanIn(v any) (span, bool) {
	if prefix, ok := member(v, "prefix").(map[string]any); ok {
		return parseSpan(text(prefix["addr"]) + "/" + text(prefix["len"]))
	}
	if ends, ok := member(v, "range").([]any); ok && len(ends) == 2 {
		return parseSpan(text(ends[0]) + "-" + text(ends[1]))
	}
	if _, err := netip.ParseAddr(text(v)); err != nil {
		return span{}, false
	}
	return parseSpan(text(v))
}

// one is which packets have a field with one value, or in a range.
func (r nftReader) one(p packets, field string, v any) fit {
	switch field {
	case "ip saddr", "ip6 saddr", "ip daddr", "ip6 daddr":
		return r.addresses(p, field, []any{v})
	case "ct state":
		return p.inState([]string{text(v)})
	case "tcp dport", "udp dport", "th dport":
		proto, _, _ := strings.Cut(field, " ")
		return both(p.hasTransport(proto), p.goesTo(func(port int) bool { return inValue(v, port) }))
	case "tcp sport", "udp sport", "th sport":
		proto, _, _ := strings.Cut(field, " ")
		if !inValue(v, 1024) || !inValue(v, 65535) {
			return both(p.hasTransport(proto), some)
		}
		return p.hasTransport(proto)
	case "meta l4proto", "ip protocol", "ip6 nexthdr":
		return p.hasProtocol(text(v))
	case "meta iifname", "meta iif":
		return onInterface(p.in, text(v))
	case "meta oifname", "meta oif":
		return onInterface(p.out, text(v))
	case "meta nfproto", "meta protocol":
		return p.ofFamily(text(v))
	case "meta pkttype":
		return fitOf(text(v) == "host" || text(v) == "unicast")
	case "fib type daddr":
		if f, known := addressTypes[strings.ToUpper(text(v))]; known && p.to == (netip.Prefix{}) {
			return f
		}
	}
	return some
}

// hasTransport is hasProtocol for the protocol of a port: th is any that has ports.
func (p packets) hasTransport(proto string) fit {
	if proto == "th" {
		return map[bool]fit{true: some, false: every}[p.proto == ""]
	}
	return p.hasProtocol(proto)
}

func (p packets) ofFamily(name string) fit {
	known := map[string]bool{"ipv4": true, "ip": true, "ipv6": false, "ip6": false}
	four, ok := known[name]
	switch {
	case ok && p.from.IsValid():
		return fitOf(p.from.Addr().Is4() == four)
	case ok && p.to.IsValid():
		return fitOf(p.to.Addr().Is4() == four)
	}
	return some
}

// inValue reads a number or {"range": [a, b]}.
func inValue(v any, port int) bool {
	if ends, ok := member(v, "range").([]any); ok && len(ends) == 2 {
		low, ok1 := number(ends[0])
		high, ok2 := number(ends[1])
		return ok1 && ok2 && low <= port && port <= high
	}
	n, ok := number(v)
	return ok && n == port
}

// elements is the values of an anonymous set, of a named one, of a list, or the one
// value that it is.
func (r nftReader) elements(right any) (all []any) {
	switch v := right.(type) {
	case []any:
		all = v
	case string:
		set, ok := r.sets[v]
		if !ok {
			return []any{v}
		}
		all = set
	case map[string]any:
		set, ok := v["set"]
		if !ok {
			return []any{v}
		}
		return r.elements(set)
	default:
		return []any{right}
	}
	all = slices.Clone(all)
	for i, e := range all {
		if value := member(member(e, "elem"), "val"); value != nil {
			all[i] = value // with a timeout or a comment
		}
	}
	return all
}

// equalParts is equal for several fields at once: "ip saddr . tcp dport".
func (r nftReader) equalParts(p packets, fields []any, elements []any) fit {
	result := none
	for _, e := range elements {
		parts, ok := member(e, "concat").([]any)
		if !ok || len(parts) != len(fields) {
			return some
		}
		f := every
		for i, field := range fields {
			f = both(f, r.one(p, fieldOf(field), parts[i]))
		}
		result = max(result, f)
	}
	return result
}

// lookUp finds the verdict of a map about packets.
func (r nftReader) lookUp(p packets, key, data any) (fit, doing) {
	result := none
	for _, pair := range r.elements(data) {
		parts, ok := pair.([]any)
		if !ok || len(parts) != 2 {
			return some, doing{}
		}
		what, ok := verdict(parts[1])
		if !ok {
			return some, doing{}
		}
		from := parts[0]
		if value := member(member(from, "elem"), "val"); value != nil {
			from = value
		}
		f := r.equal(p, key, map[string]any{"set": []any{from}})
		if f == every {
			return every, what
		}
		result = max(result, f)
	}
	return result, doing{}
}

// member is a field of an object, nil if it is none or has none.
func member(v any, name string) any {
	fields, _ := v.(map[string]any)
	return fields[name]
}

func texts(values []any) (all []string) {
	for _, v := range values {
		all = append(all, text(v))
	}
	return all
}
