package storage

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func aNode(path, host string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{}, Labels: map[string]string{}}}
	if path != "" {
		n.Annotations[PathAnnotation] = path
	}
	if host != "" {
		n.Labels[v1.LabelHostname] = host
	}
	return n
}

func request() controller.ProvisionOptions {
	retain := v1.PersistentVolumeReclaimRetain
	return controller.ProvisionOptions{
		StorageClass: &storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{Name: "c"}, Provisioner: Provisioner, ReclaimPolicy: &retain, MountOptions: []string{"noatime"},
		},
		PVName:           "pvc-1",
		SelectedNodeName: "a",
		PVC: &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data"},
			Spec: v1.PersistentVolumeClaimSpec{
				AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
				Resources:   v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		},
	}
}

func TestProvision(t *testing.T) {
	p := &provisioner{fake.NewSimpleClientset(aNode("/disk", "host-a"))}
	pv, state, err := p.Provision(t.Context(), request())
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("%s, %v", state, err)
	}
	term := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	size := pv.Spec.Capacity[v1.ResourceStorage]
	if pv.Name != "pvc-1" || pv.Labels[nodeLabel] != "a" || pv.Spec.Local.Path != "/disk/pvc-1_ns_data" ||
		term.Key != v1.LabelHostname || term.Values[0] != "host-a" || size.String() != "1Gi" ||
		pv.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimRetain || pv.Spec.MountOptions[0] != "noatime" {
		t.Errorf("got %+v", pv)
	}
	if name, err := entryOf(pv, "/disk"); err != nil || name != "pvc-1_ns_data" {
		t.Errorf("the node does not take it for its own: %v", err)
	}
}

func TestProvisionRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*controller.ProvisionOptions)
		node   *v1.Node
		state  controller.ProvisioningState
		err    string
	}{
		"many writers":       {change: func(o *controller.ProvisionOptions) { o.PVC.Spec.AccessModes[0] = v1.ReadWriteMany }, err: "access mode ReadWriteMany is not possible"},
		"many readers":       {change: func(o *controller.ProvisionOptions) { o.PVC.Spec.AccessModes[0] = v1.ReadOnlyMany }, err: "access mode ReadOnlyMany is not possible"},
		"parameters":         {change: func(o *controller.ProvisionOptions) { o.StorageClass.Parameters = map[string]string{"a": "b"} }, err: `the parameter "a"`},
		"selector":           {change: func(o *controller.ProvisionOptions) { o.PVC.Spec.Selector = &metav1.LabelSelector{} }, err: "with a selector"},
		"data source":        {change: func(o *controller.ProvisionOptions) { o.PVC.Spec.DataSource = &v1.TypedLocalObjectReference{} }, err: "data source"},
		"no node":            {change: func(o *controller.ProvisionOptions) { o.SelectedNodeName = "" }, err: "volumeBindingMode WaitForFirstConsumer"},
		"node is gone":       {change: func(o *controller.ProvisionOptions) { o.SelectedNodeName = "b" }, state: controller.ProvisioningReschedule, err: `nodes "b" not found`},
		"node without":       {node: aNode("", "host-a"), state: controller.ProvisioningReschedule, err: "node a has no directory for volumes"},
		"relative directory": {node: aNode("disk", "host-a"), state: controller.ProvisioningReschedule, err: "node a has no directory for volumes"},
		"node without label": {node: aNode("/disk", ""), state: controller.ProvisioningReschedule, err: "node a has no directory for volumes"},
	} {
		t.Run(name, func(t *testing.T) {
			node, o := test.node, request()
			if node == nil {
				node = aNode("/disk", "host-a")
			}
			if test.change != nil {
				test.change(&o)
			}
			if test.state == "" {
				test.state = controller.ProvisioningFinished
			}
			p := &provisioner{fake.NewSimpleClientset(node)}
			pv, state, err := p.Provision(t.Context(), o)
			if pv != nil || state != test.state || err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v, %s, %v", pv, state, err)
			}
		})
	}
}

func TestShouldDelete(t *testing.T) {
	now := metav1.Now()
	for name, test := range map[string]struct {
		phase    v1.PersistentVolumePhase
		policy   v1.PersistentVolumeReclaimPolicy
		state    string
		deleted  bool
		missing  bool
		want     bool
		explains bool
	}{
		"bound":               {phase: v1.VolumeBound, policy: "Delete", state: stateReady},
		"retained":            {phase: v1.VolumeReleased, policy: "Retain", state: stateReady},
		"data is there":       {phase: v1.VolumeReleased, policy: "Delete", state: stateReady, explains: true},
		"never made":          {phase: v1.VolumeReleased, policy: "Delete", explains: true},
		"data is gone":        {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, want: true},
		"half deleted":        {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, deleted: true, want: true},
		"deleted a while ago": {phase: v1.VolumeReleased, policy: "Delete", state: stateRemoved, deleted: true, missing: true},
	} {
		t.Run(name, func(t *testing.T) {
			pv := localVolume("pvc-1", "/disk/pvc-1_a_b")
			pv.Labels = map[string]string{nodeLabel: "a"}
			pv.Status.Phase, pv.Spec.PersistentVolumeReclaimPolicy = test.phase, test.policy
			pv.Annotations = map[string]string{stateAnnotation: test.state}
			if test.deleted {
				pv.DeletionTimestamp = &now
			}
			client := fake.NewSimpleClientset()
			if !test.missing {
				client = fake.NewSimpleClientset(pv)
			}
			if got := (&provisioner{client}).ShouldDelete(t.Context(), pv); got != test.want {
				t.Errorf("got %t", got)
			}
			if test.missing {
				return
			}
			after, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.HasPrefix(after.Status.Message, "Waiting for lite on node a to remove the data."); got != test.explains {
				t.Errorf("it says %q", after.Status.Message)
			}
		})
	}
}

func TestTrim(t *testing.T) {
	fields := []metav1.ManagedFieldsEntry{{Manager: "x"}}
	bound := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u", Labels: map[string]string{"a": "b"}}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "v"}}
	foreign := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "a", ManagedFields: fields}, Spec: v1.PersistentVolumeSpec{StorageClassName: "s"}}
	ours := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "a", ManagedFields: fields, Annotations: map[string]string{provisionedBy: Provisioner}}, Spec: v1.PersistentVolumeSpec{StorageClassName: "s"}}
	if o, _ := trim(bound); o.(*v1.PersistentVolumeClaim).UID != "u" || o.(*v1.PersistentVolumeClaim).Labels != nil || o.(*v1.PersistentVolumeClaim).Spec.VolumeName != "v" {
		t.Errorf("a bound claim is %+v", o)
	}
	if o, _ := trim(foreign); o.(*v1.PersistentVolume).Spec.StorageClassName != "" || o.(*v1.PersistentVolume).ManagedFields != nil {
		t.Errorf("a volume of others is %+v", o)
	}
	if o, _ := trim(ours); o.(*v1.PersistentVolume).Spec.StorageClassName != "s" || o.(*v1.PersistentVolume).ManagedFields != nil {
		t.Errorf("a volume of ours is %+v", o)
	}
}
