package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// A node that is away delays the removal and does not lose it.
func (s *suite) testNodeAway(t *testing.T) {
	ns := s.Server().Namespace(t)
	v, w := ready(t, ns, s.a, "data"), ready(t, ns, s.a, "forever")
	ns.Kubectl(t, "delete", "pod", "data", "forever")
	s.a.Stop(t)
	drop(t, ns, "data")
	drop(t, ns, "forever")
	ns.WaitFor(t, "jsonpath={.status.reason}=WaitingForNode", "pv/"+v.name, "pv/"+w.name)
	if got := v.field(t, ".status.phase") + " " + v.field(t, ".status.message"); !strings.HasPrefix(got, "Released Waiting for lite on node "+s.a.Name+" to remove the data.") {
		t.Errorf("the volume is %s", got)
	}
	if _, err := os.Stat(s.a.Path(v.path)); err != nil {
		t.Error(err)
	}
	// One is let go of as the message says.
	ns.Kubectl(t, "patch", "pv", w.name, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	ns.Kubectl(t, "delete", "pv", w.name, "--timeout=40s")

	s.a.Start(t)
	v.gone(t, s.a)
	if _, err := os.Stat(s.a.Path(w.path)); err != nil {
		t.Errorf("data to be retained: %v", err)
	}
}

// Between the volume and its directory, the process dies.
func (s *suite) testKilledBeforeMkdir(t *testing.T) {
	ns := s.Server().Namespace(t)
	s.a.Kill(t) // the cluster takes 40 s to notice
	ns.Apply(t, claim("data")+user("data", "data", on(s.a)))
	v := volumeOf(t, ns, "data")
	if _, err := os.Lstat(s.a.Path(v.path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("who has made the directory? %v", err)
	}
	s.a.Start(t)
	ns.WaitFor(t, "condition=Ready", "pod/data")
	drop(t, ns, "data")
	v.gone(t, s.a)
}

// In the middle of a removal, which a file that cannot be removed makes sure of,
// the process dies.
func (s *suite) testKilledWhileRemoving(t *testing.T) {
	ns := s.Server().Namespace(t)
	v := ready(t, ns, s.a, "data")
	for i := range 1000 {
		s.a.WriteFile(t, fmt.Sprintf("%s/%d/file", v.path, i), "x")
	}
	s.a.Output(t, "chattr", "+i", v.path+"/500/file")
	drop(t, ns, "data")
	hasEvent(t, ns, "default", v.name, "operation not permitted")
	s.a.Kill(t)
	if v.field(t, ".status.phase") != "Released" {
		t.Error("the volume is not released")
	}
	s.a.Output(t, "chattr", "-i", v.path+"/500/file")
	s.a.Start(t)
	v.gone(t, s.a)
}

// A StatefulSet has its data again after each of its pods, of lite and of the
// node has been restarted.
func (s *suite) testStatefulSet(t *testing.T) {
	ns := s.Server().Namespace(t)
	ns.Apply(t, cluster.Database(2, cluster.Idle(s.b)))
	ns.WaitRollout(t, "statefulset/db")
	volumes := map[string]volume{}
	for _, pod := range []string{"db-0", "db-1"} {
		ns.Exec(t, pod, "sh", "-c", "echo of "+pod+" > /data/file && sync")
		volumes[pod] = volumeOf(t, ns, "data-"+pod)
	}
	check := func(after string) {
		t.Helper()
		for pod, v := range volumes {
			cluster.Eventually(t, soon, func() error {
				out, err := ns.KubectlErr(t, "exec", pod, "--", "cat", "/data/file")
				if err != nil {
					return fmt.Errorf("after %s: %w: %s", after, err, out)
				}
				if out != "of "+pod+"\n" {
					t.Errorf("after %s: %s reads %q", after, pod, out)
				}
				return nil
			})
			if now := volumeOf(t, ns, "data-"+pod); now.name != v.name {
				t.Errorf("after %s: %s has another volume", after, pod)
			}
		}
	}
	ns.Kubectl(t, "delete", "pod", "db-0", "db-1")
	ns.WaitRollout(t, "statefulset/db")
	check("a restart of the pods")

	versions := "jsonpath={.items[*].metadata.resourceVersion}"
	before := ns.Kubectl(t, "get", "pv", "-o", versions)
	s.b.Stop(t)
	s.b.Start(t)
	s.Server().Stop(t)
	s.Server().Start(t)
	check("a restart of lite")
	if after := ns.Kubectl(t, "get", "pv", "-o", versions); after != before {
		t.Errorf("a restart has changed volumes: %s, %s", before, after)
	}

	s.b.Reboot(t)
	s.b.Start(t)
	check("a reboot of the node")

	ns.Kubectl(t, "delete", "statefulset", "db")
	ns.Kubectl(t, "delete", "pvc", "--all")
	for _, v := range volumes {
		v.gone(t, s.b)
	}
}

// Which class is the default is for users to say, also after a restart.
func (s *suite) testDefaultClass(t *testing.T) {
	server := s.Server()
	server.Kubectl(t, "annotate", "storageclass", "local-path", "--overwrite", "storageclass.kubernetes.io/is-default-class=false")
	server.Stop(t)
	server.Start(t)
	get := func() string {
		return server.Kubectl(t, "get", "storageclass", "local-path", "-o", `jsonpath={.metadata.annotations.storageclass\.kubernetes\.io/is-default-class}`)
	}
	if got := get(); got != "false" {
		t.Errorf("after a restart the class says that it is the default: %s", got)
	}
	server.Kubectl(t, "annotate", "storageclass", "local-path", "--overwrite", "storageclass.kubernetes.io/is-default-class=true")
}

// Without storage the cluster has none of its objects; volumes and data stay,
// and what was to be removed is when it is back.
func (s *suite) testDisabled(t *testing.T) {
	ns := s.Server().Namespace(t)
	v, w := ready(t, ns, s.a, "data"), ready(t, ns, s.a, "other")
	ns.Exec(t, "data", "sh", "-c", "echo kept > /data/file")
	restart := func(args ...string) {
		s.Server().Stop(t)
		s.Server().Start(t, args...)
		for _, agent := range s.Agents {
			agent.Stop(t)
			agent.Launch(t)
		}
		for _, agent := range s.Agents {
			agent.WaitReady(t)
		}
	}
	objects := []string{"storageclass/local-path", "validatingadmissionpolicy/storage.lite.io",
		"validatingadmissionpolicybinding/storage.lite.io", "clusterrole/lite:storage", "clusterrolebinding/lite:storage"}
	restart("--disable=storage")
	for _, object := range objects {
		if out, err := ns.KubectlErr(t, "get", object); err == nil || !strings.Contains(out, "not found") {
			t.Errorf("%s: %v: %s", object, err, out)
		}
	}
	for _, n := range append(s.Servers[:1:1], s.Agents...) {
		if out := n.Output(t, "lite", "status"); strings.Contains(out, "volumes") || strings.Contains(out, "storage") {
			t.Errorf("%s has a part of storage:\n%s", n.Name, out)
		}
		cluster.Eventually(t, soon, func() error {
			if got := ns.Field(t, "node/"+n.Name, ".metadata['labels','annotations']"); strings.Contains(got, "lite.io/storage") {
				return fmt.Errorf("node %s still says that it has volumes: %s", n.Name, got)
			}
			return nil
		})
	}
	ns.Kubectl(t, "delete", "pod", "data", "other")
	drop(t, ns, "other")
	ns.WaitFor(t, "jsonpath={.status.phase}=Released", "pv/"+w.name)
	ns.Apply(t, user("data", "data"))
	ns.WaitFor(t, "condition=Ready", "pod/data")
	if got := ns.Exec(t, "data", "cat", "/data/file"); got != "kept\n" {
		t.Errorf("the data is %q", got)
	}
	if entries, err := filepath.Glob(s.a.Path(w.path)); err != nil || len(entries) != 1 {
		t.Errorf("%s: %q, %v", w.path, entries, err)
	}

	restart()
	w.gone(t, s.a)
	for _, object := range objects {
		ns.Kubectl(t, "get", object)
	}
	drop(t, ns, "data")
	v.gone(t, s.a)
}
