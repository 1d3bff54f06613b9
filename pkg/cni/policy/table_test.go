package policy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lite.io/lite/pkg/layout"
)

// kernel is a packet filter of the real kernel, in a separate network namespace: the
// goroutine's thread, and what it starts, is in it until the test ends.
func kernel(t testing.TB, fs []family) *table {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a network namespace")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs the program nft")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() })
	tab, err := openTable(fs)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func ruleset(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func intact(t testing.TB, tab *table, f *filter) (bool, error) {
	rules, elements := f.size()
	return tab.intact(t.Context(), rules, elements)
}

// TestKernel lets the kernel judge every form of rule and element, in differences
// and afresh.
func TestKernel(t *testing.T) {
	tab, f := kernel(t, both), newFilter(both)
	write := func(what string) {
		t.Helper()
		if err := tab.write(t.Context(), f.next()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if tab.right == 0 {
			t.Error("the generation of the packet filter is not known")
		}
		tab.right = 0 // so that it looks
		if intact, err := intact(t, tab, f); err != nil || !intact {
			t.Errorf("%s: intact: %t, %v", what, intact, err)
		}
	}
	f.setNamespace("shop", labels.Set{"team": "a"})
	f.setNode("node", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")})
	web := newPod("shop", "web", "app=web", "10.42.0.2", "fd42::2")
	web.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	f.setPod(web)
	specs := []string{
		`{podSelector: {}}`,
		`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`,
		`{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}, {namespaceSelector: {matchLabels: {team: a}}}], ports: [{port: 80}, {port: http}, {port: 1, endPort: 65535, protocol: UDP}, {protocol: SCTP}]}]}`,
		`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 10.1.0.0/16]}}, {ipBlock: {cidr: "::/0"}}, {ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.0.0.0/16}}]}]}`,
		`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web, db]}]}}], ports: [{port: http}]}]}`,
	}
	for i, spec := range specs {
		f.setPolicy(newPolicy(t, "shop", fmt.Sprintf("p%d", i), spec))
		write(spec)
	}
	for _, want := range []string{"shop/p1", "shop/web", "10.42.0.2 . tcp . 8080", "all pods of namespace shop"} {
		if !strings.Contains(ruleset(t), want) {
			t.Errorf("%q is not among the rules:\n%s", want, ruleset(t))
		}
	}
	web = web.DeepCopy()
	web.Labels = map[string]string{"app": "other"}
	f.setPod(web)
	write("other labels")
	f.deletePod("shop/web")
	write("no pod")
	f.setPod(web)
	f.startOver()
	write("afresh")
	for what, command := range map[string]string{
		"map ingress4":     "flush map inet lite-policy ingress4",
		"set nodes4":       "flush set inet lite-policy nodes4",
		"an element added": "add element inet lite-policy nodes4 { 192.0.2.99 }",
	} {
		if out, err := exec.Command("nft", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if intact, err := intact(t, tab, f); err != nil || intact {
			t.Errorf("%s: intact: %t, %v", what, intact, err)
		}
		f.startOver()
		write(what)
	}
	for i := range specs {
		f.deletePolicy(fmt.Sprintf("shop/p%d", i))
		write("one policy less")
	}

	if out, err := exec.Command("nft", "flush", "chain", "inet", layout.PolicyTable, "ingress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if intact, err := intact(t, tab, f); err != nil || intact {
		t.Errorf("a chain was flushed: intact: %t, %v", intact, err)
	}
	for range 2 { // the second time there is none
		if err := Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if intact, err := intact(t, tab, f); err != nil || intact {
		t.Errorf("the table was removed: intact: %t, %v", intact, err)
	}
	if rules := ruleset(t); rules != "" {
		t.Errorf("left is\n%s", rules)
	}
}

// In a busy cluster something changes all the time, and the table is looked after
// none the less.
func TestChecksWhileThingsChange(t *testing.T) {
	p := New(Config{})
	p.filter = newFilter(only4)
	p.filter.setPolicy(newPolicy(t, "a", "p", fromWeb))
	e := &enforcer{Policy: p, table: kernel(t, only4), stop: func() {}}
	step := func() {
		p.notify() // or it would wait
		e.step(t.Context())
	}
	step()
	if err := Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.checked = e.checked.Add(-checkEvery)
	for range 100 { // whether it looks or hears of a change is up to chance, each time
		step()
	}
	if !strings.Contains(ruleset(t), "a/p") {
		t.Error("the table is not put back")
	}
}

func TestRemoveWithoutNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Remove(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := openTable(only4); err == nil || !strings.Contains(err.Error(), "CONFIG_NF_TABLES") {
		t.Errorf("got %v", err)
	}
}

// big is 1,000 pods of 20 namespaces with 10 policies each. Every policy selects a tenth of
// the pods of its namespace, and admits pods of the same and of another namespace.
func big(t testing.TB) *filter {
	f := newFilter(only4)
	addr := range4.Addr()
	for n := range 20 {
		namespace := fmt.Sprintf("team-%d", n)
		f.setNamespace(namespace, labels.Set{"team": fmt.Sprint(n)})
		for i := range 10 {
			f.setPolicy(newPolicy(t, namespace, fmt.Sprintf("policy-%d", i), fmt.Sprintf(`
podSelector: {matchLabels: {app: "%d"}}
policyTypes: [Ingress, Egress]
ingress:
- from: [{podSelector: {matchLabels: {app: "%d"}}}, {namespaceSelector: {matchLabels: {team: "%d"}}}]
  ports: [{port: 80}, {port: http}]
- from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.1/32]}}]
egress:
- to: [{podSelector: {}}]
- ports: [{port: 53, protocol: UDP}]
`, i, (i+1)%10, (n+1)%20)))
		}
		for i := range 50 {
			addr = addr.Next()
			p := newPod(namespace, fmt.Sprintf("pod-%d", i), fmt.Sprintf("app=%d,rest=x", i%10), addr.String())
			p.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
			f.setPod(p)
		}
	}
	return f
}

// A pod more, a pod less and a pod with other labels change a few elements, of
// thousands.
func TestOnePodChangesLittle(t *testing.T) {
	b := newBed(only4)
	b.filter = big(t)
	first := b.write(t)
	t.Logf("at first %d sets, %d chains, %d elements", len(first.newSets), len(first.newChains), len(first.add))
	young := newPod("team-0", "young", "app=0", "10.42.200.1")
	other := young.DeepCopy()
	other.Labels["app"] = "1"
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"a pod more", func() { b.setPod(young) }},
		{"other labels", func() { b.setPod(other) }},
		{"a pod less", func() { b.deletePod("team-0/young") }},
	} {
		step.change()
		what, c := step.what, b.write(t)
		if n := len(c.add) + len(c.remove); c.fresh || n > 20 || len(c.newSets)+len(c.newChains)+len(c.goneChains)+len(c.goneSets) > 0 {
			t.Errorf("%s: %d elements change, and %+v", what, n, c)
		}
	}
}

// BenchmarkFirst writes all of it to the kernel, as at the start of a node.
func BenchmarkFirst(b *testing.B) {
	tab, f := kernel(b, only4), big(b)
	for b.Loop() {
		f.startOver()
		if err := tab.write(b.Context(), f.next()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPod adds a pod among the others, or takes it away.
func BenchmarkPod(b *testing.B) {
	tab, f := kernel(b, only4), big(b)
	if err := tab.write(b.Context(), f.next()); err != nil {
		b.Fatal(err)
	}
	elements, writes := 0, 0
	for b.Loop() {
		if writes++; writes%2 == 1 {
			f.setPod(newPod("team-0", "young", "app=0", "10.42.200.1"))
		} else {
			f.deletePod("team-0/young")
		}
		c := f.next()
		elements += len(c.add) + len(c.remove)
		if err := tab.write(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(elements)/float64(writes), "elements/op")
}

// BenchmarkPolicy changes one policy.
func BenchmarkPolicy(b *testing.B) {
	tab, f := kernel(b, only4), big(b)
	if err := tab.write(b.Context(), f.next()); err != nil {
		b.Fatal(err)
	}
	specs := []string{`{podSelector: {}}`, fromWeb}
	for n := 0; b.Loop(); n++ {
		f.setPolicy(newPolicy(b, "team-0", "policy-0", specs[n%2]))
		if err := tab.write(b.Context(), f.next()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck looks whether the table is as it was written, after somebody has
// changed another.
func BenchmarkCheck(b *testing.B) {
	tab, f := kernel(b, only4), big(b)
	if err := tab.write(b.Context(), f.next()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		tab.right = 0
		if intact, err := intact(b, tab, f); err != nil || !intact {
			b.Fatal(intact, err)
		}
	}
}
