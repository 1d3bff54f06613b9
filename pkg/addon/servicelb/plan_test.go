package servicelb

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// svc is a Service for TCP port 80, or others, that is age seconds younger than
// the oldest.
func svc(name string, age int, change ...func(*service)) service {
	s := service{
		key:      types.NamespacedName{Namespace: "ns", Name: name},
		created:  start.Add(time.Duration(age) * time.Second),
		ours:     true,
		families: []corev1.IPFamily{corev1.IPv4Protocol},
		ports:    []port{{80, corev1.ProtocolTCP}},
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func ports(numbers ...int32) func(*service) {
	return func(s *service) {
		s.ports = nil
		for _, n := range numbers {
			s.ports = append(s.ports, port{n, corev1.ProtocolTCP})
		}
	}
}

func families(f ...corev1.IPFamily) func(*service) { return func(s *service) { s.families = f } }
func has(addresses ...string) func(*service)       { return func(s *service) { s.addresses = addresses } }
func local(s *service)                             { s.local = true }
func foreign(s *service)                           { s.ours = false }
func withSSH(s *service)                           { s.allowSSH = true }

func at(name string, ready bool, addresses ...string) node {
	n := node{name: name, ready: ready}
	for _, a := range addresses {
		n.addresses = append(n.addresses, netip.MustParseAddr(a))
	}
	return n
}

func TestDecide(t *testing.T) {
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol
	a, b, c := at("a", true, "10.0.0.1", "fd00::1"), at("b", true, "10.0.0.2"), at("c", false, "10.0.0.3")
	chosen := func(n node) node { n.chosen = true; return n }
	excluded := func(n node) node { n.excluded = true; return n }
	down := func(n node) node { n.ready = false; return n }
	nodes := []node{c, b, a}
	for _, test := range []struct {
		name      string
		services  []service
		nodes     []node
		endpoints map[string][]endpoint // by name; missing: not known
		want      map[string]string     // by name: addresses, or the reason
	}{
		{"ready nodes, in the order of names", []service{svc("s", 0)}, nodes, nil, map[string]string{"s": "10.0.0.1 10.0.0.2"}},
		{"of the Service's families, in its order", []service{svc("s", 0, families(v6, v4))}, nodes, nil, map[string]string{"s": "fd00::1 10.0.0.1 10.0.0.2"}},
		{"chosen nodes", []service{svc("s", 0)}, []node{a, chosen(b)}, nil, map[string]string{"s": "10.0.0.2"}},
		{"chosen nodes that are not ready are still the only ones", []service{svc("s", 0)}, []node{a, chosen(c)}, nil, map[string]string{"s": ""}},
		{"excluded nodes", []service{svc("s", 0)}, []node{a, excluded(b)}, nil, map[string]string{"s": "10.0.0.1"}},
		{"no node is ready: nothing is taken away", []service{svc("s", 0, has("10.0.0.1"))}, []node{down(a), down(b)}, nil, map[string]string{"s": "10.0.0.1"}},
		{"no node is ready: nothing is given", []service{svc("s", 0)}, []node{down(a)}, nil, map[string]string{"s": ""}},
		{"a node that is gone is taken away all the same", []service{svc("s", 0, has("10.0.0.1", "10.0.0.9"))}, []node{down(a)}, nil, map[string]string{"s": "10.0.0.1"}},

		{"local", []service{svc("s", 0, local)}, nodes, map[string][]endpoint{"s": {{v4, "b"}, {v4, "c"}}}, map[string]string{"s": "10.0.0.2"}},
		{"local, by family", []service{svc("s", 0, local, families(v4, v6))}, nodes, map[string][]endpoint{"s": {{v6, "a"}, {v4, "b"}}}, map[string]string{"s": "10.0.0.2 fd00::1"}},
		{"local, no endpoints", []service{svc("s", 0, local, has("10.0.0.1"))}, nodes, map[string][]endpoint{"s": {}}, map[string]string{"s": ""}},
		{"local, not known yet", []service{svc("s", 0, local, has("10.0.0.1"))}, nodes, nil, map[string]string{"s": "10.0.0.1"}},

		{"the older has the port", []service{svc("young", 1), svc("old", 0)}, nodes, nil, map[string]string{"old": "10.0.0.1 10.0.0.2", "young": portConflict}},
		{"of the same age, the name decides", []service{svc("z", 0), svc("y", 0)}, nodes, nil, map[string]string{"y": "10.0.0.1 10.0.0.2", "z": portConflict}},
		{"one port of several", []service{svc("old", 0), svc("young", 1, ports(443, 80))}, nodes, nil, map[string]string{"old": "10.0.0.1 10.0.0.2", "young": portConflict}},
		{"who loses takes nothing", []service{svc("old", 0), svc("mid", 1, ports(443, 80)), svc("young", 2, ports(443))}, nodes, nil,
			map[string]string{"old": "10.0.0.1 10.0.0.2", "mid": portConflict, "young": "10.0.0.1 10.0.0.2"}},
		{"the port is taken also where there is no endpoint", []service{svc("old", 0, local), svc("young", 1)}, nodes, map[string][]endpoint{"old": {}},
			map[string]string{"old": "", "young": portConflict}},
		{"another family is another port", []service{svc("old", 0, families(v6)), svc("young", 1)}, nodes, nil, map[string]string{"old": "fd00::1", "young": "10.0.0.1 10.0.0.2"}},
		{"another class takes nothing and gets nothing", []service{svc("old", 0, foreign), svc("young", 1)}, nodes, nil, map[string]string{"young": "10.0.0.1 10.0.0.2"}},

		{"the API's port", []service{svc("s", 0, ports(6443))}, nodes, nil, map[string]string{"s": portReserved}},
		{"a node's own port", []service{svc("s", 0, ports(80, 10250))}, nodes, nil, map[string]string{"s": portReserved}},
		{"SSH", []service{svc("s", 0, ports(22))}, nodes, nil, map[string]string{"s": portReserved}},
		{"SSH, allowed", []service{svc("s", 0, ports(22), withSSH)}, nodes, nil, map[string]string{"s": "10.0.0.1 10.0.0.2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoints := map[types.NamespacedName][]endpoint{}
			for name, p := range test.endpoints {
				endpoints[types.NamespacedName{Namespace: "ns", Name: name}] = p
			}
			got := map[string]string{}
			for _, v := range (plan{reserved: reserved(6443)}).decide(test.services, test.nodes, endpoints) {
				got[v.service.key.Name] = strings.Join(v.addresses, " ") + v.reason
			}
			if len(got) != len(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			for name, want := range test.want {
				if got[name] != want {
					t.Errorf("%s: got %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

// A node that somebody's token has made reports addresses of Services, of loopback
// and of an older node.
func TestAddressesThatANodeTakes(t *testing.T) {
	at := func(name string, age int, addresses ...string) node {
		n := at(name, true, addresses...)
		n.created = start.Add(time.Duration(age) * time.Second)
		return n
	}
	p := plan{reserved(6443), kube.NodeAddresses{Services: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}}}
	nodes, refused := p.believe([]node{at("a2", 9, "10.43.0.1", "127.0.0.1", "10.0.0.1", "10.0.0.9"), at("h1", 0, "10.0.0.1")})
	if len(refused) != 3 {
		t.Errorf("got %v", refused)
	}
	if got := p.decide([]service{svc("s", 0)}, nodes, nil)[0].addresses; !slices.Equal(got, []string{"10.0.0.9", "10.0.0.1"}) {
		t.Errorf("the Service has %v", got)
	}
}

// An older node claims the address of another, and stays as it is, not ready, so that nobody
// finds out whether it has it.
func TestAnOpenClaimTakesNothingThatIsProven(t *testing.T) {
	claims := at("a0", false, "10.0.0.1", "10.0.0.5")
	claims.open = claims.addresses
	owner := at("h1", true, "10.0.0.1")
	owner.created = start.Add(time.Hour)
	p := plan{reserved(6443), kube.NodeAddresses{}}
	nodes, refused := p.believe([]node{claims, owner})
	if len(refused) != 1 || !strings.Contains(refused[0].Error(), "node a0: 10.0.0.1 is an address of node h1, which has proven it") {
		t.Errorf("got %v", refused)
	}
	for _, given := range []string{"", "10.0.0.1"} {
		if got := p.decide([]service{svc("s", 0, has(strings.Fields(given)...))}, nodes, nil)[0].addresses; !slices.Equal(got, []string{"10.0.0.1"}) {
			t.Errorf("with %q before, the Service has %v", given, got)
		}
	}
	if got := nodes[0].addresses; len(got) != 1 || got[0].String() != "10.0.0.5" {
		t.Errorf("of the open ones there remain %v", got)
	}
}

// A node reports an address that is not its own, such as that of a database: a Service
// never gets it. What a Service has when nobody has found out yet, it keeps.
func TestAddressesThatAreNotProven(t *testing.T) {
	n := machine(start)
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "8.8.8.8"})
	for _, test := range []struct {
		name, proven, has, want string
	}{
		{"proven", "10.0.0.1", "", "10.0.0.1"},
		{"proven in vain for who does not claim it", "10.0.0.1,10.0.0.9", "", "10.0.0.1"},
		{"nothing is", "", "10.0.0.1 8.8.8.8", ""},
		{"it was given before", "10.0.0.1", "10.0.0.1 8.8.8.8", "10.0.0.1"},
		{"nobody knows", "-", "", ""},
		{"nobody knows, and it is given", "-", "10.0.0.1", "10.0.0.1"},
		{"vouched for by hand", "10.0.0.1, 8.8.8.8", "", "10.0.0.1 8.8.8.8"},
		{"garbage", "10.0.0.1,,x", "", "10.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			delete(n.Annotations, layout.ProvenAnnotation)
			if test.proven != "-" {
				n.Annotations[layout.ProvenAnnotation] = test.proven
			}
			got := plan{reserved: reserved(6443)}.decide([]service{svc("s", 0, has(strings.Fields(test.has)...))}, []node{reduceNode(n)}, nil)[0].addresses
			if !slices.Equal(got, strings.Fields(test.want)) {
				t.Errorf("the Service has %v, want %q", got, test.want)
			}
		})
	}
	n.Status.Addresses[1].Type = corev1.NodeExternalIP // as a cloud's controller sets it
	if got := reduceNode(n); len(got.addresses) != 2 || len(got.open) > 0 {
		t.Errorf("got %+v", got)
	}
}

func TestReduceNode(t *testing.T) {
	n := reduceNode(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{layout.ProvenAnnotation: "10.0.0.1"}, Labels: map[string]string{"node-restriction.kubernetes.io/lite-lb": "true", "node.kubernetes.io/exclude-from-external-load-balancers": ""}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: "10.0.0.1"},
				{Type: corev1.NodeHostName, Address: "n"},
				{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	})
	var addresses []string
	for _, a := range n.addresses {
		addresses = append(addresses, a.String())
	}
	if n.name != "n" || !n.ready || !n.chosen || !n.excluded || !slices.Equal(addresses, []string{"192.0.2.1", "10.0.0.1"}) {
		t.Errorf("got %+v, want a ready, chosen, excluded node with its external address first", n)
	}
}
