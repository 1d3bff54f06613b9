package manifests

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lite.io/lite/pkg/kube/apply"
)

// waiting is an object that could not be applied.
func waiting(err error) *pending {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret"}}
	o.SetName("s")
	o.SetNamespace("n")
	return &pending{object: object{o, 7}, err: err}
}

func TestProblem(t *testing.T) {
	invalid := func(why *field.Error) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "s", field.ErrorList{why})
	}
	immutable := invalid(field.Forbidden(field.NewPath("data"), "field is immutable"))
	for name, test := range map[string]struct {
		file *file
		want string
	}{
		"none":       {&file{}, ""},
		"broken":     {&file{broken: errors.New("a\n  b")}, "a b"},
		"not tried":  {&file{left: []*pending{waiting(nil)}}, ""},
		"several":    {&file{left: []*pending{waiting(errDeleting), waiting(errors.New("no"))}}, "line 7, Secret n/s: an object with this name is being deleted: waiting until it is gone; line 7, Secret n/s: no"},
		"not pruned": {&file{status: status{stuck: []string{"x"}}}, "x"},
		"a remedy":   {&file{left: []*pending{waiting(immutable)}}, `line 7, Secret n/s: Secret "s" is invalid: data: Forbidden: field is immutable; to recreate it: lite kubectl delete secret s -n n`},
		"another": {&file{left: []*pending{waiting(invalid(field.Invalid(field.NewPath("roleRef"), "x", "cannot change roleRef")))}},
			`line 7, Secret n/s: Secret "s" is invalid: roleRef: Invalid value: "x": cannot change roleRef; to recreate it: lite kubectl delete secret s -n n`},
	} {
		if got := test.file.problem(); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestOutcome(t *testing.T) {
	a := &applier{files: map[string]*file{}}
	add := func(name string, f *file) {
		f.path, f.record = name, &record{server: "other"}
		a.files[name] = f
	}
	check := func(want outcome) {
		t.Helper()
		if got := a.outcome(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	known := map[key]bool{}
	check(outcome{})
	add("a", &file{present: true, wants: known})
	check(outcome{note: "1 file applied"})
	add("b", &file{present: true, wants: known})
	add("c", &file{present: true, skipped: true})
	add("d", &file{wants: known})
	check(outcome{note: "2 files applied; 1 skipped"})
	add("d", &file{})
	check(outcome{note: "2 files applied; 1 skipped; d does not exist here: what other has applied of it stays"})
	add("d", &file{present: true, broken: errors.New("no")})
	check(outcome{note: "2 of 3 files applied; 1 skipped; d: no"})
	delete(a.files, "c")
	add("d", &file{present: true, broken: errBusy, unread: true})
	check(outcome{note: "2 of 3 files applied; d: is being written", again: true})
	add("d", &file{present: true, wants: known, left: []*pending{waiting(apply.UnknownKind{GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "K"}})}})
	check(outcome{note: "2 of 3 files applied; d: line 7, Secret n/s: the cluster has no kind K in v1: a typo, or its CustomResourceDefinition is not there yet", again: true, kinds: true})
	for i := range 9 {
		add(fmt.Sprintf("e%d", i), &file{present: true, broken: errors.New(strings.Repeat("long ", 1000))})
	}
	if note := a.outcome().note; len(note) > 7*maxProblem || !strings.HasPrefix(note, "2 of 12 files applied; ") || !strings.HasSuffix(note, "; and 5 more") {
		t.Errorf("got %q", note)
	}
}

func TestClaims(t *testing.T) {
	o, p := key{kind: "A", name: "o"}, key{kind: "A", name: "p"}
	has := func(path string, owns, wants []key) *file {
		f := &file{path: path, record: &record{objects: map[key]owned{}}}
		for _, k := range owns {
			f.record.objects[k] = owned{}
		}
		if wants != nil {
			f.wants = map[key]bool{}
		}
		for _, k := range wants {
			f.wants[k] = true
		}
		return f
	}
	for name, test := range map[string]struct {
		files []*file
		want  string // who has o
	}{
		"the first":           {[]*file{has("b", nil, []key{o}), has("a", nil, []key{o})}, "a"},
		"who has it":          {[]*file{has("a", nil, []key{o}), has("b", []key{o}, []key{o})}, "b"},
		"who had it":          {[]*file{has("a", []key{o}, []key{p}), has("b", nil, []key{o})}, "b"},
		"a broken file":       {[]*file{has("a", nil, []key{o}), has("b", []key{o}, nil)}, "b"},
		"nobody":              {[]*file{has("a", []key{o}, []key{})}, ""},
		"who is the first of": {[]*file{has("a", []key{o}, []key{o}), has("b", []key{o}, []key{o, p})}, "a"},
	} {
		a := &applier{files: map[string]*file{}}
		for _, f := range test.files {
			a.files[f.path] = f
		}
		a.claim()
		got := ""
		if f := a.claims[o]; f != nil {
			got = f.path
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
