package policy

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// direction is one of the two in which a pod can be isolated.
type direction int

const (
	ingress direction = iota
	egress
)

func (d direction) String() string { return [...]string{"ingress", "egress"}[d] }

// peer is the field of a packet with the address of the other side.
func (d direction) peer() string { return [...]string{"saddr", "daddr"}[d] }

// pod is the field with the address of the pod that is isolated.
func (d direction) pod() string { return [...]string{"daddr", "saddr"}[d] }

// family is an address family as nft writes it.
type family struct {
	name, number string // "ip", "4"
	any          string // matches every packet of the family
}

func families(ranges []netip.Prefix) []family {
	var all []family
	for _, f := range []family{{"ip", "4", "meta nfproto ipv4"}, {"ip6", "6", "meta nfproto ipv6"}} {
		if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return f.has(p.Addr()) }) {
			all = append(all, f)
		}
	}
	return all
}

func (f family) has(a netip.Addr) bool { return a.Is4() == (f.number == "4") }
func (f family) addressType() string   { return "ipv" + f.number + "_addr" }

// selector selects pods, wherever they run.
type selector struct {
	namespace  string          // their namespace, unless namespaces is set
	namespaces labels.Selector // of the labels of their namespace
	pods       labels.Selector
}

// String names the same pods by the same text and others by another.
func (s selector) String() string {
	text := "pods " + s.pods.String()
	if s.pods.Empty() {
		text = "all pods"
	}
	switch {
	case s.namespaces == nil:
		return text + " of namespace " + s.namespace
	case s.namespaces.Empty():
		return text + " of all namespaces"
	}
	return text + " of namespaces " + s.namespaces.String()
}

// namedPort is a port that every pod may have under another number.
type namedPort struct {
	name     string
	protocol string
}

// group is a set of the packet filter that the rules of one or more policies look
// up: the addresses of pods or, with a port, addresses with the number that the
// port has there.
type group struct {
	name string // without the number of the family
	selector
	port    namedPort // its name is "" for addresses
	comment string
}

func newGroup(s selector, port namedPort) *group {
	kind, comment := "pods", s.String()
	if port.name != "" {
		kind, comment = "ports", fmt.Sprintf("%s port %s of %s", port.protocol, port.name, s)
	}
	return &group{name: kind + "-" + hash(comment), selector: s, port: port, comment: comment}
}

func (g *group) set(f family) string { return strings.Replace(g.name, "-", f.number+"-", 1) }

// hash makes a short name of a long text. 48 bits: among 10,000 texts two are
// alike once in five million clusters.
func hash(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:12] }

// policy is a NetworkPolicy in the form of the packet filter.
type policy struct {
	key      string // namespace/name
	selector        // the pods that it is about
	isolates [2]bool
	rules    [2][]string
	groups   []*group // that the rules look up
}

func (p *policy) chain(d direction) string { return d.String() + "-policy-" + hash(p.key) }

// compile translates a policy. The API server has validated it; an invalid selector selects
// no pods.
func compile(np *networkingv1.NetworkPolicy, fs []family) *policy {
	c := compiler{families: fs, policy: &policy{
		key:      np.Namespace + "/" + np.Name,
		selector: selector{namespace: np.Namespace, pods: parse(&np.Spec.PodSelector)},
	}}
	c.isolates[ingress] = len(np.Spec.PolicyTypes) == 0 || slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	c.isolates[egress] = len(np.Spec.PolicyTypes) == 0 && len(np.Spec.Egress) > 0 ||
		slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	if c.isolates[ingress] {
		for _, r := range np.Spec.Ingress {
			c.add(ingress, r.From, r.Ports)
		}
	}
	if c.isolates[egress] {
		for _, r := range np.Spec.Egress {
			c.add(egress, r.To, r.Ports)
		}
	}
	return c.policy
}

func parse(s *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

type compiler struct {
	*policy
	families []family
}

// match is what a rule demands of the other side.
type match struct {
	text   string
	family *family   // the only one that the text fits; nil for both
	pods   *selector // the pods that it selects
}

// add appends the rules that let through what one rule of the API allows: each
// match of peers with each of ports.
func (c *compiler) add(d direction, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	numbered, named := splitPorts(ports)
	for _, m := range c.peers(d, peers) {
		for _, port := range numbered {
			c.accept(d, m.text, port)
		}
		for _, port := range named {
			c.acceptNamed(d, m, port)
		}
	}
}

func (c *compiler) accept(d direction, matches ...string) {
	matches = slices.DeleteFunc(append(matches, "accept"), func(s string) bool { return s == "" })
	c.rules[d] = append(c.rules[d], strings.Join(matches, " "))
}

// acceptNamed lets through what goes to a port that has a name on the pod that it
// belongs to: the policy's own for ingress, the other for egress.
func (c *compiler) acceptNamed(d direction, m match, port namedPort) {
	target, text := c.selector, m.text
	if d == egress {
		target = selector{namespaces: labels.Everything(), pods: labels.Everything()}
		if m.pods != nil {
			target, text = *m.pods, "" // the set has these pods only
		}
	}
	for _, f := range c.families {
		if m.family == nil || *m.family == f {
			c.accept(d, text, fmt.Sprintf("%s daddr . meta l4proto . th dport @%s", f.name, c.group(target, port).set(f)))
		}
	}
}

func (c *compiler) group(s selector, port namedPort) *group {
	g := newGroup(s, port)
	if !slices.ContainsFunc(c.groups, func(other *group) bool { return other.name == g.name }) {
		c.groups = append(c.groups, g)
	}
	return g
}

// peers are the matches of a list of peers; without a list, everybody matches.
func (c *compiler) peers(d direction, peers []networkingv1.NetworkPolicyPeer) []match {
	if len(peers) == 0 {
		return []match{{}}
	}
	var all []match
	plain := map[family][]netip.Prefix{}
	for _, p := range peers {
		if p.IPBlock == nil {
			s := c.selected(p)
			for _, f := range c.families {
				text := fmt.Sprintf("%s %s @%s", f.name, d.peer(), c.group(s, namedPort{}).set(f))
				all = append(all, match{text, &f, &s})
			}
			continue
		}
		block, err := netip.ParsePrefix(p.IPBlock.CIDR)
		if err != nil {
			continue
		}
		for _, f := range c.families {
			switch {
			case !f.has(block.Addr()):
			case len(p.IPBlock.Except) == 0:
				plain[f] = append(plain[f], block.Masked())
			default:
				all = append(all, match{text: blockExcept(f, d, block.Masked(), p.IPBlock.Except), family: &f})
			}
		}
	}
	for _, f := range c.families {
		if blocks := disjoint(plain[f]); len(blocks) > 0 {
			all = append(all, match{text: within(f, d, blocks), family: &f})
		}
	}
	return all
}

// selected is the pods that a peer other than an ipBlock selects: without a
// namespaceSelector those of the policy's namespace, without a podSelector all.
func (c *compiler) selected(p networkingv1.NetworkPolicyPeer) selector {
	s := selector{namespace: c.namespace, pods: labels.Everything()}
	if p.NamespaceSelector != nil {
		s.namespace, s.namespaces = "", parse(p.NamespaceSelector)
	}
	if p.PodSelector != nil {
		s.pods = parse(p.PodSelector)
	}
	return s
}

func within(f family, d direction, blocks []netip.Prefix) string {
	if blocks[0].Bits() == 0 {
		return f.any
	}
	return fmt.Sprintf("%s %s %s", f.name, d.peer(), braces(blocks))
}

func blockExcept(f family, d direction, block netip.Prefix, except []string) string {
	var holes []netip.Prefix
	for _, text := range except {
		if p, err := netip.ParsePrefix(text); err == nil && f.has(p.Addr()) {
			holes = append(holes, p.Masked())
		}
	}
	in := within(f, d, []netip.Prefix{block})
	if len(holes) == 0 {
		return in
	}
	return fmt.Sprintf("%s %s %s != %s", in, f.name, d.peer(), braces(disjoint(holes)))
}

// disjoint sorts prefixes and leaves out those within others, which a set of
// intervals may not have.
func disjoint(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})
	var all []netip.Prefix
	for _, p := range prefixes {
		if len(all) == 0 || !all[len(all)-1].Overlaps(p) {
			all = append(all, p)
		}
	}
	return all
}

// span is a range of ports, both ends included.
type span struct{ first, last int }

func (s span) String() string {
	if s.first == s.last {
		return strconv.Itoa(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

// splitPorts returns the matches of ports that have numbers, and those that have names.
// Without a list, every port of every protocol matches.
func splitPorts(ports []networkingv1.NetworkPolicyPort) (numbered []string, named []namedPort) {
	if len(ports) == 0 {
		return []string{""}, nil
	}
	spans, whole := map[string][]span{}, map[string]bool{}
	for _, p := range ports {
		protocol := "tcp"
		if p.Protocol != nil {
			protocol = strings.ToLower(string(*p.Protocol))
		}
		switch {
		case p.Port == nil:
			whole[protocol] = true
		case p.Port.Type == intstr.String:
			named = append(named, namedPort{p.Port.StrVal, protocol})
		default:
			s := span{p.Port.IntValue(), p.Port.IntValue()}
			if p.EndPort != nil {
				s.last = int(*p.EndPort)
			}
			spans[protocol] = append(spans[protocol], s)
		}
	}
	for _, p := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP} {
		protocol := strings.ToLower(string(p))
		switch {
		case whole[protocol]:
			numbered = append(numbered, "meta l4proto "+protocol)
		case len(spans[protocol]) > 0:
			numbered = append(numbered, fmt.Sprintf("%s dport %s", protocol, braces(merged(spans[protocol]))))
		}
	}
	return numbered, named
}

// merged joins spans that touch or overlap, which a set of intervals may not have.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.first - b.first })
	all := spans[:1]
	for _, s := range spans[1:] {
		if last := &all[len(all)-1]; s.first <= last.last+1 {
			last.last = max(last.last, s.last)
		} else {
			all = append(all, s)
		}
	}
	return all
}

func braces[T fmt.Stringer](items []T) string {
	var texts []string
	for _, i := range items {
		texts = append(texts, i.String())
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}
