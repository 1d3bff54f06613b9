package manifests

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/manifests"
	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/kube/apply"
	"lite.io/lite/pkg/layout"
)

func TestEveryObjectThatShipsHasAKnownResource(t *testing.T) {
	m, err := New(Config{Files: manifests.FS})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.objects) == 0 {
		t.Fatal("nothing ships")
	}
	seen := map[string]bool{}
	for _, o := range m.objects {
		id := o.GroupVersionKind().String() + " " + o.GetNamespace() + "/" + o.GetName()
		if r := apply.GuessResource(o.GroupVersionKind()); r.Resource == "" || r.Version == "" {
			t.Errorf("%s: the resource of its kind is not known", id)
		}
		if o.GetName() == "" || seen[id] {
			t.Errorf("%s: has no name, or is twice", id)
		}
		// What is ours must not be taken for Kubernetes' own.
		if o.GroupVersionKind().Group == "rbac.authorization.k8s.io" && !strings.HasPrefix(o.GetName(), "lite:") {
			t.Errorf("%s: the name does not begin with lite:", id)
		}
		seen[id] = true
	}
}

func TestNewNamesTheFileThatIsWrong(t *testing.T) {
	_, err := New(Config{Files: fstest.MapFS{"dir/bad.yaml": {Data: []byte("a: b: c")}}})
	if err == nil || !strings.HasPrefix(err.Error(), "manifest dir/bad.yaml: ") {
		t.Errorf("got %v", err)
	}
}

func TestApplyIsServerSideUnderOurName(t *testing.T) {
	m, err := New(Config{Files: manifests.FS})
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleDynamicClient(runtime.NewScheme())
	var applied []string
	client.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.PatchActionImpl)
		theirs := strings.Contains(string(p.GetPatch()), layout.KeepEditsAnnotation)
		if p.PatchOptions.FieldManager != "lite" || p.PatchOptions.Force == nil || *p.PatchOptions.Force == theirs {
			t.Errorf("%s is applied with %+v", p.Name, p.PatchOptions)
		}
		applied = append(applied, p.Resource.Resource+"/"+p.Name)
		return true, &unstructured.Unstructured{}, nil
	})
	if err := m.apply(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if len(applied) != len(m.objects) {
		t.Errorf("applied %q of %d objects", applied, len(m.objects))
	}
}

func TestApplyNamesTheObjectThatIsRefused(t *testing.T) {
	m := &Manifests{objects: []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": map[string]any{"name": "lite:a"},
	}}}}
	client := fake.NewSimpleDynamicClient(runtime.NewScheme())
	client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no") })
	if err := m.apply(t.Context(), client); err == nil || err.Error() != "apply ClusterRole lite:a: no" {
		t.Errorf("got %v", err)
	}
}

// Somebody's kube-dns with another address must not keep agents from joining.
func TestOneObjectThatIsRefusedKeepsNoOtherBack(t *testing.T) {
	m, err := New(Config{Files: manifests.FS, Disable: addon.Disabled{addon.Metrics}})
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleDynamicClient(runtime.NewScheme())
	applied := 0
	client.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if applied++; a.(clienttesting.PatchAction).GetName() == "kube-dns" {
			return true, nil, errors.New("may not change once set")
		}
		return true, &unstructured.Unstructured{}, nil
	})
	asked := 0
	client.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked++
		return false, nil, nil
	})
	if err := m.apply(t.Context(), client); err == nil || err.Error() != "apply Service kube-dns: may not change once set" {
		t.Errorf("got %v", err)
	}
	if applied != len(m.objects) || asked != len(m.unwanted) {
		t.Errorf("applied %d of %d, looked for %d of %d", applied, len(m.objects), asked, len(m.unwanted))
	}
	// An API that does not answer is not asked for the rest.
	applied = 0
	client.PrependReactor("patch", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		applied++
		return true, nil, &url.Error{Op: "Patch", URL: "x", Err: errors.New("no connection")}
	})
	if err := m.apply(t.Context(), client); err == nil || applied != 1 {
		t.Errorf("asked %d times: %v", applied, err)
	}
}

func TestReadySaysWhatStandsInTheWay(t *testing.T) {
	m := &Manifests{}
	if err := m.Ready(context.Background()); err == nil || err.Error() != "applying" {
		t.Errorf("got %v", err)
	}
	reason := errors.New("no")
	m.reason.Store(&reason)
	if err := m.Ready(context.Background()); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	m.applied.Store(true)
	if err := m.Ready(context.Background()); err != nil {
		t.Errorf("got %v", err)
	}
}

const twoFiles = `apiVersion: v1
kind: ConfigMap
metadata: {name: %s, namespace: kube-system}
data: {domain: "${DOMAIN}", other: "${OTHER}"}
`

func TestPartsThatAreDisabledAreTakenAway(t *testing.T) {
	m, err := New(Config{
		Files: fstest.MapFS{
			"always.yaml":           {Data: fmt.Appendf(nil, twoFiles, "always")},
			"batteries/dns.yaml":    {Data: fmt.Appendf(nil, twoFiles, "dns")},
			"batteries/theirs.yaml": {Data: fmt.Appendf(nil, twoFiles, "theirs")},
			// The user's; a part of Kubernetes in the process has written its status.
			"batteries/touched.yaml": {Data: fmt.Appendf(nil, twoFiles, "touched")},
			"batteries/gone.yaml":    {Data: fmt.Appendf(nil, twoFiles, "gone")},
			"batteries/active.yaml":  {Data: fmt.Appendf(nil, twoFiles, "active")},
		},
		Values:  map[string]string{"DOMAIN": "cluster.test"},
		Disable: addon.Disabled{"dns", "theirs", "touched", "gone", "always"},
	})
	if err != nil {
		t.Fatal(err)
	}
	configMap := func(name, manager string, how metav1.ManagedFieldsOperationType) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
		o.SetName(name)
		o.SetNamespace("kube-system")
		o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: manager, Operation: how}})
		return o
	}
	client := fake.NewSimpleDynamicClient(runtime.NewScheme(),
		configMap("dns", "lite", metav1.ManagedFieldsOperationApply),
		configMap("theirs", "kubectl", metav1.ManagedFieldsOperationApply),
		configMap("touched", "lite", metav1.ManagedFieldsOperationUpdate))
	var applied, deleted []string
	client.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.PatchAction)
		if !strings.Contains(string(p.GetPatch()), `"domain":"cluster.test","other":"${OTHER}"`) {
			t.Errorf("applied %s", p.GetPatch())
		}
		applied = append(applied, p.GetName())
		return true, &unstructured.Unstructured{}, nil
	})
	client.PrependReactor("delete", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		deleted = append(deleted, a.(clienttesting.DeleteAction).GetName())
		return true, nil, nil
	})
	if err := m.apply(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(applied, []string{"always", "active"}) || !slices.Equal(deleted, []string{"dns"}) {
		t.Errorf("applied %q, deleted %q", applied, deleted)
	}
}

func TestAProfileBringsItsObjectsAndTakesThemAway(t *testing.T) {
	for profile, wanted := range map[string]bool{"cis": true, "": false, "other": false} {
		m, err := New(Config{Files: manifests.FS, Profile: profile})
		if err != nil {
			t.Fatal(err)
		}
		count := func(objects []*unstructured.Unstructured) (policies int) {
			for _, o := range objects {
				if o.GetKind() == "NetworkPolicy" {
					policies++
				}
			}
			return policies
		}
		if got := count(m.objects) > 0; got != wanted || count(m.objects)+count(m.unwanted) != 4 {
			t.Errorf("profile %q: %d policies, and %d are removed", profile, count(m.objects), count(m.unwanted))
		}
	}
}

// An administrator who has opened a namespace, or given its pods a token, finds it so
// after the next start; and nothing of these is ever removed with what is in it.
func TestNamespacesAreAnAdministratorsToChange(t *testing.T) {
	var all addon.Disabled
	for _, b := range addon.All() {
		all = append(all, b.Name)
	}
	m, err := New(Config{Files: manifests.FS, Disable: all})
	if err != nil {
		t.Fatal(err)
	}
	mine := 0
	for _, o := range m.objects {
		if o.GetKind() == "Namespace" || o.GetKind() == "ServiceAccount" {
			if mine++; o.GetAnnotations()[layout.KeepEditsAnnotation] != "true" {
				t.Errorf("%s %s/%s would be forced", o.GetKind(), o.GetNamespace(), o.GetName())
			}
			if o.GetName() == "default" && o.GetNamespace() == "default" {
				t.Error("namespace default is the users'")
			}
		}
	}
	if mine != 6 {
		t.Errorf("got %d", mine)
	}
	for _, o := range m.unwanted {
		if o.GetKind() == "Namespace" || o.GetKind() == "ServiceAccount" {
			t.Errorf("%s %s/%s is removed", o.GetKind(), o.GetNamespace(), o.GetName())
		}
	}
}

// A battery that is disabled leaves none of its objects, and takes along none of another's.
func TestEachBatteryTakesItsObjectsAlong(t *testing.T) {
	for _, b := range addon.All() {
		disable := addon.Disabled{b.Name}
		m, err := New(Config{Files: manifests.FS, Profile: "cis", Disable: disable})
		if err != nil {
			t.Fatal(err)
		}
		var want []*unstructured.Unstructured
		for _, other := range addon.All() {
			text, err := manifests.FS.ReadFile("batteries/" + string(other.Name) + ".yaml")
			if errors.Is(err, fs.ErrNotExist) || !disable.Has(other.Name) {
				continue
			}
			objects, err := decode(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				want = append(want, o.Unstructured)
			}
		}
		same := func(a, b *unstructured.Unstructured) bool {
			return a.GroupVersionKind() == b.GroupVersionKind() && a.GetNamespace() == b.GetNamespace() && a.GetName() == b.GetName()
		}
		if !slices.EqualFunc(m.unwanted, want, same) {
			t.Errorf("without %s %d objects are removed, not %d", b.Name, len(m.unwanted), len(want))
		}
		for _, o := range m.objects {
			if slices.ContainsFunc(want, func(w *unstructured.Unstructured) bool { return same(o, w) }) {
				t.Errorf("without %s there still is %s %s", b.Name, o.GetKind(), o.GetName())
			}
		}
	}
}

func TestUsersChangesAreKept(t *testing.T) {
	object := func(name, keep string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
		o.SetName(name)
		o.SetAnnotations(map[string]string{layout.KeepEditsAnnotation: keep})
		return o
	}
	m := &Manifests{objects: []*unstructured.Unstructured{object("theirs", "true"), object("ours", "")}}
	client := fake.NewSimpleDynamicClient(runtime.NewScheme())
	client.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.PatchActionImpl)
		if force := *p.PatchOptions.Force; force == (p.GetName() == "theirs") {
			t.Errorf("%s: force is %v", p.GetName(), force)
		}
		if p.GetName() == "theirs" {
			return true, nil, apierrors.NewConflict(p.GetResource().GroupResource(), p.GetName(), errors.New("conflict"))
		}
		return true, &unstructured.Unstructured{}, nil
	})
	if err := m.apply(t.Context(), client); err != nil {
		t.Errorf("got %v", err)
	}
}
