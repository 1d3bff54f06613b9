package check

import (
	"context"
	"fmt"
	"strings"
)

// firewalld keeps rules twice: those in force and those of the next start.
type firewalld struct {
	*Env
	zone string // of the interface that other nodes reach this one by
	open bool   // that zone lets everything in
}

const firewallCmd = "firewall-cmd"

// findFirewalld asks firewalld, which has a table of its own in nftables. A packet
// that it drops is dropped, whatever iptables accepts.
func (e *Env) findFirewalld(ctx context.Context) (found []firewall, says string, err error) {
	_, runs := e.runs("firewalld")
	switch {
	case !runs && e.exists("/etc/firewalld/firewalld.conf"):
		return nil, "firewalld is installed and not active", nil
	case !runs:
		return nil, "", nil
	case e.UID != 0:
		return nil, "", fmt.Errorf("firewalld is active; only root can ask it what it lets in")
	}
	// Exit code 2 is that no zone has it; then it is in the default one.
	zone, err := e.Run(ctx, "", firewallCmd, "--get-zone-of-interface="+e.nodeInterface())
	if err != nil {
		if zone, err = e.Run(ctx, "", firewallCmd, "--get-default-zone"); err != nil {
			return nil, "", fmt.Errorf("firewalld is active and cannot be asked: %w", err)
		}
	}
	f := &firewalld{Env: e, zone: strings.TrimSpace(zone)}
	target, err := e.Run(ctx, "", firewallCmd, "--permanent", "--zone="+f.zone, "--get-target")
	f.open = err == nil && strings.TrimSpace(target) == "ACCEPT"
	return []firewall{f}, "", nil
}

func (f *firewalld) name() string { return "firewalld (zone " + f.zone + ")" }
func (f *firewalld) note() string { return "" }

// what is the zone and the part of an option that an opening is, without the verb.
func (f *firewalld) what(o opening) (zone, thing string) {
	switch {
	case o.port == 0:
		return "trusted", "source=" + o.from.String()
	case !o.from.IsValid():
		return f.zone, fmt.Sprintf("port=%d/%s", o.port, o.proto)
	}
	family := "ipv4"
	if o.from.Addr().Is6() {
		family = "ipv6"
	}
	return f.zone, fmt.Sprintf(`rich-rule=rule family="%s" source address="%s" port port="%d" protocol="%s" accept`, family, o.from, o.port, o.proto)
}

func (f *firewalld) lets(ctx context.Context, o opening) (bool, error) {
	zone, thing := f.what(o)
	if zone == f.zone && f.open {
		return true, nil
	}
	things := []string{thing}
	if o.port > 0 && o.from.IsValid() {
		// Open for everybody will do.
		things = append(things, fmt.Sprintf("port=%d/%s", o.port, o.proto))
	}
	for _, thing := range things {
		now, err := f.query(ctx, "--zone="+zone, "--query-"+thing)
		if err != nil {
			return false, err
		}
		later, err := f.query(ctx, "--permanent", "--zone="+zone, "--query-"+thing)
		if now && later || err != nil {
			return now && later, err
		}
	}
	return false, nil
}

// query asks a question that is answered by yes or no.
func (f *firewalld) query(ctx context.Context, args ...string) (bool, error) {
	answer, err := f.Run(ctx, "", firewallCmd, args...)
	switch strings.TrimSpace(answer) {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, err
}

func (f *firewalld) both(verb string, o opening) []command {
	zone, thing := f.what(o)
	return []command{
		{firewallCmd, "--permanent", "--zone=" + zone, "--" + verb + "-" + thing},
		{firewallCmd, "--zone=" + zone, "--" + verb + "-" + thing},
	}
}

func (f *firewalld) allow(o opening) []command { return f.both("add", o) }
func (f *firewalld) undo(o opening) []command  { return f.both("remove", o) }
