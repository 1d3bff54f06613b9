package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// opening is what a firewall has to let in.
type opening struct {
	from  netip.Prefix // the zero one = everywhere
	proto string       // tcp or udp
	port  int          // 0 = everything that comes from there
	why   string
}

func (o opening) String() string {
	text := o.why
	if o.port > 0 {
		text = fmt.Sprintf("%d/%s (%s)", o.port, o.proto, o.why)
	}
	if o.from.IsValid() {
		text += " from " + o.from.String()
	}
	return text
}

// openings is what a node of this configuration has to let in. Pods are everything that
// comes from their range: they ask the API and the node's DNS, and other nodes' pods ask
// them. Services never send, but users who move from another distribution find the same
// rule, and a hairpin through an external balancer may keep their address.
func (e *Env) openings() []opening {
	var all []opening
	if e.Role == config.Server {
		all = append(all, opening{proto: "tcp", port: e.Config.HTTPSListenPort, why: "API server"})
	}
	var four, six []opening
	for _, nodes := range e.nodeNetworks() {
		o := opening{from: nodes, proto: "tcp", port: layout.KubeletPort, why: "kubelet"}
		if !nodes.IsValid() || nodes.Addr().Is4() {
			four = append(four, o)
		} else {
			six = append(six, o)
		}
		// Packets between nodes go over IPv4.
		if port := layout.OverlayPort(e.Facts.Backend); port > 0 && !e.disabled(addon.CNI) && (!nodes.IsValid() || nodes.Addr().Is4()) {
			four = append(four, opening{from: nodes, proto: "udp", port: port, why: "pods of other nodes"})
		}
	}
	all = append(append(all, four...), six...)
	for _, p := range e.Facts.ClusterCIDR {
		all = append(all, opening{from: p, why: "pods"})
	}
	for _, p := range e.Facts.ServiceCIDR {
		all = append(all, opening{from: p, why: "services"})
	}
	return all
}

// nodeNetworks is the networks of other nodes: those that the user passes, otherwise those
// of this node's own addresses. With an address without a network, the nodes may be
// anywhere.
func (e *Env) nodeNetworks() []netip.Prefix {
	if len(e.Nodes) > 0 {
		return e.Nodes
	}
	var all []netip.Prefix
	interfaces, _ := e.Interfaces()
	for _, i := range interfaces {
		for _, p := range i.Addrs {
			if slices.Contains(e.Config.NodeIP, p.Addr()) && !p.IsSingleIP() {
				all = append(all, p.Masked())
			}
		}
	}
	if len(all) == 0 {
		return []netip.Prefix{{}}
	}
	return all
}

// nodeInterface is the one that has the node's first address.
func (e *Env) nodeInterface() string {
	interfaces, _ := e.Interfaces()
	for _, i := range interfaces {
		if slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return slices.Contains(e.Config.NodeIP, p.Addr()) }) {
			return i.Name
		}
	}
	return ""
}

// firewall is one that is in force.
type firewall interface {
	name() string
	// lets reports whether it lets in what it has to.
	lets(context.Context, opening) (bool, error)
	// allow is the commands that make it let that in.
	allow(opening) []command
	// undo is lines for a shell that undo it, unless it was undone.
	undo(opening) []string
	// note is what else there is to know, "" if nothing.
	note() string
}

// command is a program and its arguments.
type command []string

// String is a line for a shell.
func (c command) String() string {
	var words []string
	for _, w := range c {
		if strings.ContainsAny(w, " \t\"'$&;|<>()*?!#~`\\{}") || w == "" {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// shell is commands as lines.
func shell(all []command) []string {
	var lines []string
	for _, c := range all {
		lines = append(lines, c.String())
	}
	return lines
}

// firewalls finds what filters packets on this machine.
func firewalls(ctx context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	var results []Result
	var quiet []string
	for _, find := range []func(context.Context) ([]firewall, string, error){e.findFirewalld, e.findUFW, e.findRaw} {
		found, note, err := find(ctx)
		if err != nil {
			results = append(results, skip(err.Error())...)
		}
		if note != "" {
			quiet = append(quiet, note)
		}
		for _, f := range found {
			results = append(results, e.judge(ctx, f)...)
		}
	}
	if len(quiet) > 0 {
		results = append(results, pass(strings.Join(quiet, "; "))...)
	}
	if len(results) == 0 {
		return pass("none filters incoming packets")
	}
	return results
}

// judge reports what a firewall blocks that it should not.
func (e *Env) judge(ctx context.Context, f firewall) []Result {
	var closed []opening
	for _, o := range e.openings() {
		let, err := f.lets(ctx, o)
		if err != nil {
			return skip(fmt.Sprintf("%s is active; cannot find out what it allows: %v", f.name(), err))
		}
		if !let {
			closed = append(closed, o)
		}
	}
	note := f.note()
	if note != "" {
		note = "; " + note
	}
	if len(closed) == 0 {
		return pass(f.name() + " is active and allows what a node needs" + note)
	}
	r := Result{Status: Fail, Remedy: "add the rules, with `lite check --fix` or by hand" + note}
	var names []string
	for _, o := range closed {
		names = append(names, o.String())
		commands := f.allow(o)
		r.Commands = append(r.Commands, shell(commands)...)
		r.fix = append(r.fix, step{
			did:  f.name() + ": allow " + o.String(),
			undo: strings.Join(f.undo(o), " && "),
			do: func(ctx context.Context) error {
				for _, c := range commands {
					if _, err := e.filter(ctx, c[0], c[1:]...); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	r.Found = f.name() + " is active and blocks " + strings.Join(names, ", ")
	if e.Assumed {
		r.Found += "; networks are the defaults, check again once this machine has joined"
	}
	return []Result{r}
}
