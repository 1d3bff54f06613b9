package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/knftables"

	"lite.io/lite/pkg/layout"
)

// bed is a filter and a packet filter to which its changes are written.
type bed struct {
	*filter
	fake  *knftables.Fake
	table *table
}

func newBed(fs []family) *bed {
	fake := knftables.NewFake(knftables.InetFamily, layout.PolicyTable)
	return &bed{newFilter(fs), fake, &table{nft: fake, families: fs}}
}

// write hands the next changes to the packet filter.
func (b *bed) write(t testing.TB) changes {
	t.Helper()
	c := b.next()
	if err := b.table.write(t.Context(), c); err != nil {
		t.Fatalf("%v\n%+v", err, c)
	}
	return c
}

func (b *bed) dump() []string {
	lines := strings.Split(strings.TrimSpace(b.fake.Dump()), "\n")
	slices.Sort(lines)
	return lines
}

func newPod(namespace, name, labelled string, ips ...string) *v1.Pod {
	l, err := labels.ConvertSelectorToLabelsMap(labelled)
	if err != nil {
		panic(err)
	}
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name), Labels: l}}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, v1.PodIP{IP: ip})
	}
	return p
}

// elements are those of a set or map, as "key" or "key: verdict".
func (b *bed) elements(t testing.TB, name string) string {
	t.Helper()
	var texts []string
	kind := "set"
	if b.fake.Table.Maps[name] != nil {
		kind = "map"
	}
	all, err := b.fake.ListElements(t.Context(), kind, name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, e := range all {
		texts = append(texts, strings.Join(e.Key, " . "))
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

const fromWeb = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`

func TestOnlySelectedPodsAreIsolated(t *testing.T) {
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", fromWeb))
	b.setPod(newPod("a", "db", "app=db", "10.42.0.2"))
	b.setPod(newPod("a", "web", "app=web", "10.42.0.3"))
	b.setPod(newPod("b", "db", "app=db", "10.42.0.4"))
	b.write(t)
	for set, want := range map[string]string{
		"ingress4": "10.42.0.2", "egress4": "", "self4": "10.42.0.2 . 10.42.0.2",
		newGroup(selector{namespace: "a", pods: labels.SelectorFromSet(labels.Set{"app": "web"})}, namedPort{}).set(only4[0]): "10.42.0.3",
	} {
		if got := b.elements(t, set); got != want {
			t.Errorf("%s holds %q, want %q", set, got, want)
		}
	}
}

// Pods that have ended, that have no address yet, and those in the network of
// their node are in no set.
func TestWhoHasNoAddressOfItsOwn(t *testing.T) {
	ended, host := newPod("a", "ended", "app=db", "10.42.0.5"), newPod("a", "host", "app=db", "192.0.2.1")
	ended.Status.Phase = v1.PodSucceeded
	host.Spec.HostNetwork = true
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", fromWeb))
	for _, p := range []*v1.Pod{ended, host, newPod("a", "young", "app=db")} {
		b.setPod(p)
	}
	b.write(t)
	if got := b.elements(t, "ingress4"); got != "" {
		t.Errorf("isolated are %q", got)
	}
}

// Of two pods that are reported to have an address, the one that runs has it.
func TestAddressChangesHands(t *testing.T) {
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", fromWeb))
	web := "pods4-" + strings.TrimPrefix(newGroup(selector{namespace: "a", pods: labels.SelectorFromSet(labels.Set{"app": "web"})}, namedPort{}).name, "pods-")
	old := newPod("a", "old", "app=web", "10.42.0.2")
	b.setPod(old)
	b.write(t)
	now := metav1.NewTime(time.Unix(1000, 0))
	old = old.DeepCopy()
	old.DeletionTimestamp = &now
	b.setPod(old)
	b.setPod(newPod("a", "new", "app=db", "10.42.0.2"))
	b.write(t)
	if got, peers := b.elements(t, "ingress4"), b.elements(t, web); got != "10.42.0.2" || peers != "" {
		t.Errorf("isolated %q, peers %q: the address is still the old pod's", got, peers)
	}
	b.deletePod("a/old")
	b.write(t)
	if got := b.elements(t, "ingress4"); got != "10.42.0.2" {
		t.Errorf("isolated are %q after the old pod is gone", got)
	}
	b.deletePod("a/new")
	b.write(t)
	if got := b.elements(t, "ingress4"); got != "" || len(b.claims) != 0 {
		t.Errorf("left are %q, %v", got, b.claims)
	}
}

// A pod was no longer isolated, nor a peer of others, when a compromised node reported that
// a newer pod of its own had the address.
func TestANodeTakesNoAddressOfOthersPods(t *testing.T) {
	for _, first := range []string{"nodes", "pods"} {
		b := newBed(only4)
		b.setNamespace("a", nil)
		b.setNamespace("b", nil)
		b.setPolicy(newPolicy(t, "a", "p", fromWeb))
		set := map[string]func(){"nodes": func() {
			b.setNode("h2", nil, netip.MustParsePrefix("10.42.1.0/24"))
			b.setNode("h3", nil, netip.MustParsePrefix("10.42.2.0/24"))
		}, "pods": func() {
			own, liar := newPod("a", "own", "app=db", "10.42.2.2"), newPod("b", "liar", "app=x", "10.42.2.2")
			own.Spec.NodeName, liar.Spec.NodeName = "h3", "h2"
			liar.CreationTimestamp = metav1.NewTime(time.Unix(1e9, 0))
			b.setPod(own)
			b.setPod(liar)
		}}
		set[first]()
		b.write(t)
		delete(set, first)
		for _, rest := range set {
			rest()
		}
		b.write(t)
		if got := b.elements(t, "ingress4"); got != "10.42.2.2" {
			t.Errorf("%s first: isolated is %q", first, got)
		}
		// The cluster gives the range to another node.
		b.deleteNode("h3")
		b.setNode("h2", nil, netip.MustParsePrefix("10.42.2.0/24"))
		b.write(t)
		if got := b.elements(t, "ingress4"); got != "" {
			t.Errorf("%s first: isolated is %q, although the pod is another's", first, got)
		}
	}
}

// What the container runtime reports counts as long as the sandbox exists.
func TestEarlyAddresses(t *testing.T) {
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", fromWeb))
	addr := netip.MustParseAddr("10.42.0.2")
	b.setEarly("adb", sandbox{"1", []netip.Addr{addr}}) // before the API delivers the pod
	b.setPod(newPod("a", "db", "app=db"))
	b.write(t)
	if got := b.elements(t, "ingress4"); got != "10.42.0.2" {
		t.Errorf("isolated are %q", got)
	}
	b.setPod(newPod("a", "db", "app=db", "10.42.0.2"))
	if c := b.write(t); !c.empty() {
		t.Errorf("the API says the same, but %+v, %v", c, b.early)
	}
	b.setEarly("adb", sandbox{"2", []netip.Addr{netip.MustParseAddr("10.42.0.9")}}) // a recreated sandbox
	b.setPod(newPod("a", "db", "app=db", "10.42.0.2"))
	b.setEarly("adb", sandbox{id: "1"}) // the end of the first is reported late
	b.write(t)
	if got := b.elements(t, "ingress4"); got != "10.42.0.2, 10.42.0.9" {
		t.Errorf("isolated are %q", got)
	}
	b.setEarly("adb", sandbox{id: "2"})
	b.write(t)
	if got := b.elements(t, "ingress4"); got != "10.42.0.2" {
		t.Errorf("isolated are %q", got)
	}
	b.deletePod("a/db")
	if b.write(t); len(b.early)+len(b.claims) != 0 {
		t.Errorf("left are %v, %v", b.early, b.claims)
	}
}

// A reboot gives the pods of a node other addresses, each one that another pod had. The API
// keeps reporting the old ones for a while.
func TestAddressesChangeHandsAtReboot(t *testing.T) {
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", fromWeb))
	db, web := newPod("a", "db", "app=db", "10.42.0.2"), newPod("a", "web", "app=web", "10.42.0.3")
	web.CreationTimestamp = metav1.NewTime(time.Unix(1, 0)) // it is the younger one
	b.setPod(db)
	b.setPod(web)
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"the first sandbox", func() { b.setEarly("adb", sandbox{"1", []netip.Addr{netip.MustParseAddr("10.42.0.3")}}) }},
		{"the second sandbox", func() { b.setEarly("aweb", sandbox{"2", []netip.Addr{netip.MustParseAddr("10.42.0.2")}}) }},
		{"the API tells of one", func() { b.setPod(newPod("a", "db", "app=db", "10.42.0.3")) }},
	} {
		step.change()
		b.write(t)
		if got := b.elements(t, "ingress4"); !strings.Contains(got, "10.42.0.3") {
			t.Errorf("%s: isolated are %q", step.what, got)
		}
	}
}

// A pod of a namespace of which nothing is known yet is nobody's peer.
func TestUnknownNamespace(t *testing.T) {
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [evil]}]}}]}]}`))
	b.setPod(newPod("new", "x", "", "10.42.0.7"))
	b.write(t)
	var set string
	for _, g := range b.groups {
		set = g.set(only4[0])
	}
	if got := b.elements(t, set); got != "" {
		t.Errorf("peers are %q", got)
	}
	b.setNamespace("new", labels.Set{"team": "good"})
	b.write(t)
	if got := b.elements(t, set); got != "10.42.0.7" {
		t.Errorf("peers are %q", got)
	}
}

// TestChangesAreDifferences makes changes at random. Writing each difference must
// lead to what writing all of it afresh does, and to nothing more.
func TestChangesAreDifferences(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			b := newBed(both)
			for range 60 {
				for range 1 + random.IntN(4) {
					b.disturb(t, random)
				}
				b.write(t)
				afresh := newBed(both)
				afresh.filter.policies, afresh.namespaces, afresh.nodes, afresh.early = b.policies, b.namespaces, b.nodes, b.early
				for _, key := range slices.Sorted(maps.Keys(b.pods)) {
					afresh.setPod(b.pods[key].object)
				}
				afresh.write(t)
				if got, want := b.dump(), afresh.dump(); !slices.Equal(got, want) {
					t.Fatalf("differs:\n%s", differences(got, want))
				}
				if c := b.next(); !c.empty() {
					t.Fatalf("changes without a reason: %+v", c)
				}
			}
		})
	}
}

func differences(got, want []string) string {
	var b strings.Builder
	for _, line := range got {
		if !slices.Contains(want, line) {
			fmt.Fprintln(&b, "too much:", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			fmt.Fprintln(&b, "missing:", line)
		}
	}
	return b.String()
}

// disturb changes one thing of a small cluster.
func (b *bed) disturb(t *testing.T, random *rand.Rand) {
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	namespace, name := pick("a", "b"), pick("p", "q", "r")
	switch random.IntN(9) {
	case 0, 1:
		b.setPolicy(newPolicy(t, namespace, name, pick(
			fromWeb, `{podSelector: {}}`, `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
			`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: x}}}], ports: [{port: http}, {port: 80}]}]}`,
			`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}, namespaceSelector: {}}], ports: [{port: http}]}]}`,
			`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.42.0.1/32]}}]}]}`)))
	case 2:
		b.deletePolicy(namespace + "/" + name)
	case 3:
		b.setNamespace(namespace, labels.Set{"team": pick("x", "y")})
	case 4:
		b.setNode(name, []netip.Addr{netip.MustParseAddr("192.0.2." + pick("1", "2", "3"))})
	case 5:
		b.deletePod(namespace + "/" + name)
	case 6:
		s := sandbox{id: pick("1", "2")}
		if random.IntN(3) > 0 {
			s.addrs = []netip.Addr{netip.MustParseAddr("10.42.0." + pick("2", "3", "4"))}
		}
		b.setEarly(types.UID(namespace+name+pick("", "2")), s)
	default:
		p := newPod(namespace, name, pick("app=web", "app=db", ""))
		p.UID += types.UID(pick("", "2"))
		p.CreationTimestamp = metav1.NewTime(time.Unix(int64(random.IntN(3)), 0))
		if ip := pick("", "2", "3", "4", "5"); ip != "" { // few, so that they change hands
			p.Status.PodIPs = []v1.PodIP{{IP: "10.42.0." + ip}, {IP: "fd42::" + ip}}
		}
		p.Status.Phase = v1.PodPhase(pick("Running", "Running", "Failed"))
		if random.IntN(4) == 0 {
			now := metav1.Now()
			p.DeletionTimestamp = &now
		}
		p.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8000 + int32(len(p.UID))}}}}
		b.setPod(p)
	}
}

// After a failed write the next one replaces everything.
func TestStartOver(t *testing.T) {
	b := newBed(only4)
	b.setNamespace("a", nil)
	b.setPolicy(newPolicy(t, "a", "p", fromWeb))
	b.setPod(newPod("a", "db", "app=db", "10.42.0.2"))
	b.write(t)
	want := b.dump()
	b.next() // lost
	b.startOver()
	if c := b.write(t); !c.fresh {
		t.Error("the table was not replaced")
	}
	if got := b.dump(); !slices.Equal(got, want) {
		t.Errorf("differs:\n%s", differences(got, want))
	}
}
