package policy

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// watched makes an enforcer that believes to know all there is.
func watched(t *testing.T) *enforcer {
	e := &enforcer{Policy: New(Config{ClusterCIDR: []netip.Prefix{range4}}), stop: func() {}}
	e.filter.setNamespace("a", nil)
	e.filter.setPod(newPod("a", "db", "app=db", "10.42.0.2"))
	e.filter.setPolicy(newPolicy(t, "a", "p", fromWeb))
	return e
}

// Without nft, nothing ends: `lite status` shows what is not in force, and the remedy.
func TestWithoutNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	e := watched(t)
	err := e.sync(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	e.complain(err)
	for _, want := range []string{"NOT in force", "no nft that works", "CONFIG_NF_TABLES"} {
		if !strings.Contains(e.Note(), want) {
			t.Errorf("%q does not say %q", e.Note(), want)
		}
	}
	e.filter.deletePolicy("a/p")
	if err := e.sync(t.Context()); err != nil {
		t.Errorf("without policies: %v", err)
	}
	// Again, when there is no table already: a pod that goes while nobody looks is not remembered.
	e.stop = func() {}
	e.filter.setPod(newPod("a", "web", "app=web", "10.42.0.3"))
	e.filter.setPolicy(newPolicy(t, "a", "p", fromWeb))
	if err := e.sync(t.Context()); err == nil {
		t.Fatal("no error")
	}
	e.filter.deletePolicy("a/p")
	if err := e.sync(t.Context()); err != nil || len(e.filter.pods) > 0 {
		t.Errorf("without policies there are %d pods, %v", len(e.filter.pods), err)
	}
}

// The table is put back when somebody has removed it, and goes with the last
// policy.
func TestTableIsKept(t *testing.T) {
	kernel(t, only4)
	e := watched(t)
	sync := func() {
		t.Helper()
		if err := e.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	want := ruleset(t)
	if !strings.Contains(want, `10.42.0.2 comment "a/db" : goto`) {
		t.Fatalf("the pod is not isolated:\n%s", want)
	}
	for _, tamper := range [][]string{{"flush", "ruleset"}, {"delete", "table", "inet", layout.PolicyTable}, {"flush", "chain", "inet", layout.PolicyTable, "egress"}} {
		if out, err := exec.Command("nft", tamper...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		e.check(t.Context())
		sync()
		if got := ruleset(t); got != want {
			t.Errorf("after nft %s:\n%s\nwant\n%s", strings.Join(tamper, " "), got, want)
		}
	}
	e.check(t.Context()) // all is well
	if e.filter.chains == nil {
		t.Error("the table is to be written again, though nothing has changed")
	}
	e.filter.deletePolicy("a/p")
	sync()
	if got := ruleset(t); got != "" || e.stop != nil || len(e.filter.pods) != 0 {
		t.Errorf("without policies there are %d pods, and\n%s", len(e.filter.pods), got)
	}
}

// A write that fails is followed by one that replaces the table.
func TestFailedWrite(t *testing.T) {
	kernel(t, only4)
	e := watched(t)
	if err := e.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("nft", "delete", "table", "inet", layout.PolicyTable).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e.filter.setPod(newPod("a", "db2", "app=db", "10.42.0.3"))
	if err := e.sync(t.Context()); err == nil {
		t.Fatal("an element was added to a table that is gone")
	} else if e.complain(err); !strings.Contains(e.Note(), "NOT in force") {
		t.Errorf("got %q", e.Note())
	}
	if err := e.sync(t.Context()); err != nil || !strings.Contains(ruleset(t), "10.42.0.3") {
		t.Errorf("%v\n%s", err, ruleset(t))
	}
}

func TestAddressesOfNodes(t *testing.T) {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{
			layout.OverlayAnnotation: `{"backend":"host-gw","ip":"198.51.100.7"}`, layout.ProvenAnnotation: "192.0.2.7,198.51.100.7,192.0.2.8", "other": "x",
		}},
		Spec: v1.NodeSpec{PodCIDRs: []string{"10.42.3.0/24", "fd42:3::/64"}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{
			{Type: v1.NodeHostName, Address: "n"}, {Type: v1.NodeInternalIP, Address: "192.0.2.7"}, {Type: v1.NodeExternalIP, Address: "203.0.113.7"},
		}},
	}
	pods := []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd42::/16")}
	own := func() (got []string) {
		for _, a := range ownAddresses(kube.TrimNode(n), pods) {
			got = append(got, a.String())
		}
		return got
	}
	want := []string{"198.51.100.7", "192.0.2.7", "203.0.113.7", "10.42.3.0", "10.42.3.1", "fd42:3::", "fd42:3::1"}
	if got := own(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// A node let any pod of the cluster past all policies, by calling its address its own.
	n.Annotations[layout.OverlayAnnotation] = `{"backend":"vxlan","ip":"10.42.9.9"}`
	n.Status.Addresses = []v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: "10.42.9.7"}, {Type: v1.NodeExternalIP, Address: "fd42:9::7"}, {Type: v1.NodeInternalIP, Address: "::ffff:10.42.9.8"},
		{Type: v1.NodeInternalIP, Address: "0.0.0.0"}, {Type: v1.NodeInternalIP, Address: "127.0.0.1"}, {Type: v1.NodeInternalIP, Address: "192.0.2.8"},
	}
	if got, want := own(), []string{"192.0.2.8", "10.42.3.0", "10.42.3.1", "fd42:3::", "fd42:3::1"}; !slices.Equal(got, want) {
		t.Errorf("of what it claims: got %v, want %v", got, want)
	}

	// It let in whoever it likes, by calling his address its own or that of its overlay.
	n.Annotations[layout.OverlayAnnotation] = `{"backend":"host-gw","ip":"203.0.113.66"}`
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "8.8.8.8"}, {Type: v1.NodeInternalIP, Address: "192.0.2.8"}}
	if got, want := own(), []string{"192.0.2.8", "10.42.3.0", "10.42.3.1", "fd42:3::", "fd42:3::1"}; !slices.Equal(got, want) {
		t.Errorf("of what is not proven: got %v, want %v", got, want)
	}
	delete(n.Annotations, layout.ProvenAnnotation) // as long as no server has proven anything
	if got, want := own(), []string{"10.42.3.0", "10.42.3.1", "fd42:3::", "fd42:3::1"}; !slices.Equal(got, want) {
		t.Errorf("when nothing is known: got %v, want %v", got, want)
	}
}

// Of a pod stays what the filter reads.
func TestTrimPod(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	p := newPod("a", "p", "app=web", "10.42.0.2")
	p.Annotations = map[string]string{"big": "text"}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	p.Spec.InitContainers = []v1.Container{{Image: "i", RestartPolicy: &always, Ports: []v1.ContainerPort{{Name: "admin", ContainerPort: 9}}}}
	p.Spec.Containers = []v1.Container{{Image: "i", Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 80}, {ContainerPort: 81}}}}
	got := trimPod(p)
	if got.Annotations != nil || got.ManagedFields != nil || got.Labels["app"] != "web" || len(got.Spec.Containers) != 1 || got.Spec.InitContainers != nil ||
		!slices.Equal(portsNamed(got, namedPort{"http", "tcp"}), []int32{80}) || !slices.Equal(portsNamed(got, namedPort{"admin", "tcp"}), []int32{9}) {
		t.Errorf("got %+v", got)
	}
}

func TestSandboxOf(t *testing.T) {
	status := &cri.PodSandboxStatus{
		Id: "s", Metadata: &cri.PodSandboxMetadata{Uid: "u"},
		Network: &cri.PodSandboxNetworkStatus{Ip: "10.42.0.2", AdditionalIps: []*cri.PodIP{{Ip: "fd42::2"}}},
	}
	for name, test := range map[string]struct {
		event *cri.ContainerEventResponse
		addrs int
		ok    bool
	}{
		"sandbox begins":  {&cri.ContainerEventResponse{ContainerId: "s", ContainerEventType: cri.ContainerEventType_CONTAINER_CREATED_EVENT, PodSandboxStatus: status}, 2, true},
		"sandbox ends":    {&cri.ContainerEventResponse{ContainerId: "s", ContainerEventType: cri.ContainerEventType_CONTAINER_STOPPED_EVENT, PodSandboxStatus: status}, 0, true},
		"container":       {&cri.ContainerEventResponse{ContainerId: "c", ContainerEventType: cri.ContainerEventType_CONTAINER_CREATED_EVENT, PodSandboxStatus: status}, 0, false},
		"nothing is said": {&cri.ContainerEventResponse{ContainerId: "s", ContainerEventType: cri.ContainerEventType_CONTAINER_CREATED_EVENT}, 0, false},
		"host's network": {&cri.ContainerEventResponse{ContainerId: "s", ContainerEventType: cri.ContainerEventType_CONTAINER_CREATED_EVENT,
			PodSandboxStatus: &cri.PodSandboxStatus{Id: "s", Network: &cri.PodSandboxNetworkStatus{}}}, 0, false},
	} {
		uid, s, ok := sandboxOf(test.event)
		if ok != test.ok || len(s.addrs) != test.addrs || ok && (uid != "u" || s.id != "s") {
			t.Errorf("%s: got %s, %v, %t", name, uid, s, ok)
		}
	}
}

func TestNotReadyBeforePoliciesAreKnown(t *testing.T) {
	p := New(Config{})
	if err := p.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "waiting") {
		t.Errorf("got %v", err)
	}
	p.synced.Store(true)
	if err := p.Ready(t.Context()); err != nil || p.Name() != "networkpolicy" || p.Note() != "" {
		t.Errorf("got %v, %q", err, p.Note())
	}
	a := &Absent{}
	if err := a.Ready(t.Context()); err == nil || a.Name() != "networkpolicy" {
		t.Errorf("got %v", err)
	}
}
