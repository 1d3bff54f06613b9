// Package conformance runs Kubernetes' own end-to-end tests against lite.
package conformance

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/tests/conformance/images"
	"lite.io/lite/tests/conformance/report"
)

// selection is specs, chosen as ginkgo does: by their names and by their labels.
type selection struct {
	focus, skip string // regular expressions
	filter      string // on labels
}

// usable leaves out what breaks the cluster for all that follow, what upstream says
// fails at times, and what needs features that a cluster does not have by default.
const usable = "!Disruptive && !Flaky && !Deprecated"

// group is a part of the tests of which the result is written down.
type group struct {
	focus, skip string
	features    string // what the specs may need, besides what is on by default
	dualStack   bool   // the cluster has addresses of both families
}

// groups are known by name.
var groups = map[string]group{
	"sig-network":     {focus: `\[sig-network\]`, skip: `LoadBalancers? ESIPP|\[Feature:Ingress\]`, features: "NetworkPolicy"},
	"sig-storage":     {focus: `\[sig-storage\].*(\[Driver: (local|hostPath|emptydir|hostPathSymlink)|HostPath|PersistentVolumes-local|[Ss]ubpath|Projected|EmptyDir|ConfigMap|Secrets|Downward|PersistentVolumes)`},
	"sig-node":        {focus: `\[sig-node\]`, features: "UserNamespacesSupport PodLevelResources ImageVolume"},
	"sig-apps":        {focus: `\[sig-apps\]`},
	"sig-cli":         {focus: `\[sig-cli\]`},
	"sig-sched":       {focus: `\[sig-scheduling\]`},
	"NodeConformance": {focus: `\[NodeConformance\]`},
	"dual-stack":      {focus: `\[Feature:IPv6DualStack\]`, features: "IPv6DualStack", dualStack: true},
}

// choose is what is asked for: conformance if nothing is.
func choose(getenv func(string) string) (name string, s selection, ok bool) {
	if name := getenv("GROUP"); name != "" {
		g, ok := groups[name]
		return name, selection{g.focus, joinPatterns(g.skip, getenv("SKIP")), withFeatures(g.features)}, ok
	}
	if focus := getenv("FOCUS"); focus != "" {
		return "", selection{focus, getenv("SKIP"), withFeatures(getenv("FEATURES"))}, true
	}
	return "conformance", selection{skip: getenv("SKIP"), filter: "Conformance"}, true
}

// withFeatures is a filter that lets specs pass that need no other features.
func withFeatures(features string) string {
	if features == "" {
		return usable + " && Feature: isEmpty"
	}
	// The empty set is a part of every other.
	return usable + " && Feature: isSubsetOf {" + strings.Join(strings.Fields(features), ",") + "}"
}

func joinPatterns(patterns ...string) string {
	var all []string
	for _, p := range patterns {
		if p != "" {
			all = append(all, p)
		}
	}
	return strings.Join(all, "|")
}

// parallel and serial part a selection: specs that may run beside others, and those
// that must not.
func (s selection) parallel() selection { return s.and("!Serial") }
func (s selection) serial() selection   { return s.and("Serial") }

func (s selection) and(filter string) selection {
	s.filter = "(" + s.filter + ") && " + filter
	return s
}

// lack is something that is not there, and the specs that need it.
type lack struct {
	reason string
	specs  string // a pattern
}

// lacks is what the images and this machine do not have.
func lacks() (all []lack) {
	for _, m := range images.NotMade() {
		if m.Specs != "" {
			all = append(all, lack{fmt.Sprintf("there is no image %s: %s", strings.Trim(m.Image, "/:"), m.Reason), m.Specs})
		}
	}
	all = append(all, lack{"there is no image cockroachdb/cockroach: no module and no package of Debian", "CockroachDB"})
	if err := exec.Command("unshare", "--net", "ip", "link", "add", "dummy1", "type", "dummy").Run(); err != nil {
		all = append(all, lack{"the kernel has no interfaces of type dummy", "PrivilegedPod"})
	}
	if resource, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil || resource == 0 {
		all = append(all, lack{"root has no CAP_SYS_RESOURCE on this machine, and gives no process a lower oom_score_adj", "PLR guaranteed qos"})
	}
	return all
}

// possible leaves out the specs that need what is not there. It says which these are,
// and which remain.
func (s selection) possible(specs []string, lacks []lack) (selection, []report.Left, []string) {
	var left []report.Left
	for _, l := range lacks {
		pattern := regexp.MustCompile(l.specs)
		var needs []string
		specs = slices.DeleteFunc(slices.Clone(specs), func(spec string) bool {
			if !pattern.MatchString(spec) {
				return false
			}
			needs = append(needs, spec)
			return true
		})
		if len(needs) > 0 {
			left = append(left, report.Left{Reason: l.reason, Specs: needs})
			// By the pattern: the names of all would be too long for a command.
			s.skip = joinPatterns(s.skip, l.specs)
		}
	}
	return s, left, specs
}

// flags are ginkgo's.
func (s selection) flags() []string {
	flags := []string{"--label-filter=" + s.filter}
	if s.focus != "" {
		flags = append(flags, "--focus="+s.focus)
	}
	if s.skip != "" {
		flags = append(flags, "--skip="+s.skip)
	}
	return flags
}
