package manifests

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestRecord(t *testing.T) {
	r := &record{file: "dir/ä file.yaml", server: "one", objects: map[key]owned{
		{"", "Namespace", "", "n"}:                                         {version: "v1", uid: "1-2"},
		{"apps", "Deployment", "n", "d"}:                                   {version: "v1"},
		{"rbac.authorization.k8s.io", "ClusterRole", "", "system:a:b"}:     {version: "v1", adopted: true, uid: "3"},
		{"cert-manager.io", "Certificate", "n", "with.dots-and-lines.org"}: {version: "v1alpha2", adopted: true},
	}}
	o, err := r.configMap()
	if err != nil {
		t.Fatal(err)
	}
	var m corev1.ConfigMap
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &m); err != nil {
		t.Fatal(err)
	}
	if want := "apps/v1 Deployment n/d \nv1 Namespace n 1-2\n"; m.Data["created"] != want {
		t.Errorf("created is %q, want %q", m.Data["created"], want)
	}
	m.Data["created"] += "these are far too many words\n"
	got := parseRecord(m)
	if got.file != r.file || got.server != r.server || !maps.Equal(got.objects, r.objects) {
		t.Errorf("got %+v, want %+v", got, r)
	}
}

func TestRecordHasALimit(t *testing.T) {
	r := &record{file: "a.yaml", objects: map[key]owned{}}
	for i := range 5000 {
		r.objects[key{"", "ConfigMap", strings.Repeat("n", 63), strings.Repeat("a", i%250)}] = owned{version: "v1"}
	}
	if _, err := r.configMap(); err != nil {
		t.Error(err)
	}
	r.objects[key{name: strings.Repeat("x", maxRecord)}] = owned{}
	if _, err := r.configMap(); err == nil || !strings.Contains(err.Error(), "split it") {
		t.Errorf("got %v", err)
	}
}

func TestFieldManager(t *testing.T) {
	for file, want := range map[string]string{
		"a.yaml":                 "lite/a.yaml",
		"dir/with space ä.yaml":  "lite/dir/with space ä.yaml",
		"line\nend.yaml":         "lite/lite-manifest-",
		strings.Repeat("x", 124): "lite/lite-manifest-",
		strings.Repeat("x", 123): "lite/" + strings.Repeat("x", 123),
	} {
		if got := fieldManagerOf(file); !strings.HasPrefix(got, want) || len(got) > 128 {
			t.Errorf("of %q: got %q, want %q", file, got, want)
		}
	}
}
