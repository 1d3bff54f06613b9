package cni

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/kube"
)

func TestPeer(t *testing.T) {
	published := `{"backend":"vxlan","ip":"192.0.2.2","mac":"02:00:00:00:00:02","port":8472}`
	for name, test := range map[string]struct {
		annotation string
		ranges     []string
		ok, wrong  bool
	}{
		"ready":             {published, []string{"10.42.1.0/24"}, true, false},
		"not published":     {"", []string{"10.42.1.0/24"}, false, false},
		"no range yet":      {published, nil, false, false},
		"both families":     {published, []string{"10.42.1.0/24", "fd42::/64"}, true, false},
		"not JSON":          {"vxlan", []string{"10.42.1.0/24"}, false, true},
		"not a range":       {published, []string{"10.42.1.0"}, false, true},
		"not an IP address": {`{"ip":"host"}`, []string{"10.42.1.0/24"}, false, true},
	} {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{annotation: test.annotation}}}
		n.Spec.PodCIDRs = test.ranges
		p, ok, err := peer(n)
		if ok != test.ok || (err != nil) != test.wrong {
			t.Errorf("%s: got %+v, %t, %v", name, p, ok, err)
		}
		if ok && (p.Node != "b" || len(p.Pods) != len(test.ranges) || p.Pods[0].String() != "10.42.1.0/24" || p.IP.String() != "192.0.2.2") {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}

// An annotation of 100 KB was in each line of the log of every node.
func TestWhatANodeSaysIsShort(t *testing.T) {
	long := strings.Repeat("1", 100<<10)
	for _, text := range []string{long, `{"ip":"` + long + `"}`, `{"port":` + long + `}`, `{"backend":` + long + `}`} {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{annotation: text}}}
		n.Spec.PodCIDRs = []string{"10.42.1.0/24"}
		if _, _, err := peer(n); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20s: got %.300v", text, err)
		}
	}
}

func TestTrimKeepsWhatPeerReads(t *testing.T) {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "b", ResourceVersion: "7", Labels: map[string]string{"a": "b"},
		Annotations: map[string]string{annotation: `{"ip":"192.0.2.2"}`, "another": "x"},
	}}
	n.Spec.PodCIDRs = []string{"10.42.1.0/24"}
	n.Status.Images = []v1.ContainerImage{{Names: []string{"large"}}}
	small := kube.TrimNode(n)
	if small.Status.Images != nil || len(small.Annotations) != 1 || small.ResourceVersion != "7" {
		t.Errorf("kept %+v", small)
	}
	if p, ok, err := peer(small); !ok || err != nil || p.Node != "b" {
		t.Errorf("got %+v, %t, %v", p, ok, err)
	}
}

// An agent that started while it could not list the nodes took the routes away
// that its last process had left.
func TestNothingIsSetBeforeAllNodesAreKnown(t *testing.T) {
	m := &mesh{name: "a", nodes: kube.NodesOf(fake.NewClientset())}
	m.sync(t.Context()) // without an overlay it could not set anything
}

// Two machines with one identity, as copies of one disk have, report each other, and do not
// overwrite each other forever.
func TestTwin(t *testing.T) {
	at := uint64(0) // the version of the store
	node := func(text string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", ResourceVersion: strconv.FormatUint(at, 10), Annotations: map[string]string{annotation: text}}}
	}
	client := fake.NewClientset(node(""))
	writes := 0
	client.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		at++
		writes++
		return true, node(""), nil
	})
	n := &Network{}
	m := &mesh{name: "b", client: client, twin: &n.twin, local: overlay.Local{Backend: "vxlan", IP: netip.MustParseAddr("192.0.2.2")}}
	see := func(what string, wrote int, note string) {
		t.Helper()
		writes = 0
		if err := m.publish(t.Context(), node(what)); err != nil {
			t.Fatal(err)
		}
		if got := n.Note(); writes != wrote || (note == "") != (got == "") || !strings.Contains(got, note) {
			t.Errorf("seeing %s it wrote %d times, want %d, and notes %q", what, writes, wrote, got)
		}
	}
	later := func() { m.wrote = time.Now().Add(-2 * reconcileEvery) }
	now, err := json.Marshal(m.local)
	if err != nil {
		t.Fatal(err)
	}
	const before, twin = `{"backend":"vxlan","ip":"192.0.2.1"}`, `{"backend":"vxlan","ip":"192.0.2.3"}`

	at = 7
	see(before, 1, "") // where the node was before it moved
	at = 7
	see(before, 0, "") // an event from before that was written
	at = 9
	see(twin, 0, "another machine, at 192.0.2.3,") // instead of what was written
	later()
	see(twin, 1, "192.0.2.3")
	see(string(now), 0, "192.0.2.3")
	see("edited by hand", 1, "192.0.2.3")
	n.twin.Load().seen = time.Now().Add(-2 * twinFor)
	see(string(now), 0, "")
	m.local.MAC = "02:00:00:00:00:07" // the device was made again
	see(string(now), 1, "")
	at = 3 // the store was restored from a backup
	later()
	see(before, 1, "192.0.2.1")
}
