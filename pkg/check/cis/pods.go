package cis

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// system is the namespaces that hold no workloads of users.
var system = []string{"kube-system", "kube-public", "kube-node-lease"}

// levels is those of the Pod Security Standards that keep something out, the weaker
// first.
var levels = []string{"baseline", "restricted"}

const enforceLabel = "pod-security.kubernetes.io/enforce"

// open is the namespaces of users in which Pod Security enforces less than a level.
func open(n *Node, o *Objects, level string) ([]string, error) {
	byDefault, exempt, err := n.podSecurityDefault()
	if err != nil {
		return nil, err
	}
	on := args(n.Components[apiserverPart].Arguments).admits("PodSecurity", true)
	var names []string
	for _, ns := range o.Namespaces {
		if slices.Contains(system, ns.Name) {
			continue
		}
		enforced, given := ns.Labels[enforceLabel]
		if !given {
			enforced = byDefault
		}
		if !on || slices.Contains(exempt, ns.Name) || slices.Index(levels, enforced) < slices.Index(levels, level) {
			names = append(names, ns.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// keptOut passes if every namespace of users refuses pods that do something, and no pod
// does. has is nil if a pod does it by what it leaves out.
func keptOut(level, what string, has func(*corev1.Pod) bool) judge {
	return among(func(n *Node, o *Objects) finding {
		namespaces, err := open(n, o, level)
		if err != nil {
			return unknown(err.Error())
		}
		doing := podsThat(o, has)
		seen := "no pod " + what
		if has == nil {
			seen = "there are " + count(len(o.Pods), "pod")
		}
		if len(doing) > 0 {
			seen = count(len(doing), "pod") + " " + what + ": " + few(doing)
		}
		switch {
		case len(namespaces) > 0:
			return decide(fmt.Sprintf("%s; Pod Security enforces less than %s in: %s", seen, level, few(namespaces)))
		case len(doing) > 0:
			return decide(seen)
		}
		return pass(fmt.Sprintf("Pod Security enforces %s in every namespace of users", level))
	})
}

func podsThat(o *Objects, has func(*corev1.Pod) bool) (names []string) {
	for i := range o.Pods {
		if p := &o.Pods[i]; has != nil && has(p) {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// containers is all of a pod, ephemeral ones too.
func containers(p *corev1.Pod) iter.Seq[corev1.Container] {
	return func(yield func(corev1.Container) bool) {
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			if !yield(c) {
				return
			}
		}
		for _, e := range p.Spec.EphemeralContainers {
			if !yield(corev1.Container(e.EphemeralContainerCommon)) {
				return
			}
		}
	}
}

// anyContainer is whether one of a pod's is so.
func anyContainer(is func(corev1.Container) bool) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		for c := range containers(p) {
			if is(c) {
				return true
			}
		}
		return false
	}
}

func privileged(c corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}

func escalates(c corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.AllowPrivilegeEscalation != nil && *c.SecurityContext.AllowPrivilegeEscalation
}

func addsCapabilities(c corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Capabilities != nil && len(c.SecurityContext.Capabilities.Add) > 0
}

func hostPorts(c corev1.Container) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
}

func secretInEnvironment(c corev1.Container) bool {
	return slices.ContainsFunc(c.EnvFrom, func(e corev1.EnvFromSource) bool { return e.SecretRef != nil }) ||
		slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil })
}

func hostPaths(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
}

// unconfined pods have a container without a seccomp profile, its own or the pod's.
func unconfined(p *corev1.Pod) bool {
	given := func(s *corev1.SeccompProfile) bool { return s != nil && s.Type != corev1.SeccompProfileTypeUnconfined }
	whole := p.Spec.SecurityContext != nil && given(p.Spec.SecurityContext.SeccompProfile)
	return anyContainer(func(c corev1.Container) bool {
		if c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil {
			return !given(c.SecurityContext.SeccompProfile)
		}
		return !whole
	})(p)
}

// bare pods have a container without any security context.
func bare(p *corev1.Pod) bool {
	if s := p.Spec.SecurityContext; s != nil && !reflect.ValueOf(*s).IsZero() {
		return false
	}
	return anyContainer(func(c corev1.Container) bool { return c.SecurityContext == nil })(p)
}

// guarded is whether something keeps pods out at all.
func guarded(n *Node, o *Objects) finding {
	namespaces, err := open(n, o, "baseline")
	switch {
	case err != nil:
		return unknown(err.Error())
	case n.Components != nil && !args(n.Components[apiserverPart].Arguments).admits("PodSecurity", true):
		return decide("PodSecurity is off")
	case len(namespaces) > 0:
		return decide("PodSecurity is on, and enforces nothing in: " + few(namespaces))
	}
	return pass("PodSecurity is on, and enforces baseline or more in every namespace of users")
}

// unmounted judges the default service accounts, which every pod has that names none.
func unmounted(_ *Node, o *Objects) finding {
	var mounting []string
	all := 0
	for _, s := range o.ServiceAccounts {
		if s.Name != "default" {
			continue
		}
		all++
		if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken {
			mounting = append(mounting, s.Namespace)
		}
	}
	if len(mounting) > 0 {
		slices.Sort(mounting)
		return decide(fmt.Sprintf("%d of %d give pods their token, in: %s", len(mounting), all, few(mounting)))
	}
	return pass("none of " + count(all, "account") + " named default gives pods its token")
}

// tokens judges the pods that have one, whether they need it or not.
func tokens(_ *Node, o *Objects) finding {
	withheld := map[string]bool{}
	for _, s := range o.ServiceAccounts {
		if s.AutomountServiceAccountToken != nil && !*s.AutomountServiceAccountToken {
			withheld[s.Namespace+"/"+s.Name] = true
		}
	}
	having := podsThat(o, func(p *corev1.Pod) bool {
		if own := p.Spec.AutomountServiceAccountToken; own != nil {
			return *own
		}
		return !withheld[p.Namespace+"/"+p.Spec.ServiceAccountName]
	})
	switch {
	case len(having) > 0:
		return decide(fmt.Sprintf("%d of %s have a token: %s", len(having), count(len(o.Pods), "pod"), few(having)))
	case len(o.Pods) == 0:
		return decide("there are no pods")
	}
	return pass("none of " + count(len(o.Pods), "pod") + " has a token")
}

// superusers names the bindings; certificates cannot be seen.
func superusers(_ *Node, o *Objects) finding {
	var names []string
	for _, g := range o.grants(func(_, _ string, _ []rbacv1.PolicyRule) bool { return true }) {
		if g.subject == rbacv1.GroupKind+" system:masters" {
			names = append(names, g.binding)
		}
	}
	slices.Sort(names)
	return decide("the group has what these give: " + few(names) + "; lite has two certificates of it, admin and lite; who else was given one cannot be seen")
}

// isolated judges whether every namespace has a policy.
func isolated(_ *Node, o *Objects) finding {
	has := map[string]bool{}
	for _, p := range o.Policies {
		has[p.Namespace] = true
	}
	var without []string
	for _, ns := range o.Namespaces {
		if !has[ns.Name] {
			without = append(without, ns.Name)
		}
	}
	if len(without) > 0 {
		slices.Sort(without)
		return decide("no NetworkPolicy in: " + few(without))
	}
	return pass("every namespace has one")
}

// enforcesPolicies is whether this node puts NetworkPolicies into force.
func enforcesPolicies(n *Node) finding {
	if n.Components == nil {
		return unknown(n.Stopped)
	}
	if _, there := n.Components[policyPart]; !there {
		return decide("lite's engine is disabled; whether your network plugin has one cannot be seen")
	}
	return pass("lite puts NetworkPolicies into force on every node")
}

// listPods lets a person decide, and names the pods that has selects.
func listPods(what string, has func(*corev1.Pod) bool) judge {
	return among(func(_ *Node, o *Objects) finding {
		doing := podsThat(o, has)
		seen := fmt.Sprintf("%d of %s %s", len(doing), count(len(o.Pods), "pod"), what)
		if len(doing) > 0 {
			seen += ": " + few(doing)
		}
		return decide(seen)
	})
}

func boundaries(_ *Node, o *Objects) finding {
	var names []string
	for _, ns := range o.Namespaces {
		if !slices.Contains(system, ns.Name) {
			names = append(names, ns.Name)
		}
	}
	slices.Sort(names)
	return decide(count(len(names), "namespace") + " of users: " + few(names))
}

// users judges how people may authenticate.
func users(_ *Node, a args) finding {
	var ways []string
	for name, what := range map[string]string{"oidc-issuer-url": "OIDC", "authentication-config": "authentication-config", "authentication-token-webhook-config-file": "a webhook"} {
		if value, _ := a.value(name); value != "" {
			ways = append(ways, what)
		}
	}
	slices.Sort(ways)
	if len(ways) == 0 {
		return decide("no OIDC, authentication-config or webhook is set up: people have certificates or tokens")
	}
	return decide("set up: " + strings.Join(ways, ", "))
}
