// Package check finds what prevents lite from working on a machine, before it is installed
// and while it runs.
//
// A check is one row of a table: a name, and a function that sees the machine through a
// [Machine] and returns what it has found. What `lite server` refuses when it starts comes
// from the same functions, see [Start].
package check

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/status"
)

// Status is how a check ended.
type Status string

// A check that could not be made is a Skip with its reason, never a Pass.
const (
	Pass Status = "pass"
	Warn Status = "warn"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Result is one finding. A check that finds several things has several.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	// Remedy is what to do about a Warn or a Fail, or how a Skip could be made.
	Remedy string `json:"remedy,omitempty"`
	// Commands carry the remedy out, as root; each is a line for a shell.
	Commands []string `json:"commands,omitempty"`
	// Fixable means that Fix can do it.
	Fixable bool `json:"fixable,omitempty"`

	fix []step
	// bearable means that pods run in spite of a Fail.
	bearable bool
}

// Subject is what the checks are about.
type Subject struct {
	Role config.Role
	// Because is how the role is known, "" if it was given.
	Because string
	// Config is nil if Wrong is why there is none.
	Config *config.Config
	Wrong  error
	// Refused is the error with which a start would refuse arguments of components, or
	// their files.
	Refused error
	// Unread is the configuration file, where it may not be read and Config is made
	// without it.
	Unread string
	// Nodes are the networks that other nodes are in; none = that of this node's
	// address.
	Nodes []netip.Prefix
	// Version of this lite, and when it was built.
	Version string
	Built   time.Time
}

// Env is what a check sees.
type Env struct {
	*Machine
	Subject
	// Facts are the cluster's. Assumed means that they are the defaults, because this
	// machine has not joined yet.
	Facts   cluster.Facts
	Assumed bool
	Running Running
}

// Running is a lite on this machine.
type Running struct {
	PID int // 0 = none
	// Node is its status, nil if it could not be asked.
	Node *status.Node
	Err  error
}

// check is one row.
type check struct {
	name string
	only config.Role // "" = every role
	run  func(context.Context, *Env) []Result
}

// checks is all that is looked at, in the order in which it is shown: lite itself,
// the machine, its disks, its network, and what else is on it.
var checks = []check{
	{"user", "", user},
	{"node", "", node},
	{"configuration", "", configuration},
	{"data directory", "", dataDirectory},
	{"registries", "", registries},
	{"containerd", "", dropIns},

	{"processor", "", processor},
	{"memory", "", memory},
	{"kernel", "", kernel},
	{"kernel features", "", features},
	{"kernel log", "", kernelLog},
	{"cgroups", "", cgroups},
	{"programs", "", programs},
	{"swap", "", swap},
	{"clock", "", clock},
	{"certificates", "", certificates},
	{"randomness", "", randomness},
	{"inotify", "", inotify},
	{"open files", "", openFiles},
	{"hostname", "", hostname},

	{"file system", "", fileSystem},
	{"room", "", room},
	{"overlayfs", "", overlayfs},
	{"disk latency", config.Server, latency},

	{"addresses", "", addresses},
	{"ports", "", ports},
	{"name servers", "", nameServers},
	{"server", config.Agent, reachServer},
	{"firewall", "", firewalls},
	{"iptables", "", iptablesMix},
	{"NetworkManager", "", networkManager},

	{"SELinux", "", selinux},
	{"AppArmor", "", apparmor},
	{"others", "", leftovers},
}

// Report is what was found.
type Report struct {
	Version string      `json:"version"`
	Role    config.Role `json:"role"`
	Node    string      `json:"node,omitempty"`
	Result  Status      `json:"result"`
	Checks  []Result    `json:"checks"`
	Fixed   []Done      `json:"fixed,omitempty"`
}

// Run makes all checks.
func Run(ctx context.Context, m *Machine, s Subject) Report {
	env := newEnv(ctx, m, s)
	r := Report{Version: s.Version, Role: s.Role}
	if s.Config != nil {
		r.Node = s.Config.NodeName
	}
	for _, c := range checks {
		if c.only != "" && c.only != s.Role {
			continue
		}
		for _, found := range c.run(ctx, env) {
			found.Name = c.name
			found.Found, found.Remedy = line(found.Found), line(found.Remedy)
			found.Fixable = len(found.fix) > 0 && m.UID == 0
			r.Checks = append(r.Checks, found)
		}
	}
	r.Result = worst(r.Checks)
	return r
}

func worst(results []Result) Status {
	all := Pass
	for _, r := range results {
		switch {
		case r.Status == Fail:
			return Fail
		case r.Status == Warn:
			all = Warn
		}
	}
	return all
}

// line makes one line of a text, whatever a file contained.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }

func pass(found string) []Result { return []Result{{Status: Pass, Found: found}} }
func skip(why string) []Result   { return []Result{{Status: Skip, Found: why}} }

func warn(found, remedy string, commands ...string) []Result {
	return []Result{{Status: Warn, Found: found, Remedy: remedy, Commands: commands}}
}

func fail(found, remedy string, commands ...string) []Result {
	return []Result{{Status: Fail, Found: found, Remedy: remedy, Commands: commands}}
}

// refused is what keeps lite from starting, of an error in the form "problem; remedy".
func refused(err error) []Result {
	var results []Result
	for _, e := range each(err) {
		text, remedy := e.Error(), ""
		if i := strings.LastIndex(text, "; "); i >= 0 {
			text, remedy = text[:i], text[i+len("; "):]
		}
		results = append(results, fail(text, remedy)...)
	}
	return results
}

// each takes an error apart that joins others.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	return []error{err}
}

// needsRoot is the result of what only root can see.
func needsRoot(what string) []Result { return skip("only root can see " + what) }

// noConfig is the result of what depends on a configuration that is wrong.
func noConfig() []Result { return skip("the configuration has to be corrected first") }

// disabled reports whether a battery is left out of the cluster.
func (e *Env) disabled(battery addon.Name) bool { return e.Facts.Disable.Has(battery) }
