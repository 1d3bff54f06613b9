// Package storage shows that claims get volumes on the nodes themselves, that
// data stays as long as it is wanted, and that nothing else is ever removed.
package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is for what is to happen on a running cluster; the machine is busy.
const soon = 60 * time.Second

// otherPath is where the second agent has its volumes.
const otherPath = "/var/lib/volumes/here"

// suite is what the tests share.
type suite struct {
	*cluster.Cluster
	a, b *cluster.Node // the agents; b has a directory of its own choice
}

// TestStorage runs what needs one server and two agents.
func TestStorage(t *testing.T) {
	c := cluster.New(t, cluster.Agents(2), cluster.Prepare(func(n *cluster.Node) {
		if n.Name == "host3" {
			n.WriteFile(t, "/etc/lite/config.yaml", "default-local-storage-path: "+otherPath+"\n")
		}
	}))
	s := &suite{c, c.Agents[0], c.Agents[1]}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Volume", s.testVolume},
		{"PathOfNode", s.testPathOfNode},
		{"Retain", s.testRetain},
		{"Refused", s.testRefused},
		{"NoSuchClass", s.testNoSuchClass},
		{"Expansion", s.testExpansion},
		{"NodesRights", s.testNodesRights},
		{"Attacks", s.testAttacks},
		{"LinksAndDepth", s.testLinksAndDepth},
		{"Mount", s.testMount},
		{"Unwritable", s.testUnwritable},
		{"NoDirectory", s.testNoDirectory},
		{"LostDirectory", s.testLostDirectory},
		{"NodeAway", s.testNodeAway},
		{"KilledBeforeMkdir", s.testKilledBeforeMkdir},
		{"KilledWhileRemoving", s.testKilledWhileRemoving},
		{"StatefulSet", s.testStatefulSet},
		{"DefaultClass", s.testDefaultClass},
		{"Disabled", s.testDisabled},
	} {
		t.Run(test.name, test.run)
	}
}

// claim is a manifest; more is further lines of its spec.
func claim(name string, more ...string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
`, name) + lines(more)
}

func lines(more []string) string {
	text := ""
	for _, line := range more {
		text += "  " + line + "\n"
	}
	return text
}

// user is a pod with the claim at /data; more is further lines of its spec.
func user(name, claim string, more ...string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "100000"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]
`, name, claim) + lines(more)
}

// on makes a pod run on a node.
func on(n *cluster.Node) string { return "nodeSelector: {kubernetes.io/hostname: " + n.Name + "}" }

// volume is a bound volume of a test.
type volume struct {
	ns   *cluster.Namespace
	name string
	path string // its directory on the node
}

// volumeOf waits until a claim is bound.
func volumeOf(t *testing.T, ns *cluster.Namespace, claim string) volume {
	t.Helper()
	ns.WaitFor(t, "jsonpath={.status.phase}=Bound", "pvc/"+claim)
	name := ns.Field(t, "pvc/"+claim, ".spec.volumeName")
	return volume{ns, name, ns.Field(t, "pv/"+name, ".spec.local.path")}
}

func (v volume) field(t *testing.T, path string) string {
	t.Helper()
	return v.ns.Field(t, "pv/"+v.name, path)
}

// gone waits until neither volume nor directory is there.
func (v volume) gone(t *testing.T, n *cluster.Node) {
	t.Helper()
	v.ns.WaitFor(t, "delete", "pv/"+v.name)
	if _, err := os.Lstat(n.Path(v.path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the volume is gone, its directory is not: %v", err)
	}
}

// ready makes a claim and a pod on a node that uses it, and waits until it runs.
func ready(t *testing.T, ns *cluster.Namespace, n *cluster.Node, name string, more ...string) volume {
	t.Helper()
	ns.Apply(t, claim(name, more...)+user(name, name, on(n)))
	ns.WaitFor(t, "condition=Ready", "pod/"+name)
	return volumeOf(t, ns, name)
}

// drop deletes the pod and the claim that ready made.
func drop(t *testing.T, ns *cluster.Namespace, name string) {
	t.Helper()
	ns.Kubectl(t, "delete", "pod", name, "--ignore-not-found")
	ns.Kubectl(t, "delete", "pvc", name)
}

// hasEvent waits until an event about an object holds a text.
func hasEvent(t *testing.T, ns *cluster.Namespace, namespace, object, text string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		out := ns.Node.Kubectl(t, "get", "events", "--namespace="+namespace, "--field-selector=involvedObject.name="+object,
			"-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
		if !strings.Contains(out, text) {
			return fmt.Errorf("no event about %s says %q:\n%s", object, text, out)
		}
		return nil
	})
}

func (s *suite) testVolume(t *testing.T) {
	ns := s.Server().Namespace(t)
	// As a user of its own, with a group for its files.
	ns.Apply(t, claim("data")+user("data", "data", on(s.a), "securityContext: {runAsUser: 1234, runAsGroup: 1234, fsGroup: 4321}"))
	ns.WaitFor(t, "condition=Ready", "pod/data")
	v := volumeOf(t, ns, "data")
	if got := ns.Exec(t, "data", "sh", "-c", "echo kept > /data/file && stat -c %u:%g /data/file"); got != "1234:4321\n" {
		t.Errorf("a file of the pod's is %s", got)
	}

	if want := "/var/lib/lite/storage/" + v.name + "_" + ns.Name + "_data"; v.path != want {
		t.Errorf("the directory is %s, not %s", v.path, want)
	}
	info, err := os.Lstat(s.a.Path(v.path))
	if err != nil || info.Mode().Perm() != 0o777 || !info.IsDir() {
		t.Errorf("the directory has mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Lstat(filepath.Dir(s.a.Path(v.path))); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("the directory of volumes has mode %v, %v", info.Mode(), err)
	}
	if got := v.field(t, ".spec.nodeAffinity.required.nodeSelectorTerms[*].matchExpressions[*]"); got != `{"key":"kubernetes.io/hostname","operator":"In","values":["`+s.a.Name+`"]}` {
		t.Errorf("node affinity: %s", got)
	}
	for path, want := range map[string]string{
		".spec.storageClassName": "local-path", ".spec.capacity.storage": "1Gi", ".spec.persistentVolumeReclaimPolicy": "Delete",
		".spec.accessModes[*]": "ReadWriteOnce", ".spec.volumeMode": "Filesystem", ".spec.claimRef.name": "data",
	} {
		if got := v.field(t, path); got != want {
			t.Errorf("%s is %q, not %q", path, got, want)
		}
	}

	// Its pods go where it is, and see what was there.
	ns.Kubectl(t, "delete", "pod", "data")
	ns.Apply(t, user("again", "data"))
	ns.WaitFor(t, "condition=Ready", "pod/again")
	if got := ns.Field(t, "pod/again", ".spec.nodeName"); got != s.a.Name {
		t.Errorf("the pod runs on %s, its volume is on %s", got, s.a.Name)
	}
	if got := ns.Exec(t, "again", "sh", "-c", "touch /data/more && cat /data/file"); got != "kept\n" {
		t.Errorf("the pod reads %q", got)
	}
	ns.Apply(t, user("elsewhere", "data", on(s.b)))
	ns.WaitFor(t, "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable", "pod/elsewhere")

	ns.Kubectl(t, "delete", "pod", "again", "elsewhere")
	drop(t, ns, "data")
	v.gone(t, s.a)
	if out := s.a.Output(t, "lite", "status"); !strings.Contains(out, "GiB free in /var/lib/lite/storage") {
		t.Errorf("lite status does not say what is free:\n%s", out)
	}
}

// ReadWriteOncePod, and the directory that this node's user has chosen.
func (s *suite) testPathOfNode(t *testing.T) {
	ns := s.Server().Namespace(t)
	v := ready(t, ns, s.b, "data", "accessModes: [ReadWriteOncePod]")
	if filepath.Dir(v.path) != otherPath {
		t.Errorf("the volume is in %s, not in %s", v.path, otherPath)
	}
	drop(t, ns, "data")
	v.gone(t, s.b)
}

func (s *suite) testRetain(t *testing.T) {
	ns := s.Server().Namespace(t)
	ns.Apply(t, class("keep", "reclaimPolicy: Retain"))
	v := ready(t, ns, s.a, "data", "storageClassName: keep")
	ns.Exec(t, "data", "sh", "-c", "echo kept > /data/file")
	drop(t, ns, "data")
	ns.WaitFor(t, "jsonpath={.status.phase}=Released", "pv/"+v.name)
	ns.Kubectl(t, "delete", "pv", v.name, "--timeout=40s")
	if got := s.a.ReadFile(t, v.path+"/file"); got != "kept\n" {
		t.Errorf("the data is %q", got)
	}
	ns.Kubectl(t, "delete", "storageclass", "keep")
}

func class(name string, more ...string) string {
	text := "---\napiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: " + name + "}\nprovisioner: lite.io/local-path\n"
	if !strings.Contains(strings.Join(more, "\n"), "volumeBindingMode") {
		text += "volumeBindingMode: WaitForFirstConsumer\n"
	}
	return text + strings.Join(more, "\n") + "\n"
}

// What a directory cannot be is refused in words.
func (s *suite) testRefused(t *testing.T) {
	ns := s.Server().Namespace(t)
	ns.Apply(t, class("at-once", "volumeBindingMode: Immediate")+class("parameters", "parameters: {size: big}"))
	for name, test := range map[string]struct{ spec, event string }{
		"shared":     {"accessModes: [ReadWriteMany]", "access mode ReadWriteMany is not possible: a volume of class local-path is a directory of one node"},
		"block":      {"volumeMode: Block", "volumeMode Block is not possible"},
		"selector":   {"selector: {matchLabels: {a: b}}", "a claim with a selector does not get a new volume"},
		"parameters": {"storageClassName: parameters", `class parameters has the parameter "size"`},
		"at-once":    {"storageClassName: at-once", "give it volumeBindingMode WaitForFirstConsumer"},
	} {
		pod := user(name, name, on(s.a))
		if name == "block" {
			pod = strings.Replace(pod, "volumeMounts: [{name: data, mountPath: /data}]", "volumeDevices: [{name: data, devicePath: /dev/x}]", 1)
		}
		ns.Apply(t, claim(name, test.spec)+pod)
		hasEvent(t, ns, ns.Name, name, test.event)
		if phase := ns.Field(t, "pvc/"+name, ".status.phase"); phase != "Pending" {
			t.Errorf("claim %s is %s", name, phase)
		}
	}
	ns.Kubectl(t, "delete", "storageclass", "at-once", "parameters")
}

func (s *suite) testNoSuchClass(t *testing.T) {
	ns := s.Server().Namespace(t)
	ns.Apply(t, claim("data", "storageClassName: nothing")+user("data", "data"))
	hasEvent(t, ns, ns.Name, "data", `storageclass.storage.k8s.io "nothing" not found`)
	if phase := ns.Field(t, "pvc/data", ".status.phase"); phase != "Pending" {
		t.Errorf("the claim is %s", phase)
	}
}

func (s *suite) testExpansion(t *testing.T) {
	ns := s.Server().Namespace(t)
	v := ready(t, ns, s.a, "data")
	out, err := ns.KubectlErr(t, "patch", "pvc", "data", "-p", `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	if err == nil || !strings.Contains(out, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize") {
		t.Errorf("to make a claim larger answers %v: %s", err, out)
	}
	drop(t, ns, "data")
	v.gone(t, s.a)
}
