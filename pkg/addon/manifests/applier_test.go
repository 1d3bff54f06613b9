package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/layout"
)

// api is what the applier needs of an API server: ConfigMaps, applied as they are.
type api struct {
	objects map[string]*unstructured.Unstructured // by path
	made    int
	events  []string
	refuse  func(method, path string) bool // answers 500
	hang    func(method, path string) bool // does not answer
	asked   []string
}

// RoundTrip is how requests come to it, or do not.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.hang != nil && a.hang(r.Method, r.URL.Path) {
		return nil, errors.New("no connection")
	}
	answer := httptest.NewRecorder()
	a.ServeHTTP(answer, r)
	return answer.Result(), nil
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	a.asked = append(a.asked, r.Method+" "+path)
	answer := func(code int, content any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(content)
	}
	missing := func(code int, reason metav1.StatusReason) {
		answer(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Message: string(reason), Code: int32(code)})
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	there := a.objects[path]
	switch {
	case a.refuse != nil && a.refuse(r.Method, path):
		missing(http.StatusInternalServerError, metav1.StatusReasonInternalError)
	case path == "/version":
		answer(http.StatusOK, map[string]string{})
	case path == "/api/v1":
		answer(http.StatusOK, metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "configmaps", Kind: "ConfigMap", Namespaced: true}}})
	case strings.HasSuffix(path, "/events"):
		var e struct{ Reason, Message string }
		_ = json.Unmarshal(body, &e)
		a.events = append(a.events, e.Reason+" "+e.Message)
		answer(http.StatusCreated, map[string]string{"kind": "Event", "apiVersion": "v1"})
	case strings.HasSuffix(path, "/configmaps"):
		var items []any
		for _, name := range slices.Sorted(maps.Keys(a.objects)) {
			if a.objects[name].GetLabels()[layout.RecordLabel] != "" {
				items = append(items, a.objects[name].Object)
			}
		}
		answer(http.StatusOK, map[string]any{"kind": "ConfigMapList", "apiVersion": "v1", "items": items})
	case !strings.Contains(path, "/configmaps/"), there == nil && r.Method != http.MethodPatch:
		missing(http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodDelete:
		delete(a.objects, path)
		missing(http.StatusOK, "")
	case r.Method == http.MethodPatch:
		answer(http.StatusOK, a.apply(path, r.URL.Query().Get("fieldManager"), body).Object)
	default:
		answer(http.StatusOK, there.Object)
	}
}

func (a *api) apply(path, manager string, body []byte) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	_ = json.Unmarshal(body, &o.Object)
	var managers []metav1.ManagedFieldsEntry
	if was := a.objects[path]; was != nil {
		o.SetUID(was.GetUID())
		managers = slices.DeleteFunc(was.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == manager })
	} else {
		a.made++
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", a.made)))
	}
	if o.Object["data"] != nil {
		managers = append(managers, metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationApply})
	}
	o.SetManagedFields(managers)
	a.objects[path] = o
	return o
}

// names are the ConfigMaps of namespace ns.
func (a *api) names() string {
	var all []string
	for _, path := range slices.Sorted(maps.Keys(a.objects)) {
		if name, ok := strings.CutPrefix(path, "/api/v1/namespaces/ns/configmaps/"); ok {
			all = append(all, name)
		}
	}
	return strings.Join(all, " ")
}

// fixture is an applier of a directory, and its API.
type fixture struct {
	*applier
	*api
	dir string
}

func newFixture(t *testing.T) *fixture {
	a := &api{objects: map[string]*unstructured.Unstructured{}}
	f := &fixture{api: a, dir: t.TempDir()}
	f.applier = &applier{server: "one", connect: func() (*session, error) {
		return newSession(&rest.Config{Host: "http://api", Transport: a, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	}}
	return f
}

// again is what a start of lite leaves of it.
func (f *fixture) again(server string) {
	f.applier = &applier{server: server, connect: f.connect}
}

// put writes a file with ConfigMaps of the names.
func (f *fixture) put(t *testing.T, file string, names ...string) {
	t.Helper()
	var text string
	for _, name := range names {
		text += "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: ns}\ndata: {a: b}\n"
	}
	if err := os.WriteFile(filepath.Join(f.dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) take(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(filepath.Join(f.dir, file)); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) try(t *testing.T) error {
	t.Helper()
	s, err := scanDirectory(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	return f.sync(t.Context(), s)
}

// round makes one, and wants the objects to be there afterwards.
func (f *fixture) round(t *testing.T, want string) outcome {
	t.Helper()
	err := f.try(t)
	if got := f.names(); got != want {
		t.Errorf("there are %q, want %q; %v, %+v", got, want, err, f.outcome())
	}
	o := f.outcome()
	o.again = o.again || err != nil
	return o
}

func TestSync(t *testing.T) {
	f := newFixture(t)
	f.round(t, "")
	if len(f.asked) != 1 {
		t.Errorf("an empty directory needs %q", f.asked)
	}
	f.put(t, "x.yaml", "a", "b")
	f.put(t, "y.yaml", "c")
	f.round(t, "a b c")
	asked := len(f.asked)
	if o := f.round(t, "a b c"); o.note != "2 files applied" || o.again || len(f.asked) != asked {
		t.Errorf("nothing has changed: %+v, %q", o, f.asked[asked:])
	}
	f.put(t, "x.yaml", "b")
	f.round(t, "b c")
	f.take(t, "y.yaml")
	f.round(t, "b")
	f.again("one")
	f.take(t, "x.yaml")
	if o := f.round(t, ""); o != (outcome{}) {
		t.Errorf("got %+v", o)
	}
	if len(f.objects) > 0 || len(f.files) > 0 {
		t.Errorf("left over: %v, %v", f.objects, f.files)
	}
}

// TestSyncThroughOutages cuts the API off at each request in turn, restarts lite or lets it
// continue, and expects the same result.
func TestSyncThroughOutages(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for fails := range 60 {
			f := newFixture(t)
			f.put(t, "x.yaml", "a", "b", "moved")
			f.put(t, "y.yaml", "c")
			f.round(t, "a b c moved")
			n := 0
			f.hang = func(string, string) bool { n++; return n > fails }
			f.put(t, "x.yaml", "b", "d")
			f.put(t, "z.yaml", "moved", "e")
			f.take(t, "y.yaml")
			moved := f.objects["/api/v1/namespaces/ns/configmaps/moved"].GetUID()
			_ = f.try(t)
			f.hang = nil
			if restart {
				f.again("one")
			}
			if o := f.round(t, "b d e moved"); o.again || o.note != "2 files applied" {
				t.Errorf("after %d requests: %+v", fails, o)
			}
			if f.objects["/api/v1/namespaces/ns/configmaps/moved"].GetUID() != moved {
				t.Errorf("after %d requests: an object that was moved is another", fails)
			}
			f.take(t, "x.yaml")
			f.take(t, "z.yaml")
			f.round(t, "")
			if len(f.objects) > 0 {
				t.Errorf("after %d requests: left over: %v", fails, slices.Sorted(maps.Keys(f.objects)))
			}
			if n <= fails { // there were no more
				break
			}
		}
	}
}

func TestSyncAdopts(t *testing.T) {
	f := newFixture(t)
	f.api.apply("/api/v1/namespaces/ns/configmaps/theirs", "kubectl", []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"theirs"},"data":{}}`))
	f.put(t, "x.yaml", "theirs", "ours")
	f.round(t, "ours theirs")
	f.put(t, "y.yaml", "theirs")
	f.take(t, "x.yaml")
	f.round(t, "theirs")
	f.take(t, "y.yaml")
	f.round(t, "theirs")
	// What somebody has recreated is theirs.
	f.put(t, "x.yaml", "a")
	f.round(t, "a theirs")
	f.objects["/api/v1/namespaces/ns/configmaps/a"].SetUID("another")
	f.take(t, "x.yaml")
	f.round(t, "a theirs")
}

func TestSyncOfAnotherServer(t *testing.T) {
	f := newFixture(t)
	f.put(t, "x.yaml", "a", "b")
	f.round(t, "a b")
	f.again("two")
	f.take(t, "x.yaml")
	if o := f.round(t, "a b"); o.note != "x.yaml does not exist here: what one has applied of it stays" || o.again {
		t.Errorf("got %+v", o)
	}
	f.put(t, "y.yaml", "a")
	if o := f.round(t, "a b"); !strings.Contains(o.note, "is also in x.yaml, which owns it") {
		t.Errorf("got %+v", o)
	}
	f.take(t, "y.yaml")
	f.put(t, "x.yaml", "a")
	f.round(t, "a")
	f.take(t, "x.yaml")
	f.round(t, "")
}

func TestSyncPrunesOnlyWhatIsAppliedWholly(t *testing.T) {
	f := newFixture(t)
	f.put(t, "x.yaml", "a", "b")
	f.round(t, "a b")
	f.refuse = func(method, path string) bool {
		return method == http.MethodPatch && (strings.HasSuffix(path, "/c") || strings.HasSuffix(path, "/a"))
	}
	f.put(t, "x.yaml", "a", "c", "d", "d")
	if o := f.round(t, "a b d"); !o.again || !strings.Contains(o.note, "ConfigMap ns/d: is in the file twice") {
		t.Errorf("got %+v", o)
	}
	f.refuse = nil
	if o := f.round(t, "a b c d"); !o.again {
		t.Errorf("got %+v", o)
	}
	f.put(t, "x.yaml", "c", "d")
	f.round(t, "c d")
	if want := "ManifestApplied x.yaml: applied 2 objects, removed 2"; !slices.Contains(f.events, want) || !strings.HasPrefix(f.events[1], "ManifestFailed x.yaml: line ") {
		t.Errorf("events: %q, want %q", f.events, want)
	}
}

// TestSyncOneThatIsNotAnswered: an object for which there is no answer, although
// the API gives others, keeps no other back.
func TestSyncOneThatIsNotAnswered(t *testing.T) {
	f := newFixture(t)
	f.hang = func(method, path string) bool {
		return method == http.MethodPatch && strings.HasSuffix(path, "/bad")
	}
	f.put(t, "x.yaml", "bad", "good")
	f.put(t, "y.yaml", "other")
	if o := f.round(t, "good other"); !o.again || !strings.HasPrefix(o.note, "1 of 2 files applied; x.yaml: line 2, ConfigMap ns/bad: ") {
		t.Errorf("got %+v", o)
	}
}
