// Package cis judges a node by the CIS Kubernetes Benchmark.
//
// An entry of the benchmark is one row of a table ([entries]): its number, what it asks,
// and a function that judges a [Node]. A Node is the settings of the running lite's
// components, the files on the machine, and the objects of the cluster; not what the next
// start would make of the configuration. The functions are built from a few shared ones: an
// argument, the mode of a file, a field of the kubelet's configuration, who may do what.
package cis

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"lite.io/lite/pkg/config"
)

// Benchmark is what is judged by: version 1.12, with the numbers and kinds of
// kube-bench's cfg/cis-1.12.
const Benchmark = "CIS Kubernetes Benchmark 1.12"

// Kind is whether the benchmark has a program or a person judge an entry.
type Kind string

// The kinds.
const (
	Automated Kind = "automated"
	Manual    Kind = "manual"
)

// Status is how an entry was judged.
type Status string

// What settings, files and objects alone decide is a Pass or a Fail, whichever kind the
// benchmark calls it. What a person has to decide is Decide; what does not exist on a node
// of lite is Inapplicable; and what could not be checked is Unknown, never a Pass.
const (
	Pass         Status = "pass"
	Fail         Status = "fail"
	Decide       Status = "manual"
	Inapplicable Status = "not applicable"
	Unknown      Status = "unknown"
)

// Statuses is all of them, in the order in which they are counted.
var Statuses = []Status{Pass, Fail, Decide, Inapplicable, Unknown}

// Result is one entry with what was found.
type Result struct {
	Number string `json:"number"`
	Title  string `json:"title"`
	Level  int    `json:"level"`
	Kind   Kind   `json:"kind"`
	Status Status `json:"status"`
	// Seen is what it was judged by. Nothing in it is secret.
	Seen string `json:"seen,omitempty"`
	// Reason is why a result other than Pass matters, or why lite does it differently.
	Reason string `json:"reason,omitempty"`
	// Remedy is what to do about it.
	Remedy string `json:"remedy,omitempty"`
}

// Report is all entries that a node can be judged by.
type Report struct {
	Benchmark string         `json:"benchmark"`
	Version   string         `json:"version"` // of the lite that judged
	Role      config.Role    `json:"role"`
	Node      string         `json:"node,omitempty"`
	Totals    map[Status]int `json:"totals"`
	Entries   []Result       `json:"entries"`
}

// entry is one row of the table.
type entry struct {
	number string
	level  int
	kind   Kind
	title  string // in words of ours, as all that follows
	judge  judge
	reason string
	remedy string
}

// judge judges one entry of a node.
type judge func(*Node) finding

// finding is the result of a judge. Reason and remedy are the entry's unless they are set.
type finding struct {
	status         Status
	seen           string
	reason, remedy string
}

func pass(seen string) finding         { return finding{status: Pass, seen: seen} }
func fail(seen string) finding         { return finding{status: Fail, seen: seen} }
func decide(seen string) finding       { return finding{status: Decide, seen: seen} }
func inapplicable(seen string) finding { return finding{status: Inapplicable, seen: seen} }
func unknown(seen string) finding      { return finding{status: Unknown, seen: seen} }

// Section is a part of the benchmark.
type Section struct{ Number, Title string }

// Sections is those that have entries, in their order.
var Sections = []Section{
	{"1.1", "Files of the control plane"},
	{"1.2", "API server"},
	{"1.3", "Controller manager"},
	{"1.4", "Scheduler"},
	{"2", "etcd"},
	{"3.1", "Authentication of users"},
	{"3.2", "Audit log"},
	{"4.1", "Files of a node"},
	{"4.2", "Kubelet"},
	{"4.3", "kube-proxy"},
	{"5.1", "Roles and service accounts"},
	{"5.2", "Pod security"},
	{"5.3", "Network policies"},
	{"5.4", "Secrets"},
	{"5.5", "Provenance of images"},
	{"5.6", "General"},
}

// SectionOf is the number of an entry's section.
func SectionOf(number string) string { return number[:strings.LastIndex(number, ".")] }

// entries is the whole table, in the benchmark's order.
func entries() []entry {
	return slices.Concat(controlPlaneFiles(), apiServer(), controllerManager(), scheduler(), etcd(), controlPlane(),
		nodeFiles(), kubelet(), kubeProxy(), roles(), podSecurity(), policies())
}

// Judges reports whether a node of a role is judged by an entry: an agent has a kubelet and
// a kube-proxy, and nothing else that the benchmark covers.
func Judges(role config.Role, number string) bool {
	return role == config.Server || strings.HasPrefix(number, "4.")
}

// Judge judges a node by all entries that are for it.
func Judge(n *Node) Report {
	r := Report{Benchmark: Benchmark, Role: n.Role, Node: n.Name, Totals: map[Status]int{}}
	for _, s := range Statuses {
		r.Totals[s] = 0
	}
	for _, e := range entries() {
		if !Judges(n.Role, e.number) {
			continue
		}
		one := e.result(n)
		r.Entries = append(r.Entries, one)
		r.Totals[one.Status]++
	}
	return r
}

func (e entry) result(n *Node) Result {
	f := e.judge(n)
	r := Result{Number: e.number, Title: e.title, Level: e.level, Kind: e.kind, Status: f.status, Seen: line(f.seen)}
	if f.status == Pass {
		return r
	}
	r.Reason, r.Remedy = e.reason, e.remedy
	if f.reason != "" {
		r.Reason = f.reason
	}
	switch {
	case f.status == Unknown:
		r.Reason, r.Remedy = "", cmp.Or(f.remedy, n.Remedy)
	case f.status == Inapplicable:
		r.Remedy = ""
	case f.remedy != "":
		r.Remedy = line(f.remedy)
	}
	return r
}

// Failed reports whether something fails, or a program was to judge it and could not.
func (r Report) Failed() bool {
	return slices.ContainsFunc(r.Entries, func(e Result) bool {
		return e.Status == Fail || e.Status == Unknown && e.Kind == Automated
	})
}

// line makes one line of a text that a terminal can show, whatever a file or a name
// contained.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.Join(strings.Fields(text), " "))
}

// few is some of many names.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + ", and " + count(len(names)-most, "other")
}
