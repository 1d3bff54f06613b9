package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// firewalld keeps rules twice: those in force and those of the next start.
type firewalld struct {
	zone  string // of the interface that other nodes reach this one by
	zones map[string]zoneRules
}

// zoneRules is what a zone lets in, now and after the next start: "source=…", "port=…" and
// "rich-rule=…", as the options that ask for it are called.
type zoneRules struct {
	all        bool // it lets everything in
	now, later []string
}

const firewallCmd = "firewall-cmd"

// findFirewalld asks firewalld, which has its own table in nftables. What it drops is
// dropped, whatever iptables accepts.
func (e *Env) findFirewalld(ctx context.Context) (found []firewall, note string, err error) {
	_, runs := e.runs("firewalld")
	switch {
	case !runs && e.exists("/etc/firewalld/firewalld.conf"):
		return nil, "firewalld is installed and not active", nil
	case !runs:
		return nil, "", nil
	case e.UID != 0:
		return nil, "", fmt.Errorf("firewalld is active; only root can find out what it allows")
	}
	// Exit code 2 is that no zone has it; then it is in the default one.
	zone, err := e.Run(ctx, "", firewallCmd, "--get-zone-of-interface="+e.nodeInterface())
	if err != nil {
		if zone, err = e.Run(ctx, "", firewallCmd, "--get-default-zone"); err != nil {
			return nil, "", fmt.Errorf("firewalld is active but does not answer: %w", err)
		}
	}
	f := &firewalld{strings.TrimSpace(zone), map[string]zoneRules{}}
	for _, name := range []string{f.zone, trusted} {
		if f.zones[name], err = e.readZone(ctx, name); err != nil {
			return nil, "", fmt.Errorf("firewalld is active but does not answer: %w", err)
		}
	}
	return []firewall{f}, "", nil
}

// trusted is the zone that lets everything in.
const trusted = "trusted"

// readZone asks all at once, as each call of its program takes half a second.
func (e *Env) readZone(ctx context.Context, name string) (z zoneRules, err error) {
	now, err := e.Run(ctx, "", firewallCmd, "--zone="+name, "--list-all")
	if err != nil {
		return z, err
	}
	later, err := e.Run(ctx, "", firewallCmd, "--permanent", "--zone="+name, "--list-all")
	if err != nil {
		return z, err
	}
	z.now, z.all = parseZone(now)
	z.later, _ = parseZone(later)
	return z, nil
}

// parseZone reads lines of the form "  ports: 22/tcp 80/tcp"; rich rules follow their
// heading, one per line.
func parseZone(text string) (things []string, all bool) {
	for l := range strings.Lines(text) {
		key, values, _ := strings.Cut(strings.TrimSpace(l), ": ")
		switch {
		case key == "target":
			all = strings.TrimSpace(values) == "ACCEPT"
		case key == "ports" || key == "sources":
			for v := range strings.FieldsSeq(values) {
				things = append(things, strings.TrimSuffix(key, "s")+"="+v)
			}
		case strings.HasPrefix(strings.TrimSpace(l), "rule "):
			things = append(things, "rich-rule="+strings.TrimSpace(l))
		}
	}
	return things, all
}

func (f *firewalld) name() string { return "firewalld (zone " + f.zone + ")" }
func (f *firewalld) note() string { return "" }

// what is the zone and the part of an option that an opening is, without the verb.
func (f *firewalld) what(o opening) (zone, thing string) {
	switch {
	case o.port == 0:
		return trusted, "source=" + o.from.String()
	case !o.from.IsValid():
		return f.zone, fmt.Sprintf("port=%d/%s", o.port, o.proto)
	}
	family := "ipv4"
	if o.from.Addr().Is6() {
		family = "ipv6"
	}
	return f.zone, fmt.Sprintf(`rich-rule=rule family="%s" source address="%s" port port="%d" protocol="%s" accept`, family, o.from,
		o.port, o.proto)
}

func (f *firewalld) lets(_ context.Context, o opening) (bool, error) {
	name, thing := f.what(o)
	z := f.zones[name]
	things := []string{thing}
	if o.port > 0 {
		// Open for everybody will do.
		things = append(things, fmt.Sprintf("port=%d/%s", o.port, o.proto))
	}
	has := func(rules []string) bool {
		return slices.ContainsFunc(things, func(t string) bool { return slices.Contains(rules, t) })
	}
	return name == f.zone && z.all || has(z.now) && has(z.later), nil
}

func (f *firewalld) both(verb string, o opening) []command {
	zone, thing := f.what(o)
	return []command{
		{firewallCmd, "--permanent", "--zone=" + zone, "--" + verb + "-" + thing},
		{firewallCmd, "--zone=" + zone, "--" + verb + "-" + thing},
	}
}

func (f *firewalld) allow(o opening) []command { return f.both("add", o) }
func (f *firewalld) undo(o opening) []string   { return shell(f.both("remove", o)) }
