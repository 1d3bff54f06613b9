package dns

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fakeAPI is as much of an API server as DNS asks for: lists and watches.
type fakeAPI struct {
	mu      sync.Mutex
	version int
	objects map[string][]object // by resource
	changed chan struct{}       // closed and replaced with every change
	events  []v1.Event
	away    bool
}

// object is one that was written at a version.
type object struct {
	version int
	name    string
	content map[string]any
}

func newFakeAPI(t testing.TB) (api *fakeAPI, kubeconfig string) {
	t.Helper()
	api = &fakeAPI{objects: map[string][]object{}, changed: make(chan struct{})}
	server := httptest.NewServer(api)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","clusters":[{"name":"x","cluster":{"server":%q}}],
"contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],"users":[{"name":"x","user":{}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return api, kubeconfig
}

// put writes an object that is not there yet, or a new version of it.
func (a *fakeAPI) put(resource, namespace, name string, fields map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	metadata := map[string]any{"name": name, "uid": name, "resourceVersion": strconv.Itoa(a.version)}
	if namespace != "" {
		metadata["namespace"] = namespace
	}
	if l, ok := fields["labels"]; ok {
		metadata["labels"] = l
	}
	content := map[string]any{"metadata": metadata}
	for k, v := range fields {
		if k != "labels" {
			content[k] = v
		}
	}
	a.objects[resource] = append(a.objects[resource], object{a.version, name, content})
	close(a.changed)
	a.changed = make(chan struct{})
}

// leave makes it answer nothing, or again.
func (a *fakeAPI) leave(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
	close(a.changed)
	a.changed = make(chan struct{})
}

var kinds = map[string][2]string{
	"namespaces": {"v1", "Namespace"}, "services": {"v1", "Service"}, "configmaps": {"v1", "ConfigMap"},
	"endpointslices": {"discovery.k8s.io/v1", "EndpointSlice"},
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := path.Base(r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	a.mu.Lock()
	away := a.away
	a.mu.Unlock()
	switch {
	case away:
		w.WriteHeader(http.StatusServiceUnavailable)
	case resource == "events":
		a.mu.Lock()
		defer a.mu.Unlock()
		a.events = append(a.events, v1.Event{})
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(v1.Event{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}})
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, resource)
	default:
		a.list(w, r, resource)
	}
}

// since returns what is newer than a version, each object once, and what to wait
// for.
func (a *fakeAPI) since(r *http.Request, resource string, version int) (newer []object, now int, changed <-chan struct{}, away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	selected, _ := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	for _, o := range a.objects[resource] {
		if o.version > version && (selected == "" || selected == o.name) {
			o.content["apiVersion"], o.content["kind"] = kinds[resource][0], kinds[resource][1]
			newer = append(newer, o)
		}
	}
	return newer, a.version, a.changed, a.away
}

func (a *fakeAPI) list(w http.ResponseWriter, r *http.Request, resource string) {
	all, now, _, _ := a.since(r, resource, 0)
	latest := map[string]map[string]any{}
	for _, o := range all {
		latest[o.name] = o.content
	}
	items := []any{}
	for _, content := range latest {
		items = append(items, content)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": kinds[resource][0], "kind": kinds[resource][1] + "List",
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(now)}, "items": items,
	})
}

func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request, resource string) {
	version, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	initial := r.URL.Query().Get("sendInitialEvents") == "true"
	if initial {
		version = 0
	}
	known := map[string]bool{}
	send := func(kind string, content any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": content})
	}
	for {
		newer, now, changed, away := a.since(r, resource, version)
		if away {
			return
		}
		for _, o := range newer {
			kind := "ADDED"
			if known[o.name] || !initial && version > 0 {
				kind = "MODIFIED"
			}
			known[o.name] = true
			send(kind, o.content)
		}
		if initial {
			initial = false
			send("BOOKMARK", map[string]any{"apiVersion": kinds[resource][0], "kind": kinds[resource][1], "metadata": map[string]any{
				"resourceVersion": strconv.Itoa(now), "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}})
		}
		version = now
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
