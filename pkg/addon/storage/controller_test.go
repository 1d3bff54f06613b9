package storage

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/layout"
)

func aNode(path, host string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{}, Labels: map[string]string{}}}
	if path != "" {
		n.Annotations[layout.StoragePathAnnotation] = path
	}
	if host != "" {
		n.Labels[v1.LabelHostname] = host
	}
	return n
}

// pending is a claim that waits for a volume on node a.
func pending() *v1.PersistentVolumeClaim {
	class := "c"
	return &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "data", UID: "1", Annotations: map[string]string{claimProvisioner: layout.Provisioner, selectedNode: "a"},
		},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			Resources:        v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func aClass() *storagev1.StorageClass {
	retain, wait := v1.PersistentVolumeReclaimRetain, storagev1.VolumeBindingWaitForFirstConsumer
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "c"}, Provisioner: layout.Provisioner,
		ReclaimPolicy: &retain, VolumeBindingMode: &wait, MountOptions: []string{"noatime"},
	}
}

// controllerWith has seen the claims and volumes among the objects.
func controllerWith(t *testing.T, objects ...runtime.Object) (*Controller, *fake.Clientset) {
	t.Helper()
	client := fake.NewSimpleClientset(objects...)
	c := New(Config{})
	c.use(client)
	c.claims, c.volumes = watchClaims(client), watchVolumes(client, "")
	for _, o := range objects {
		switch o.(type) {
		case *v1.PersistentVolumeClaim:
			_ = c.claims.Add(o)
		case *v1.PersistentVolume:
			_ = c.volumes.Add(o)
		}
	}
	return c, client
}

func eventsOf(t *testing.T, client *fake.Clientset) (texts []string) {
	t.Helper()
	events, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		texts = append(texts, e.InvolvedObject.Kind+" "+e.InvolvedObject.Name+": "+e.Type+" "+e.Reason+": "+e.Message)
	}
	return texts
}

func TestProvision(t *testing.T) {
	c, client := controllerWith(t, aNode("/disk", "host-a"), aClass(), pending())
	if !c.sync(t.Context()) {
		t.Fatal(c.problems.note())
	}
	pv, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	term := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	size := pv.Spec.Capacity[v1.ResourceStorage]
	if pv.Labels[layout.VolumeNodeLabel] != "a" || pv.Annotations[provisionedBy] != layout.Provisioner || pv.Spec.Local.Path != "/disk/pvc-1_ns_data" ||
		term.Key != v1.LabelHostname || term.Values[0] != "host-a" || size.String() != "1Gi" || pv.Spec.ClaimRef.UID != "1" ||
		pv.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimRetain || len(pv.Finalizers) != 0 || pv.Spec.MountOptions[0] != "noatime" {
		t.Errorf("got %+v", pv)
	}
	if name, err := entryOf(pv, "/disk"); err != nil || name != "pvc-1_ns_data" {
		t.Errorf("the node does not take it for its own: %v", err)
	}
	if got := eventsOf(t, client); len(got) != 1 || got[0] != "PersistentVolumeClaim data: Normal ProvisioningSucceeded: Successfully provisioned volume pvc-1" {
		t.Errorf("events: %q", got)
	}
	if !c.sync(t.Context()) { // before its own watch has delivered the volume
		t.Error(c.problems.note())
	}
}

func TestProvisionRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		claim func(*v1.PersistentVolumeClaim)
		class func(*storagev1.StorageClass)
		node  *v1.Node
		again bool // the scheduler chooses again
		says  string
	}{
		"many writers": {claim: func(c *v1.PersistentVolumeClaim) { c.Spec.AccessModes[0] = v1.ReadWriteMany }, says: "access mode ReadWriteMany is not possible"},
		"many readers": {claim: func(c *v1.PersistentVolumeClaim) { c.Spec.AccessModes[0] = v1.ReadOnlyMany }, says: "access mode ReadOnlyMany is not possible"},
		"block":        {claim: func(c *v1.PersistentVolumeClaim) { m := v1.PersistentVolumeBlock; c.Spec.VolumeMode = &m }, says: "volumeMode Block is not possible"},
		"selector":     {claim: func(c *v1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} }, says: "with a selector"},
		"data source":  {claim: func(c *v1.PersistentVolumeClaim) { c.Spec.DataSource = &v1.TypedLocalObjectReference{} }, says: "data source"},
		"no class":     {claim: func(c *v1.PersistentVolumeClaim) { n := "d"; c.Spec.StorageClassName = &n }, says: `"d" not found`},
		"parameters":   {class: func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"a": "b"} }, says: `the parameter "a"`},
		"does not wait": {
			class: func(c *storagev1.StorageClass) { c.VolumeBindingMode = nil },
			claim: func(c *v1.PersistentVolumeClaim) { delete(c.Annotations, selectedNode) },
			says:  "volumeBindingMode WaitForFirstConsumer",
		},
		"no node yet":        {claim: func(c *v1.PersistentVolumeClaim) { delete(c.Annotations, selectedNode) }},
		"of others":          {claim: func(c *v1.PersistentVolumeClaim) { c.Annotations[claimProvisioner] = "other" }},
		"bound":              {claim: func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }},
		"node is gone":       {claim: func(c *v1.PersistentVolumeClaim) { c.Annotations[selectedNode] = "b" }, again: true, says: `nodes "b" not found`},
		"node without":       {node: aNode("", "host-a"), again: true, says: "node a has no directory for volumes"},
		"relative directory": {node: aNode("disk", "host-a"), again: true, says: "node a has no directory for volumes"},
		"node without label": {node: aNode("/disk", ""), again: true, says: "node a has no directory for volumes"},
	} {
		t.Run(name, func(t *testing.T) {
			node, claim, class := test.node, pending(), aClass()
			if node == nil {
				node = aNode("/disk", "host-a")
			}
			if test.claim != nil {
				test.claim(claim)
			}
			if test.class != nil {
				test.class(class)
			}
			before := claim.Annotations[selectedNode]
			c, client := controllerWith(t, node, class, claim)
			for range 3 { // it is reported once
				c.sync(t.Context())
			}
			if pvs, err := client.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{}); err != nil || len(pvs.Items) > 0 {
				t.Errorf("there is a volume: %v, %v", pvs, err)
			}
			got := eventsOf(t, client)
			if test.says == "" && len(got) > 0 || test.says != "" && (len(got) != 1 || !strings.Contains(got[0], test.says)) {
				t.Errorf("events: %q", got)
			}
			now, err := client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "data", metav1.GetOptions{})
			if err != nil || (now.Annotations[selectedNode] != before) != test.again {
				t.Errorf("the node is %q, %v", now.Annotations[selectedNode], err)
			}
		})
	}
}

func TestFollow(t *testing.T) {
	now := metav1.Now()
	held := []string{"kubernetes.io/pv-protection", layout.VolumeFinalizer}
	for name, test := range map[string]struct {
		phase      v1.PersistentVolumePhase
		policy     v1.PersistentVolumeReclaimPolicy
		state      string
		finalizers []string
		deleted    bool
		want       string // what is done
	}{
		"bound":                       {phase: v1.VolumeBound, policy: "Delete", state: stateReady, finalizers: held},
		"bound, not held":             {phase: v1.VolumeBound, policy: "Delete", state: stateReady, want: "patch persistentvolumes/"},
		"bound, to be retained":       {phase: v1.VolumeBound, policy: "Retain", state: stateReady, finalizers: held, want: "patch persistentvolumes/"},
		"bound, being deleted":        {phase: v1.VolumeBound, policy: "Delete", state: stateReady, finalizers: held, deleted: true},
		"retained":                    {phase: v1.VolumeReleased, policy: "Retain", state: stateReady},
		"retained, being deleted":     {phase: v1.VolumeReleased, policy: "Retain", state: stateReady, finalizers: held, deleted: true, want: "patch persistentvolumes/"},
		"data is there":               {phase: v1.VolumeReleased, policy: "Delete", state: stateReady, finalizers: held, want: "patch persistentvolumes/status"},
		"never made":                  {phase: v1.VolumeReleased, policy: "Delete", finalizers: held, want: "patch persistentvolumes/status"},
		"data is gone":                {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, finalizers: held, want: "delete persistentvolumes/"},
		"data is gone, being deleted": {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, finalizers: held, deleted: true, want: "patch persistentvolumes/"},
		"only others hold it":         {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, finalizers: held[:1], deleted: true},
	} {
		t.Run(name, func(t *testing.T) {
			pv := localVolume("pvc-1", "/disk/pvc-1_a_b")
			pv.Labels = map[string]string{layout.VolumeNodeLabel: "a"}
			pv.Status.Phase, pv.Spec.PersistentVolumeReclaimPolicy = test.phase, test.policy
			pv.Annotations = map[string]string{provisionedBy: layout.Provisioner, layout.VolumeAnnotation: test.state}
			pv.Finalizers = test.finalizers
			if test.deleted {
				pv.DeletionTimestamp = &now
			}
			c, client := controllerWith(t, pv)
			if !c.sync(t.Context()) {
				t.Error(c.problems.note())
			}
			var done []string
			for _, a := range client.Actions() {
				done = append(done, a.GetVerb()+" persistentvolumes/"+a.GetSubresource())
			}
			if got := strings.Join(done, ", "); got != test.want {
				t.Errorf("did %q, want %q", got, test.want)
			}
		})
	}
}

func TestTrimClaim(t *testing.T) {
	claim := pending()
	claim.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
	if o := trimClaim(claim); o.ManagedFields != nil || !waits(o) {
		t.Errorf("one that waits is %+v", o)
	}
	claim.Spec.VolumeName = "v"
	if o := trimClaim(claim); o != nil {
		t.Errorf("one that has its volume is %+v", o)
	}
}
