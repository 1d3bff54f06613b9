package apply

import (
	"errors"
	"net/url"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func object(kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind}}
	o.SetName(name)
	return o
}

// by is an object as the API has it, of which a manager has written fields.
func by(o *unstructured.Unstructured, manager string, how metav1.ManagedFieldsOperationType) *unstructured.Unstructured {
	o.SetUID("u")
	o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: manager, Operation: how, APIVersion: "v1"}})
	return o
}

// Who takes an owner's objects away takes nobody else's.
func TestPrune(t *testing.T) {
	for name, test := range map[string]struct {
		there *unstructured.Unstructured
		want  bool
	}{
		"ours":                           {by(object("Namespace", "a"), "lite", metav1.ManagedFieldsOperationApply), true},
		"somebody else's":                {by(object("Namespace", "a"), "kubectl", metav1.ManagedFieldsOperationApply), false},
		"another owner's in the program": {by(object("Namespace", "a"), "lite/app.yaml", metav1.ManagedFieldsOperationApply), false},
		"updated by a part of ours":      {by(object("Namespace", "a"), "lite", metav1.ManagedFieldsOperationUpdate), false},
		"gone":                           {object("Namespace", "b"), false},
	} {
		client := fake.NewSimpleDynamicClient(runtime.NewScheme(), test.there)
		var deleted *metav1.DeleteOptions
		client.PrependReactor("delete", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
			o := a.(clienttesting.DeleteActionImpl).DeleteOptions
			deleted = &o
			return true, nil, nil
		})
		if err := (Owner{Manager: "lite"}).Prune(t.Context(), Guess(client, object("Namespace", "a")), "a"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if (deleted != nil) != test.want {
			t.Errorf("%s: deleted with %+v", name, deleted)
		}
		if deleted != nil && (deleted.Preconditions == nil || *deleted.Preconditions.UID != "u") {
			t.Errorf("%s: whichever has the name by now would go: %+v", name, deleted)
		}
	}
}

func TestApplyIsOfAnOwner(t *testing.T) {
	for name, test := range map[string]struct {
		owner Owner
		force bool
	}{
		"takes fields from others":   {Owner{Manager: "lite"}, true},
		"leaves them what they have": {Owner{Manager: "lite/app.yaml", Yield: true}, false},
	} {
		client := fake.NewSimpleDynamicClient(runtime.NewScheme())
		client.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
			p := a.(clienttesting.PatchActionImpl)
			if o := p.PatchOptions; o.FieldManager != test.owner.Manager || *o.Force != test.force || o.FieldValidation != "Strict" {
				t.Errorf("%s: %+v", name, o)
			}
			return true, object("Namespace", "a"), nil
		})
		if _, err := test.owner.Apply(t.Context(), Guess(client, object("Namespace", "a")), object("Namespace", "a")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKinds(t *testing.T) {
	api := kubefake.NewClientset()
	api.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "namespaces", Kind: "Namespace"}, {Name: "pods", Kind: "Pod", Namespaced: true}, {Name: "pods/status", Kind: "Pod", Namespaced: true}}},
		{GroupVersion: "a.example/v2", APIResources: []metav1.APIResource{{Name: "widgets", Kind: "Widget", Namespaced: true}}},
	}
	k := NewKinds(fake.NewSimpleDynamicClient(runtime.NewScheme()), api.Discovery())
	for _, test := range []struct{ kind, namespace, want string }{
		{"Namespace", "by mistake", ""}, {"Pod", "", "default"}, {"Pod", "ns", "ns"},
	} {
		o := object(test.kind, "a")
		o.SetNamespace(test.namespace)
		if _, err := k.Locate(o); err != nil || o.GetNamespace() != test.want {
			t.Errorf("%+v: in %q, %v", test, o.GetNamespace(), err)
		}
	}
	if _, err := k.Locate(object("Pods", "a")); !errors.As(err, &UnknownKind{}) {
		t.Errorf("a kind that there is not: %v", err)
	}
	// What was applied with a version that is served no more is found by another.
	if _, err := k.Find(schema.GroupVersionKind{Group: "a.example", Version: "v1", Kind: "Widget"}, "ns"); err != nil {
		t.Error(err)
	}
	if _, err := k.Find(schema.GroupVersionKind{Group: "b.example", Version: "v1", Kind: "Widget"}, "ns"); !errors.As(err, &UnknownKind{}) {
		t.Errorf("a group that there is not: %v", err)
	}
	silence := &url.Error{Op: "Patch", URL: "x", Err: errors.New("no answer")}
	if !Absent(silence) || Absent(k.Blame(silence)) {
		t.Error("one request that is not answered stops all others, though the API answers")
	}
}
