package lite_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lite.io/lite/tests/upstream"
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

// Who moves to the next minor version of Kubernetes begins with what is known to work
// together: what go.mod has.
func TestVersionsThatAreKnownToWork(t *testing.T) {
	document, err := os.ReadFile("docs/dev/new-kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\S+)` \\| (v\\S+) \\|").FindAllStringSubmatch(string(document), -1)
	if len(rows) < 9 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, row := range rows {
		path := strings.ReplaceAll(regexp.QuoteMeta(row[1]), `\*`, `\S+`)
		linked := regexp.MustCompile(`\s`+path+` (v\S+)`).FindAllStringSubmatch(string(ours), -1)
		if linked == nil {
			t.Errorf("%s is not linked", row[1])
		}
		for _, l := range linked {
			if l[1] != row[2] {
				t.Errorf("%s: linked is %s, the document has %s", row[1], l[1], row[2])
			}
		}
	}
}
