package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/kube"
)

func node(name string, cidrs []string, addresses ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"a": "b"}}, Spec: v1.NodeSpec{PodCIDRs: cidrs, ProviderID: "x"}}
	n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: name})
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a})
	}
	return n
}

func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		config EndpointsConfig
		node   *v1.Node
		want   string // "" = nowhere
	}{
		"bridge":               {EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10")}, node("a", []string{"10.42.3.0/24"}, "192.0.2.1"), "10.42.3.1"},
		"bridge, other family": {EndpointsConfig{ClusterDNS: netip.MustParseAddr("fd43::a")}, node("a", []string{"10.42.3.0/24", "fd42:3::/64"}), "fd42:3::1"},
		"no such family":       {EndpointsConfig{ClusterDNS: netip.MustParseAddr("fd43::a")}, node("a", []string{"10.42.3.0/24"}), ""},
		"no range yet":         {EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10")}, node("a", nil, "192.0.2.1"), ""},
		"the node's":           {EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10"), NodeAddresses: true}, node("a", []string{"10.42.3.0/24"}, "2001:db8::1", "192.0.2.1"), "192.0.2.1"},
	} {
		e := NewEndpoints(c.config)
		small := kube.TrimNode(c.node)
		if small.Annotations != nil || small.Spec.ProviderID != "" {
			t.Errorf("%s: more is kept than is needed: %v", name, small)
		}
		got := ""
		if parts, _ := e.parts([]*v1.Node{small}); len(parts) > 0 {
			got = parts[0][0].addr
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestParts(t *testing.T) {
	e := NewEndpoints(EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10")})
	var nodes []*v1.Node
	if got, _ := e.parts(nodes); len(got) != 0 {
		t.Errorf("got %v of no nodes", got)
	}
	for i := range 2500 {
		nodes = append(nodes, node(fmt.Sprintf("n%04d", i), []string{fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)}))
	}
	var sizes []int
	parts, _ := e.parts(nodes)
	for _, part := range parts {
		sizes = append(sizes, len(part))
	}
	if fmt.Sprint(sizes) != "[1000 1000 500]" {
		t.Errorf("got parts of %v", sizes)
	}
	if first := parts[0][0]; first != (endpoint{"n0000", "10.0.0.1"}) {
		t.Errorf("got %v first", first)
	}
}

// A node that somebody has created with a token reports an address that no node can have,
// or that of an older node: it has no endpoint, and the others keep theirs.
func TestOneBadNodeStopsNoOther(t *testing.T) {
	pods := []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}
	e := NewEndpoints(EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10"), Addresses: kube.NodeAddresses{Pods: pods}})
	old := node("z-old", []string{"10.42.1.0/24"})
	young := node("a-young", []string{"10.42.1.0/24"})
	young.CreationTimestamp = metav1.Now()
	nodes := []*v1.Node{old, young, node("loopback", []string{"127.0.0.0/24"}), node("service", []string{"10.43.0.0/24"}), node("multicast", []string{"224.0.0.0/24"})}
	parts, refused := e.parts(nodes)
	if fmt.Sprint(parts) != "[[{z-old 10.42.1.1}]]" || len(refused) != 4 {
		t.Errorf("got %v, refused %v", parts, refused)
	}
	e.complain(refused...)
	if note := e.Note(); !strings.Contains(note, "node a-young: 10.42.1.1 is an address of node z-old, which is older") || !strings.Contains(note, "node loopback: 127.0.0.1 ") {
		t.Errorf("the status shows %q", note)
	}
}

// Where nodes answer at their own addresses, that of a server is believed once it has its
// label, which comes after the Node.
func TestServerIsBelievedOnceItIsMarked(t *testing.T) {
	api := netip.MustParseAddr("192.0.2.1")
	e := NewEndpoints(EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10"), NodeAddresses: true, Addresses: kube.NodeAddresses{API: []netip.Addr{api}}})
	n := node("a", nil, api.String())
	before := kube.TrimNode(n.DeepCopy())
	if parts, refused := e.parts([]*v1.Node{before}); len(parts) != 0 || len(refused) != 1 {
		t.Fatalf("before: got %v, refused %v", parts, refused)
	}
	n.Labels = map[string]string{kube.ServerLabel: "true"}
	after := kube.TrimNode(n)
	if !e.differ(before, after) {
		t.Error("nobody looks again when a node becomes a server's")
	}
	if parts, refused := e.parts([]*v1.Node{after}); len(parts) != 1 || len(refused) != 0 {
		t.Errorf("after: got %v, refused %v", parts, refused)
	}
}

// Whether the same problem was reported already is known by the note, which a try that fails
// leaves as it is.
func TestTryThatFailsLeavesTheNote(t *testing.T) {
	client := fake.NewClientset(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service}})
	client.PrependReactor("patch", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no") })
	e := NewEndpoints(EndpointsConfig{ClusterDNS: netip.MustParseAddr("10.43.0.10")})
	nodes, have := []*v1.Node{node("a", []string{"10.42.3.0/24"})}, watchSlices(client)
	for range 2 {
		before := e.Note()
		problems, err := e.write(t.Context(), client, nodes, have)
		if err == nil || e.Note() != before {
			t.Errorf("got %v, and the note is %q after %q", err, e.Note(), before)
		}
		e.complain(append(problems, err)...)
	}
	if want := "write EndpointSlice " + service + "-0: no"; e.Note() != want {
		t.Errorf("the note is %q, want %q", e.Note(), want)
	}
}

// What is as it should be is not written again; anything else is.
func TestHolds(t *testing.T) {
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: service, UID: "1"}}
	part := []endpoint{{"a", "10.42.0.1"}, {"b", "10.42.1.1"}}
	slice := func(change func(*discovery.EndpointSlice)) *discovery.EndpointSlice {
		o := &discovery.EndpointSlice{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{UID: "1"}}}}
		for _, p := range ports() {
			o.Ports = append(o.Ports, discovery.EndpointPort{Name: &p.name, Protocol: &p.protocol, Port: &p.number})
		}
		for _, e := range part {
			ready := true
			o.Endpoints = append(o.Endpoints, discovery.Endpoint{Addresses: []string{e.addr}, NodeName: &e.node, Conditions: discovery.EndpointConditions{Ready: &ready}})
		}
		change(o)
		return o
	}
	other := false
	for name, c := range map[string]struct {
		change func(*discovery.EndpointSlice)
		want   bool
	}{
		"right":           {func(*discovery.EndpointSlice) {}, true},
		"of another":      {func(o *discovery.EndpointSlice) { o.OwnerReferences[0].UID = "2" }, false},
		"of nobody":       {func(o *discovery.EndpointSlice) { o.OwnerReferences = nil }, false},
		"one too few":     {func(o *discovery.EndpointSlice) { o.Endpoints = o.Endpoints[:1] }, false},
		"another address": {func(o *discovery.EndpointSlice) { o.Endpoints[1].Addresses[0] = "10.42.9.1" }, false},
		"not ready":       {func(o *discovery.EndpointSlice) { o.Endpoints[0].Conditions.Ready = &other }, false},
		"a port missing":  {func(o *discovery.EndpointSlice) { o.Ports = o.Ports[:2] }, false},
	} {
		if got := holds(slice(c.change), part, s); got != c.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}
