package lite_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"lite.io/lite/pkg/upstream"
)

// What computes and merges objects is linked as Kubernetes is tested with it,
// whatever other modules require: metrics-server once raised it.
func TestWhatDecidesAboutObjectsIsThatOfKubernetes(t *testing.T) {
	theirs, err := os.ReadFile(filepath.Join(upstream.Sources(t, "k8s.io/kubernetes"), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"github.com/google/cel-go", "sigs.k8s.io/structured-merge-diff/v6", "k8s.io/kube-openapi", "sigs.k8s.io/json", "sigs.k8s.io/yaml"} {
		required := regexp.MustCompile(regexp.QuoteMeta(path) + ` (v\S+)`)
		want, got := required.FindSubmatch(theirs), required.FindSubmatch(ours)
		if want == nil || got == nil || string(want[1]) != string(got[1]) {
			t.Errorf("%s: linked is %q, Kubernetes is tested with %q", path, got, want)
		}
	}
}
