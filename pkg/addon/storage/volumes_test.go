package storage

import (
	"os"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/layout"
)

// nodeWith is the half of node a, which has seen the given volumes.
func nodeWith(t *testing.T, volumes ...*v1.PersistentVolume) (*Volumes, *fake.Clientset) {
	t.Helper()
	client := fake.NewSimpleClientset(aNode("", "a"))
	v := NewVolumes(VolumesConfig{NodeName: "a", Path: t.TempDir() + "/storage"})
	v.use(client)
	v.volumes, v.published = watchVolumes(client, ""), true
	for _, pv := range volumes {
		if err := client.Tracker().Add(pv); err != nil {
			t.Fatal(err)
		}
		if err := v.volumes.Add(pv); err != nil {
			t.Fatal(err)
		}
	}
	return v, client
}

// ours is a volume of node a whose root is put in by the caller.
func ours(phase v1.PersistentVolumePhase, policy v1.PersistentVolumeReclaimPolicy, state string) *v1.PersistentVolume {
	pv := localVolume("pvc-1", "")
	pv.UID = "u"
	pv.Annotations = map[string]string{provisionedBy: layout.Provisioner}
	if state != "" {
		pv.Annotations[layout.VolumeAnnotation] = state
	}
	pv.Status.Phase, pv.Spec.PersistentVolumeReclaimPolicy = phase, policy
	pv.Spec.ClaimRef = &v1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "ns", Name: "data"}
	return pv
}

func TestSync(t *testing.T) {
	foreign := func(pv *v1.PersistentVolume) { pv.Annotations[provisionedBy] = "other" }
	deleted := func(pv *v1.PersistentVolume) { now := metav1.Now(); pv.DeletionTimestamp = &now }
	const there = "there"
	for name, test := range map[string]struct {
		phase  v1.PersistentVolumePhase
		policy v1.PersistentVolumeReclaimPolicy
		state  string
		change func(*v1.PersistentVolume)
		before string // the directory: "" or there
		after  string
		says   string
	}{
		"new":                       {phase: v1.VolumePending, policy: "Delete", after: there},
		"bound":                     {phase: v1.VolumeBound, policy: "Delete", after: there, says: stateReady},
		"bound, made before":        {phase: v1.VolumeBound, policy: "Delete", before: there, after: there, says: stateReady},
		"its directory is lost":     {phase: v1.VolumeBound, policy: "Delete", state: stateReady, says: stateReady},
		"in use":                    {phase: v1.VolumeBound, policy: "Delete", state: stateReady, before: there, after: there, says: stateReady},
		"in use, deleted":           {phase: v1.VolumeBound, policy: "Delete", state: stateReady, change: deleted, before: there, after: there, says: stateReady},
		"retained":                  {phase: v1.VolumeReleased, policy: "Retain", state: stateReady, before: there, after: there, says: stateReady},
		"retained, deleted":         {phase: v1.VolumeReleased, policy: "Retain", state: stateReady, change: deleted, before: there, after: there, says: stateReady},
		"released":                  {phase: v1.VolumeReleased, policy: "Delete", state: stateReady, before: there, says: stateRemoved},
		"released, deleted":         {phase: v1.VolumeReleased, policy: "Delete", state: stateReady, change: deleted, before: there, says: stateRemoved},
		"released, never made":      {phase: v1.VolumeReleased, policy: "Delete", says: stateRemoved},
		"removed":                   {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, before: there, after: there, says: stateRemoved},
		"of others":                 {phase: v1.VolumeBound, policy: "Delete", change: foreign},
		"of others, released":       {phase: v1.VolumeReleased, policy: "Delete", change: foreign, before: there, after: there},
		"being deleted before made": {phase: v1.VolumePending, policy: "Delete", change: deleted},
	} {
		t.Run(name, func(t *testing.T) {
			pv := ours(test.phase, test.policy, test.state)
			if test.change != nil {
				test.change(pv)
			}
			v, client := nodeWith(t, pv)
			pv.Spec.Local.Path = string(v.dir) + "/pvc-1_ns_data"
			if err := client.Tracker().Update(v1.SchemeGroupVersion.WithResource("persistentvolumes"), pv, ""); err != nil {
				t.Fatal(err)
			}
			mkdir(t, string(v.dir))
			if test.before == there {
				write(t, pv.Spec.Local.Path+"/file")
			}
			if !v.sync(t.Context()) {
				t.Error(v.problems.note())
			}
			v.removals.Wait()
			if note := v.problems.note(); note != "" || len(v.removing) > 0 {
				t.Error(note)
			}
			if exists(t, pv.Spec.Local.Path) != (test.after == there) {
				t.Errorf("the directory is to be %q", test.after)
			}
			now, err := client.CoreV1().PersistentVolumes().Get(t.Context(), pv.Name, metav1.GetOptions{})
			if err != nil || now.Annotations[layout.VolumeAnnotation] != test.says {
				t.Errorf("the node says %q, %v", now.Annotations[layout.VolumeAnnotation], err)
			}
		})
	}
}

// Who changes a volume to be retained while its removal waits has kept the data.
func TestEraseAsksOnceMore(t *testing.T) {
	for name, change := range map[string]func(*v1.PersistentVolume){
		"retained": func(pv *v1.PersistentVolume) {
			pv.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
		},
		"bound again": func(pv *v1.PersistentVolume) { pv.Status.Phase = v1.VolumeBound },
		"another":     func(pv *v1.PersistentVolume) { pv.UID = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			pv := ours(v1.VolumeReleased, "Delete", stateReady)
			v, client := nodeWith(t, pv)
			pv.Spec.Local.Path = string(v.dir) + "/pvc-1_ns_data"
			write(t, pv.Spec.Local.Path+"/file")
			now := pv.DeepCopy()
			change(now)
			if err := client.Tracker().Update(v1.SchemeGroupVersion.WithResource("persistentvolumes"), now, ""); err != nil {
				t.Fatal(err)
			}
			if err := v.erase(t.Context(), pv); err != nil {
				t.Error(err)
			}
			if !exists(t, pv.Spec.Local.Path+"/file") {
				t.Error("the data is gone")
			}
		})
	}
}

func TestProblemIsReportedOnceAndForgotten(t *testing.T) {
	pv := ours(v1.VolumePending, "Delete", "")
	pv.Spec.Local.Path = "/elsewhere/pvc-1_ns_data"
	v, client := nodeWith(t, pv)
	for range 3 {
		if v.sync(t.Context()) {
			t.Error("all is well")
		}
	}
	events, err := client.CoreV1().Events("ns").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) != 1 {
		t.Fatalf("%v, %v", events, err)
	}
	if e := events.Items[0]; e.InvolvedObject.Name != "data" || e.Reason != "ProvisioningFailed" || !strings.HasPrefix(e.Message, "On node a: ") {
		t.Errorf("got %+v", e)
	}
	if note := v.Note(); !strings.HasPrefix(note, "volumes with problems: 1; pvc-1: ") {
		t.Errorf("note: %s", note)
	}
	if err := v.volumes.Delete(pv); err != nil {
		t.Fatal(err)
	}
	if !v.sync(t.Context()) || strings.Contains(v.Note(), "problem") {
		t.Errorf("the problem is still there: %s", v.Note())
	}
}

func TestPublish(t *testing.T) {
	v, client := nodeWith(t)
	path := func() string {
		n, err := client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		path := n.Annotations[layout.StoragePathAnnotation]
		if (n.Labels[layout.StorageLabel] == "true") != (path != "") {
			t.Errorf("the node says %q, with the labels %v", path, n.Labels)
		}
		return path
	}
	if err := v.publish(t.Context()); err != nil || path() != string(v.dir) {
		t.Errorf("%q, %v", path(), err)
	}
	if !strings.Contains(v.Note(), "GiB free in "+string(v.dir)) {
		t.Errorf("note: %s", v.Note())
	}
	// A file in its place: the node has no volumes to give.
	if err := os.Remove(string(v.dir)); err != nil {
		t.Fatal(err)
	}
	write(t, string(v.dir))
	v.rootless = v.publish(t.Context())
	if v.rootless == nil || path() != "" || !strings.HasPrefix(v.Note(), "no volumes on this node: create the directory of volumes: ") {
		t.Errorf("%q, %v", path(), v.rootless)
	}
}
