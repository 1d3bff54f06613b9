package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"lite.io/lite/tests/golden"
)

var (
	range4 = netip.MustParsePrefix("10.42.0.0/16")
	range6 = netip.MustParsePrefix("fd42::/56")
	only4  = families([]netip.Prefix{range4})
	both   = families([]netip.Prefix{range4, range6})
)

func newPolicy(t testing.TB, namespace, name, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return np
}

// TestRules shows the rules for every field of a policy.
func TestRules(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct {
		families []family
		spec     string
	}{
		{only4, `{podSelector: {}}`},
		{only4, `{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}`},
		{only4, `{podSelector: {}, egress: [{}]}`},
		{only4, `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`},
		{only4, `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {namespaceSelector: {matchLabels: {team: a}}, podSelector: {}}]}]}`},
		{both, `{podSelector: {}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: "fd00::/8"}}]}]}`},
		{only4, `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}, {ipBlock: {cidr: 10.9.0.0/16}}, {ipBlock: {cidr: 192.0.2.1/32}}]}]}`},
		{both, `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0", except: ["fd00::/8"]}}]}]}`},
		{only4, `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "fd00::/8"}}]}]}`},
		{only4, `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24, 10.3.0.0/16]}}], ports: [{port: 443}]}]}`},
		{only4, `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 443}, {port: 53, protocol: UDP}, {port: 9, protocol: SCTP}]}]}`},
		{only4, `{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 9000}, {port: 8080}, {port: 9001}, {port: 80}]}]}`},
		{only4, `{podSelector: {}, ingress: [{ports: [{protocol: TCP}, {port: 80}, {protocol: UDP}]}]}`},
		{both, `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}, {ports: [{port: http}]}]}`},
		{only4, `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}, {port: dns, protocol: UDP}]}, {ports: [{port: http}]}]}`},
	} {
		p := compile(newPolicy(t, "shop", "p", test.spec), test.families)
		fmt.Fprintln(&b, test.spec)
		for _, d := range []direction{ingress, egress} {
			if !p.isolates[d] {
				continue
			}
			fmt.Fprintf(&b, "  %s\n", d)
			for _, rule := range p.rules[d] {
				fmt.Fprintf(&b, "    %s\n", rule)
			}
		}
		for _, g := range p.groups {
			fmt.Fprintf(&b, "  %s: %s\n", g.name, g.comment)
		}
	}
	golden.Check(t, "rules", b.String())
}

// A selector that means the same makes the same set, in whatever order it is
// written, and one of another namespace makes another.
func TestGroupsAreShared(t *testing.T) {
	name := func(namespace, peer string) string {
		p := compile(newPolicy(t, namespace, "p", `{podSelector: {}, ingress: [{from: [`+peer+`]}]}`), only4)
		return p.groups[0].name
	}
	one := name("a", `{podSelector: {matchExpressions: [{key: x, operator: In, values: [p, q]}, {key: w, operator: Exists}]}}`)
	if same := name("a", `{podSelector: {matchExpressions: [{key: w, operator: Exists}, {key: x, operator: In, values: [q, p]}]}}`); same != one {
		t.Errorf("%s and %s", one, same)
	}
	var all []string
	for _, namespace := range []string{"a", "b"} {
		for _, peer := range []string{`{podSelector: {}}`, `{podSelector: {matchLabels: {x: p}}}`} {
			all = append(all, name(namespace, peer))
		}
	}
	all = append(all, name("a", `{namespaceSelector: {}}`), name("a", `{namespaceSelector: {matchLabels: {a: ""}}}`))
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != 6 {
		t.Errorf("some of %v are the same", all)
	}
	if name("a", `{namespaceSelector: {}}`) != name("b", `{namespaceSelector: {}, podSelector: {}}`) {
		t.Error("all pods are not all pods")
	}
}

// What the API server would have refused stands for nobody, and breaks nothing.
func TestInvalidSelectorsMatchNothing(t *testing.T) {
	p := compile(newPolicy(t, "a", "p", `{podSelector: {matchExpressions: [{key: x, operator: Sometimes}]}, ingress: [{from: [{ipBlock: {cidr: nonsense}}]}]}`), only4)
	if p.pods.Matches(labels.Set{}) || len(p.rules[ingress]) != 0 {
		t.Errorf("got %v, %v", p.selector, p.rules)
	}
}
