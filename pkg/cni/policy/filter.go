package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// filter is what the packet filter should hold, and what of it has been handed
// out already. It touches nothing.
//
// Each address belongs to one pod, so each element of a set or map comes from one
// pod, and what changes with a pod is the difference of its elements before and
// after.
type filter struct {
	families []family

	policies   map[string]*policy // by namespace/name
	namespaces map[string]labels.Set
	pods       map[string]*pod         // by namespace/name
	claims     map[netip.Addr][]*pod   // all pods that are reported to have an address
	early      map[types.UID]sandbox   // of pods of this node, before the API knows
	nodes      map[string][]netip.Addr // of every node its own addresses
	ranges     map[string][]netip.Prefix
	groups     map[string]*group    // of all policies
	local      map[string][]*group  // those of one namespace, by it
	everywhere []*group             // the others
	applying   map[string][]*policy // by namespace, in the order of their keys

	dirty         map[*pod]bool
	policiesDirty bool
	nodesDirty    bool

	// Handed out:
	removed   []element // of pods that are gone
	nodeElems []element
	users     map[string]int    // of a chain that ends in drop: elements that lead to it
	stacks    map[string]*stack // these chains, by name
	sets      map[string]*group
	chains    map[string]chain
}

// pod is what is known of a pod.
type pod struct {
	key      string
	object   *v1.Pod
	addrs    []netip.Addr
	elements []element // handed out
}

// element is a key in a set or, with a verdict, in a map.
type element struct {
	set     string
	key     string // parts are separated by " . "
	verdict string
	comment string
}

// chain is a chain and what is in it.
type chain struct {
	comment string
	rules   []string
}

// stack is the chain that decides about pods to which the same policies apply.
type stack struct {
	chain
	name string
}

// changes is what leads from what was handed out to what should be.
type changes struct {
	fresh      bool // the kernel has nothing, or nobody knows what
	newSets    []set
	newChains  map[string]chain // those whose rules have changed, too
	remove     []element
	add        []element
	goneChains []string
	goneSets   []string
}

// set is a set of a group in one family.
type set struct {
	name, addressType, comment string
	ports                      bool
}

func (c *changes) empty() bool {
	return !c.fresh && len(c.newSets)+len(c.newChains)+len(c.remove)+len(c.add)+len(c.goneChains)+len(c.goneSets) == 0
}

func newFilter(fs []family) *filter {
	f := &filter{families: fs, policies: map[string]*policy{}}
	f.forget()
	return f
}

// forget drops all but the policies, as if nothing had been handed out.
func (f *filter) forget() {
	f.namespaces = map[string]labels.Set{}
	f.pods = map[string]*pod{}
	f.claims = map[netip.Addr][]*pod{}
	f.early = map[types.UID]sandbox{}
	f.nodes, f.ranges = map[string][]netip.Addr{}, map[string][]netip.Prefix{}
	f.startOver()
}

// startOver makes the next changes fresh.
func (f *filter) startOver() {
	f.dirty, f.removed, f.nodeElems = map[*pod]bool{}, nil, nil
	f.users, f.stacks = map[string]int{}, map[string]*stack{}
	f.sets, f.chains = map[string]*group{}, nil
	f.policiesDirty, f.nodesDirty = true, true
	for _, p := range f.pods {
		p.elements = nil
	}
}

func (f *filter) setPolicy(np *networkingv1.NetworkPolicy) {
	p := compile(np, f.families)
	f.policies[p.key], f.policiesDirty = p, true
}

func (f *filter) deletePolicy(key string) {
	delete(f.policies, key)
	f.policiesDirty = true
}

func (f *filter) setNamespace(name string, l labels.Set) {
	before, known := f.namespaces[name]
	f.namespaces[name] = l
	if !known || !maps.Equal(before, l) {
		f.touchNamespace(name)
	}
}

func (f *filter) deleteNamespace(name string) {
	delete(f.namespaces, name)
	f.touchNamespace(name)
}

func (f *filter) touchNamespace(name string) {
	for _, p := range f.pods {
		if p.object.Namespace == name {
			f.dirty[p] = true
		}
	}
}

// setNode sets a node's own addresses, and the ranges of its pods.
func (f *filter) setNode(name string, addrs []netip.Addr, ranges ...netip.Prefix) {
	if !slices.Equal(f.nodes[name], addrs) {
		f.nodes[name], f.nodesDirty = addrs, true
	}
	if !slices.Equal(f.ranges[name], ranges) {
		f.ranges[name] = ranges
		f.touchContested()
	}
}

func (f *filter) deleteNode(name string) {
	delete(f.nodes, name)
	delete(f.ranges, name)
	f.nodesDirty = true
	f.touchContested()
}

func (f *filter) touchContested() {
	for _, pods := range f.claims {
		if len(pods) > 1 {
			f.touch(pods)
		}
	}
}

func (f *filter) setPod(o *v1.Pod) {
	key := o.Namespace + "/" + o.Name
	p := f.pods[key]
	if p == nil {
		p = &pod{key: key}
		f.pods[key] = p
	} else if p.object.UID != o.UID {
		delete(f.early, p.object.UID)
	} else if same(p.object, o) {
		p.object = o
		return
	}
	p.object = o
	f.address(p)
}

// same reports whether two states of a pod are the same in all that matters here; most
// updates change other things.
func same(a, b *v1.Pod) bool {
	return a.Status.Phase == b.Status.Phase && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		labels.Equals(a.Labels, b.Labels) && slices.Equal(a.Status.PodIPs, b.Status.PodIPs)
}

func (f *filter) deletePod(key string) {
	p := f.pods[key]
	if p == nil {
		return
	}
	f.claim(p, nil)
	delete(f.pods, key)
	delete(f.early, p.object.UID)
	delete(f.dirty, p)
	f.removed = append(f.removed, p.elements...)
	f.release(p.elements)
}

// setEarly sets the addresses that the container runtime has given to a pod; none when the
// sandbox has ended. They count as long as the sandbox exists: the API may learn late that
// another pod no longer has them, as after a reboot, which reassigns all addresses.
func (f *filter) setEarly(uid types.UID, s sandbox) {
	switch {
	case len(s.addrs) > 0:
		f.early[uid] = s
	case f.early[uid].id == s.id:
		delete(f.early, uid)
	default:
		return // the pod has another one by now
	}
	for _, p := range f.pods {
		if p.object.UID == uid {
			f.address(p)
		}
	}
}

// address finds out the addresses of a pod. One that has ended has none, nor has one in the
// host network, which cannot be distinguished from its node.
func (f *filter) address(p *pod) {
	var addrs []netip.Addr
	if phase := p.object.Status.Phase; !p.object.Spec.HostNetwork && phase != v1.PodSucceeded && phase != v1.PodFailed {
		for _, ip := range p.object.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				addrs = append(addrs, a.Unmap())
			}
		}
		for _, a := range f.early[p.object.UID].addrs {
			if !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	f.claim(p, addrs)
	f.dirty[p] = true
}

// claim replaces the addresses of a pod. Another pod that is reported to have one of them
// may lose or win it.
func (f *filter) claim(p *pod, addrs []netip.Addr) {
	for _, a := range p.addrs {
		others := slices.DeleteFunc(f.claims[a], func(other *pod) bool { return other == p })
		f.claims[a] = others
		if len(others) == 0 {
			delete(f.claims, a)
		}
		f.touch(others)
	}
	p.addrs = addrs
	for _, a := range addrs {
		f.touch(f.claims[a])
		f.claims[a] = append(f.claims[a], p)
	}
}

func (f *filter) touch(pods []*pod) {
	for _, p := range pods {
		f.dirty[p] = true
	}
}

// owns decides between pods that are reported to have the same address: the kubelet reports
// a pod's end, and its new address, after the old one was reassigned. And a compromised
// node may report anything about its pods: it gets no address from pods of other nodes.
func (f *filter) owns(p *pod, a netip.Addr) bool {
	return p == slices.MinFunc(f.claims[a], func(x, y *pod) int {
		return cmp.Or(
			cmp.Compare(f.outOfRange(x, a), f.outOfRange(y, a)),
			cmp.Compare(leaving(x), leaving(y)),
			cmp.Compare(f.unconfirmed(x, a), f.unconfirmed(y, a)),
			y.object.CreationTimestamp.Compare(x.object.CreationTimestamp.Time),
			cmp.Compare(x.key, y.key),
		)
	})
}

// unconfirmed is 1 unless the container runtime confirms that the pod has the address.
func (f *filter) unconfirmed(p *pod, a netip.Addr) int {
	if slices.Contains(f.early[p.object.UID].addrs, a) {
		return 0
	}
	return 1
}

// outOfRange is 1 unless the address is in a range that the cluster has given the pod's node.
func (f *filter) outOfRange(p *pod, a netip.Addr) int {
	if slices.ContainsFunc(f.ranges[p.object.Spec.NodeName], func(r netip.Prefix) bool { return r.Contains(a) }) {
		return 0
	}
	return 1
}

func leaving(p *pod) int {
	if p.object.DeletionTimestamp != nil {
		return 1
	}
	return 0
}

// settled reports whether all that there is has been handed out.
func (f *filter) settled() bool {
	return f.chains != nil && !f.policiesDirty && !f.nodesDirty && len(f.dirty)+len(f.removed) == 0
}

// size is how much has been handed out: rules in chains, and elements by set.
func (f *filter) size() (rules int, elements map[string]int) {
	for _, c := range f.chains {
		rules += len(c.rules)
	}
	elements = map[string]int{}
	for _, p := range f.pods {
		for _, e := range p.elements {
			elements[e.set]++
		}
	}
	for _, e := range f.nodeElems {
		elements[e.set]++
	}
	return rules, elements
}

// next returns what has to change, and counts it as handed out.
func (f *filter) next() changes {
	if f.settled() {
		return changes{}
	}
	c := changes{fresh: f.chains == nil, newChains: map[string]chain{}}
	if f.policiesDirty {
		f.regroup()
		for _, p := range f.pods {
			f.dirty[p] = true
		}
	}
	// What is removed is written before what is added: an address may pass from
	// one pod to another.
	c.remove = f.removed
	for p := range f.dirty {
		after := f.elementsOf(p)
		c.swap(p.elements, after)
		f.retain(after)
		f.release(p.elements)
		p.elements = after
	}
	if f.nodesDirty {
		after := f.elementsOfNodes()
		c.swap(f.nodeElems, after)
		f.nodeElems = after
	}
	f.diffSets(&c)
	f.diffChains(&c)
	gone := map[string]bool{}
	for _, name := range c.goneSets {
		gone[name] = true
	}
	c.remove = slices.DeleteFunc(c.remove, func(e element) bool { return gone[e.set] })
	f.removed, f.dirty, f.policiesDirty, f.nodesDirty = nil, map[*pod]bool{}, false, false
	return c
}

// swap replaces elements. Both lists are in the same order as long as the
// policies are the same, and short.
func (c *changes) swap(before, after []element) {
	if slices.Equal(before, after) {
		return
	}
	had := map[element]bool{}
	for _, e := range before {
		had[e] = true
	}
	for _, e := range after {
		if had[e] {
			delete(had, e)
		} else {
			c.add = append(c.add, e)
		}
	}
	for _, e := range before {
		if had[e] {
			c.remove = append(c.remove, e)
		}
	}
}

// regroup finds out which sets the policies look up.
func (f *filter) regroup() {
	f.groups, f.local, f.everywhere = map[string]*group{}, map[string][]*group{}, nil
	f.applying = map[string][]*policy{}
	for _, key := range slices.Sorted(maps.Keys(f.policies)) {
		np := f.policies[key]
		f.applying[np.namespace] = append(f.applying[np.namespace], np)
		for _, g := range np.groups {
			if f.groups[g.name] != nil {
				continue
			}
			f.groups[g.name] = g
			if g.namespaces == nil {
				f.local[g.namespace] = append(f.local[g.namespace], g)
			} else {
				f.everywhere = append(f.everywhere, g)
			}
		}
	}
}

// elementsOf are those that a pod brings about.
func (f *filter) elementsOf(p *pod) []element {
	var all []element
	for _, fam := range f.families {
		for _, a := range p.addrs {
			if fam.has(a) && f.owns(p, a) {
				all = append(all, f.elementsAt(p, a, fam)...)
			}
		}
	}
	return all
}

func (f *filter) elementsAt(p *pod, a netip.Addr, fam family) []element {
	var all []element
	podLabels := labels.Set(p.object.Labels)
	for _, d := range []direction{ingress, egress} {
		if s := f.stackOf(p, podLabels, d); s != nil {
			all = append(all, element{set: d.String() + fam.number, key: a.String(), verdict: "goto " + s.name, comment: p.key})
		}
	}
	if len(all) > 0 {
		all = append(all, element{set: "self" + fam.number, key: a.String() + " . " + a.String()})
	}
	groups := f.local[p.object.Namespace]
	// No selector matches a namespace that is not known yet, not even one for missing
	// labels.
	if inNamespace, known := f.namespaces[p.object.Namespace]; known {
		groups = slices.Clone(groups)
		for _, g := range f.everywhere {
			if g.namespaces.Matches(inNamespace) {
				groups = append(groups, g)
			}
		}
	}
	for _, g := range groups {
		if !g.selector.pods.Matches(podLabels) {
			continue
		}
		if g.port.name == "" {
			all = append(all, element{set: g.set(fam), key: a.String()})
			continue
		}
		for _, number := range portsNamed(p.object, g.port) {
			all = append(all, element{set: g.set(fam), key: fmt.Sprintf("%s . %s . %d", a, g.port.protocol, number)})
		}
	}
	return all
}

// portsNamed are the numbers of a port on a pod; trim has gathered the ports of
// all containers in the first.
func portsNamed(o *v1.Pod, port namedPort) []int32 {
	var numbers []int32
	for _, c := range o.Spec.Containers {
		for _, p := range c.Ports {
			protocol := cmp.Or(strings.ToLower(string(p.Protocol)), "tcp")
			if p.Name == port.name && protocol == port.protocol && !slices.Contains(numbers, p.ContainerPort) {
				numbers = append(numbers, p.ContainerPort)
			}
		}
	}
	return numbers
}

// stackOf is the chain that decides about a pod, or nil if it is not isolated.
func (f *filter) stackOf(p *pod, podLabels labels.Set, d direction) *stack {
	var keys []string
	for _, np := range f.applying[p.object.Namespace] {
		if np.isolates[d] && np.pods.Matches(podLabels) {
			keys = append(keys, np.key)
		}
	}
	if keys == nil {
		return nil
	}
	name := d.String() + "-pods-" + hash(strings.Join(keys, " "))
	if s := f.stacks[name]; s != nil {
		return s
	}
	s := &stack{name: name, chain: chain{comment: d.String() + " of pods with " + strings.Join(keys, ", ")}}
	for _, key := range keys {
		s.rules = append(s.rules, "jump "+f.policies[key].chain(d))
	}
	s.rules = append(s.rules, "drop")
	f.stacks[name] = s
	return s
}

// retain and release count the elements that lead to a stack.
func (f *filter) retain(elements []element) { f.count(elements, 1) }

func (f *filter) release(elements []element) { f.count(elements, -1) }

func (f *filter) count(elements []element, n int) {
	for _, e := range elements {
		if name, ok := strings.CutPrefix(e.verdict, "goto "); ok {
			f.users[name] += n
		}
	}
}

func (f *filter) elementsOfNodes() []element {
	var all []element
	for _, fam := range f.families {
		seen := map[netip.Addr]bool{}
		for _, name := range slices.Sorted(maps.Keys(f.nodes)) {
			for _, a := range f.nodes[name] {
				if fam.has(a) && !seen[a] {
					seen[a] = true
					all = append(all, element{set: "nodes" + fam.number, key: a.String()})
				}
			}
		}
	}
	return all
}

func (f *filter) diffSets(c *changes) {
	for _, name := range slices.Sorted(maps.Keys(f.groups)) {
		g := f.groups[name]
		if f.sets[name] == nil {
			for _, fam := range f.families {
				c.newSets = append(c.newSets, set{g.set(fam), fam.addressType(), g.comment, g.port.name != ""})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.sets)) {
		if f.groups[name] == nil {
			for _, fam := range f.families {
				c.goneSets = append(c.goneSets, f.sets[name].set(fam))
			}
		}
	}
	f.sets = maps.Clone(f.groups)
}

func (f *filter) diffChains(c *changes) {
	chains := map[string]chain{}
	for _, p := range f.policies {
		for _, d := range []direction{ingress, egress} {
			if p.isolates[d] {
				chains[p.chain(d)] = chain{d.String() + " by " + p.key, p.rules[d]}
			}
		}
	}
	for name, s := range f.stacks {
		if f.users[name] > 0 {
			chains[name] = s.chain
		} else {
			delete(f.stacks, name)
			delete(f.users, name)
		}
	}
	for name, want := range chains {
		if have, ok := f.chains[name]; !ok || !slices.Equal(have.rules, want.rules) {
			c.newChains[name] = want
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.chains)) {
		if _, ok := chains[name]; !ok {
			c.goneChains = append(c.goneChains, name)
		}
	}
	f.chains = chains
}
