package check

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"lite.io/lite/pkg/layout"
)

// ufw keeps its rules in a file, each with a line that describes it. It uses iptables, and
// lite's chains come before its own where packets of pods are forwarded.
type ufw struct {
	rules []tuple
}

// tuple is one rule as ufw writes it down: action protocol port to port from
// direction.
type tuple struct {
	action, proto string
	port          string
	to, from      netip.Prefix
}

func (e *Env) findUFW(context.Context) (found []firewall, note string, err error) {
	conf, err := e.read("/etc/ufw/ufw.conf")
	if err != nil {
		return nil, "", nil // not installed
	}
	if !strings.Contains(strings.ToLower("\n"+string(conf)), "\nenabled=yes") {
		return nil, "ufw is installed and not active", nil
	}
	var f ufw
	for _, name := range []string{"/etc/ufw/user.rules", "/etc/ufw/user6.rules"} {
		data, err := e.read(name)
		if denied(err) {
			return nil, "", fmt.Errorf("ufw is active; only root can see what it allows")
		}
		if err != nil {
			return nil, "", fmt.Errorf("ufw is active: %w", err)
		}
		f.rules = append(f.rules, parseTuples(string(data))...)
	}
	if strings.Contains(e.text("/etc/default/ufw"), `DEFAULT_INPUT_POLICY="ACCEPT"`) {
		return nil, "ufw is active and allows everything that no rule blocks", nil
	}
	return []firewall{f}, "", nil
}

// parseTuples reads the lines "### tuple ### allow tcp 6443 0.0.0.0/0 any 0.0.0.0/0 in".
func parseTuples(text string) (all []tuple) {
	for l := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(l, "### tuple ### ")
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		// Rules for one interface (in_eth0) or for forwarding (route:allow) do not count.
		if len(f) < 7 || f[6] != "in" || f[4] != "any" {
			continue
		}
		to, err1 := parseNetwork(f[3])
		from, err2 := parseNetwork(f[5])
		if err1 == nil && err2 == nil {
			all = append(all, tuple{f[0], f[1], f[2], to, from})
		}
	}
	return all
}

// parseNetwork takes addresses too.
func parseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		return addr.Prefix(addr.BitLen())
	}
	return netip.ParsePrefix(text)
}

func (ufw) name() string { return "ufw" }
func (ufw) note() string { return "" }

// lets goes through the rules in their order: the first that fits decides.
func (f ufw) lets(_ context.Context, o opening) (bool, error) {
	for _, t := range f.rules {
		if t.covers(o) {
			return t.action == "allow" || t.action == "limit", nil
		}
	}
	return false, nil
}

func (t tuple) covers(o opening) bool {
	from := o.from
	if !from.IsValid() {
		from = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	switch {
	case t.to.Bits() != 0, t.from.Addr().Is4() != from.Addr().Is4():
		return false
	case t.from.Bits() > from.Bits() || !t.from.Contains(from.Addr()):
		return false
	case t.proto != "any" && t.proto != o.proto:
		return false
	}
	return t.port == "any" || o.port > 0 && inPorts(t.port, o.port)
}

// inPorts: 80, 80,443 or 6000:6007.
func inPorts(list string, port int) bool {
	for part := range strings.SplitSeq(list, ",") {
		low, high, ok := strings.Cut(part, ":")
		if !ok {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 == nil && err2 == nil && from <= port && port <= to {
			return true
		}
	}
	return false
}

func (ufw) rule(o opening) command {
	switch {
	case o.port == 0:
		return command{"allow", "from", o.from.String()}
	case !o.from.IsValid():
		return command{"allow", fmt.Sprintf("%d/%s", o.port, o.proto)}
	}
	return command{"allow", "proto", o.proto, "from", o.from.String(), "to", "any", "port", strconv.Itoa(o.port)}
}

func (f ufw) allow(o opening) []command {
	return []command{append(append(command{"ufw"}, f.rule(o)...), "comment", layout.RulePrefix+o.why)}
}

func (f ufw) undo(o opening) []string {
	return shell([]command{append(command{"ufw", "delete"}, f.rule(o)...)})
}
