package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// asNode is kubectl with a node's identity.
func asNode(n *cluster.Node, args ...string) []string {
	return append([]string{"--as=system:node:" + n.Name, "--as-group=system:nodes", "--as-group=system:authenticated"}, args...)
}

// A node may say of its own volumes what has become of the directory, and change
// nothing else of any.
func (s *suite) testNodesRights(t *testing.T) {
	ns := s.Server().Namespace(t)
	v := ready(t, ns, s.a, "data")
	patch := func(n *cluster.Node, kind, patch string, more ...string) (string, error) {
		return s.Server().KubectlErr(t, asNode(n, append([]string{"patch", "pv", v.name, "--type=" + kind, "-p", patch}, more...)...)...)
	}
	const foreign, only = "the volume does not belong to this node", "of a volume a node may change only the annotation lite.io/local-volume"
	for _, test := range []struct {
		what, patch, message string
		node                 *cluster.Node
	}{
		{"another's volume", `{"metadata":{"annotations":{"lite.io/local-volume":"removed"}}}`, foreign, s.b},
		{"a label", `{"metadata":{"labels":{"lite.io/node":"` + s.b.Name + `"}}}`, only, s.a},
		{"a finalizer", `{"metadata":{"finalizers":null}}`, only, s.a},
		{"another annotation", `{"metadata":{"annotations":{"a":"b"}}}`, only, s.a},
		{"removing an annotation", `{"metadata":{"annotations":{"pv.kubernetes.io/provisioned-by":null}}}`, only, s.a},
		{"an owner", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"y"}]}}`, only, s.a},
		{"the policy", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`, only, s.a},
	} {
		if out, err := patch(test.node, "merge", test.patch); err == nil || !strings.Contains(out, test.message) {
			t.Errorf("%s: %v: %s", test.what, err, out)
		}
	}
	if out, err := patch(s.a, "merge", `{"metadata":{"annotations":{"lite.io/local-volume":"ready"}}}`); err != nil {
		t.Errorf("its own annotation: %v: %s", err, out)
	}
	if out, err := patch(s.a, "merge", `{"status":{"phase":"Failed"}}`, "--subresource=status"); err == nil || !strings.Contains(out, "forbidden") {
		t.Errorf("the status: %v: %s", err, out)
	}
	for _, verb := range []string{"create", "delete", "update", "deletecollection"} {
		if out, err := s.Server().KubectlErr(t, asNode(s.a, "auth", "can-i", verb, "pv")...); err == nil {
			t.Errorf("a node may %s volumes: %s", verb, out)
		}
	}
	manifest := handmade("pvc-by-node", s.a, "/var/lib/lite/storage/pvc-by-node_x_y")
	out, err := s.Server().Command(t.Context(), "sh", append([]string{"-c", `printf '%s' "$0" | lite kubectl apply --server-side -f - "$@"`, manifest}, asNode(s.a)...)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "forbidden") {
		t.Errorf("a node applies a volume: %v: %s", err, out)
	}
	drop(t, ns, "data")
	v.gone(t, s.a)
}

// handmade is a volume that somebody wrote who may, released from the beginning:
// its claim never was.
func handmade(name string, n *cluster.Node, path string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: PersistentVolume
metadata:
  name: %s
  labels: {lite.io/node: %s}
  annotations: {pv.kubernetes.io/provisioned-by: lite.io/local-path, lite.io/local-volume: ready}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  persistentVolumeReclaimPolicy: Delete
  storageClassName: local-path
  local: {path: %s}
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: default, name: never, uid: 00000000-0000-0000-0000-000000000000}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}]}}
`, name, n.Name, path, n.Name)
}

// Volumes that lead elsewhere: nothing there is removed, and it is said why.
func (s *suite) testAttacks(t *testing.T) {
	ns := s.Server().Namespace(t)
	const root = "/var/lib/lite/storage"
	for _, file := range []string{"/var/lib/precious/file", "/var/lib/precious/pvc-a_b_c/file", root + "/other/file", root + "/pvc-other_b_c/file"} {
		s.a.WriteFile(t, file, "precious")
	}
	if out, err := ns.ApplyErr(t, handmade("pvc-dots", s.a, root+"/../../precious")); err == nil || !strings.Contains(out, "must not contain '..'") {
		t.Errorf("a path with .. is accepted by the API: %s", out)
	}
	for name, test := range map[string]struct{ path, event string }{
		"pvc-outside": {"/var/lib/precious", "is not directly in " + root},
		"pvc-a":       {"/var/lib/precious/pvc-a_b_c", "is not directly in " + root},
		"pvc-root":    {root, "is not directly in " + root},
		"pvc-slashes": {root + "//pvc-slashes_b_c", "is not directly in " + root},
		"pvc-below":   {root + "/pvc-below_b_c/d", "is not directly in " + root},
		"other":       {root + "/other", "is not named after the volume"},
		"pvc-thief":   {root + "/pvc-other_b_c", "is not named after the volume"},
	} {
		ns.Apply(t, handmade(name, s.a, test.path))
		hasEvent(t, ns, "default", name, test.event)
		ns.Kubectl(t, "patch", "pv", name, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
		ns.Kubectl(t, "delete", "pv", name, "--timeout=40s")
	}

	// A link in the place of a volume: only itself goes.
	if err := os.Symlink("/var/lib/precious", s.a.Path(root+"/pvc-link_b_c")); err != nil {
		t.Fatal(err)
	}
	ns.Apply(t, handmade("pvc-link", s.a, root+"/pvc-link_b_c"))
	volume{ns, "pvc-link", root + "/pvc-link_b_c"}.gone(t, s.a)

	// The directory of volumes itself a link.
	real := s.a.Path(root) + "-moved"
	if err := os.Rename(s.a.Path(root), real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root+"-moved", s.a.Path(root)); err != nil {
		t.Fatal(err)
	}
	ns.Apply(t, handmade("pvc-other", s.a, root+"/pvc-other_b_c"))
	hasEvent(t, ns, "default", "pvc-other", "is a symbolic link; set default-local-storage-path to its target")
	if got := s.a.ReadFile(t, root+"-moved/pvc-other_b_c/file"); got != "precious" {
		t.Errorf("what a link leads to is %q", got)
	}
	if err := os.Remove(s.a.Path(root)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(real, s.a.Path(root)); err != nil {
		t.Fatal(err)
	}
	volume{ns, "pvc-other", root + "/pvc-other_b_c"}.gone(t, s.a)

	for _, file := range []string{"/var/lib/precious/file", "/var/lib/precious/pvc-a_b_c/file", root + "/other/file"} {
		if got := s.a.ReadFile(t, file); got != "precious" {
			t.Errorf("%s holds %q", file, got)
		}
	}
}

// What pods can do within their volume: links out of it, and directories without
// end.
func (s *suite) testLinksAndDepth(t *testing.T) {
	ns := s.Server().Namespace(t)
	other := ready(t, ns, s.a, "other")
	ns.Exec(t, "other", "sh", "-c", "echo kept > /data/file")
	v := ready(t, ns, s.a, "data")
	ns.Exec(t, "data", "sh", "-c", `cd /data && mkdir real .hidden && touch .hidden/x "new
line" && mkfifo pipe && ln -s /var/lib/precious out && ln -s ../`+filepath.Base(other.path)+` next && ln -s real in && mkdir -p $(printf 'd/%.0s' $(seq 200)) &&
		for i in 1 2 3; do n=$(printf 'e/%.0s' $(seq 500)); mkdir -p $n && cd $n; done`)
	s.a.WriteFile(t, "/var/lib/precious/file", "precious")
	drop(t, ns, "data")
	v.gone(t, s.a)
	if got := ns.Exec(t, "other", "cat", "/data/file"); got != "kept\n" {
		t.Errorf("another volume's data is %q", got)
	}
	if got := s.a.ReadFile(t, "/var/lib/precious/file"); got != "precious" {
		t.Errorf("what a link led to is %q", got)
	}
	drop(t, ns, "other")
	other.gone(t, s.a)
}

// What is mounted in a volume is not the volume's.
func (s *suite) testMount(t *testing.T) {
	ns := s.Server().Namespace(t)
	v := ready(t, ns, s.a, "data")
	ns.Exec(t, "data", "mkdir", "-p", "/data/sub/mounted")
	s.a.WriteFile(t, "/var/lib/precious/file", "precious")
	s.a.Output(t, "mount", "--bind", "/var/lib/precious", v.path+"/sub/mounted")
	drop(t, ns, "data")
	hasEvent(t, ns, "default", v.name, "/sub/mounted is mounted in the volume; unmount it")
	if out := s.a.Output(t, "lite", "status"); !strings.Contains(out, "volumes with problems: 1; "+v.name) {
		t.Errorf("lite status does not speak of the volume:\n%s", out)
	}
	s.a.Output(t, "umount", v.path+"/sub/mounted")
	v.gone(t, s.a)
	if got := s.a.ReadFile(t, "/var/lib/precious/file"); got != "precious" {
		t.Errorf("what was mounted is %q", got)
	}
}

// A disk that is full or cannot be written to is said at the claim, and tried
// again.
func (s *suite) testUnwritable(t *testing.T) {
	ns := s.Server().Namespace(t)
	const root = "/var/lib/lite/storage"
	for name, disk := range map[string]struct {
		mount []string
		says  string
	}{
		"full":     {[]string{"-t", "tmpfs", "-o", "nr_inodes=1", "none", root}, ": no space left on device"},
		"readonly": {[]string{"-t", "tmpfs", "-o", "ro", "none", root}, "write to the directory of volumes " + root + ": read-only file system"},
	} {
		s.a.Output(t, "mount", disk.mount...)
		ns.Apply(t, claim(name)+user(name, name, on(s.a)))
		hasEvent(t, ns, ns.Name, name, disk.says)
		s.a.Output(t, "umount", root)
		ns.WaitFor(t, "condition=Ready", "pod/"+name)
		v := volumeOf(t, ns, name)
		drop(t, ns, name)
		v.gone(t, s.a)
	}
}

// A node that can have no volumes works otherwise; the scheduler is told, and
// told again once it can.
func (s *suite) testNoDirectory(t *testing.T) {
	ns := s.Server().Namespace(t)
	const root = "/var/lib/lite/storage"
	s.a.Stop(t)
	if err := os.Rename(s.a.Path(root), s.a.Path(root)+"-saved"); err != nil {
		t.Fatal(err)
	}
	s.a.WriteFile(t, root, "not a directory")
	s.a.Start(t)
	cluster.Eventually(t, soon, func() error {
		if out := s.a.Output(t, "lite", "status"); !strings.Contains(out, "no volumes on this node: create the directory of volumes") {
			return fmt.Errorf("lite status does not say it:\n%s", out)
		}
		return nil
	})
	// The scheduler is told by a label, which not every class asks for.
	ns.Apply(t, class("anywhere")+claim("data")+claim("anyhow", "storageClassName: anywhere")+claim("elsewhere")+
		user("data", "data", on(s.a))+user("anyhow", "anyhow", on(s.a))+user("elsewhere", "elsewhere", "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: "+
		"{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: ["+s.a.Name+"]}]}}]}}"))
	ns.WaitFor(t, "condition=Ready", "pod/elsewhere") // a pod that would like this node runs on another
	hasEvent(t, ns, ns.Name, "data", "node(s) didn't find available persistent volumes to bind")
	hasEvent(t, ns, ns.Name, "anyhow", "node "+s.a.Name+" has no directory for volumes")
	if err := os.Remove(s.a.Path(root)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.a.Path(root)+"-saved", s.a.Path(root)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "anyhow"} {
		ns.WaitFor(t, "condition=Ready", "pod/"+name)
		v := volumeOf(t, ns, name)
		drop(t, ns, name)
		v.gone(t, s.a)
	}
	ns.Kubectl(t, "delete", "pod,pvc", "elsewhere")
	ns.Kubectl(t, "delete", "storageclass", "anywhere")
}

// A directory that has gone, such as with its disk, is not replaced by an empty
// one: the pod would take it for its data.
func (s *suite) testLostDirectory(t *testing.T) {
	ns := s.Server().Namespace(t)
	v := ready(t, ns, s.a, "data")
	ns.Kubectl(t, "delete", "pod", "data")
	if err := os.Rename(s.a.Path(v.path), s.a.Path(v.path)+"-away"); err != nil {
		t.Fatal(err)
	}
	s.a.Stop(t)
	s.a.Start(t)
	ns.Apply(t, user("data", "data"))
	hasEvent(t, ns, ns.Name, "data", fmt.Sprintf("path %q does not exist", v.path))
	if err := os.Rename(s.a.Path(v.path)+"-away", s.a.Path(v.path)); err != nil {
		t.Fatal(err)
	}
	ns.WaitFor(t, "condition=Ready", "pod/data")
	drop(t, ns, "data")
	v.gone(t, s.a)
}
