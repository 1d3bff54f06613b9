package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestAnswers lets a server answer in ways that tell of the object, and in ways that do
// not: what may have happened is never taken for what has not.
func TestAnswers(t *testing.T) {
	kind := corev1.Resource("configmaps")
	for name, c := range map[string]struct {
		request Request
		answer  func(w http.ResponseWriter)
		want    Outcome
	}{
		"created":              {Request{Kind: Create}, written(7), Done},
		"exists":               {Request{Kind: Create}, failure(apierrors.NewAlreadyExists(kind, "key")), Exists},
		"no namespace":         {Request{Kind: Create}, failure(apierrors.NewNotFound(corev1.Resource("namespaces"), "some")), Refused},
		"missing":              {Request{Kind: Update}, failure(apierrors.NewNotFound(kind, "key")), Missing},
		"conflict":             {Request{Kind: Update}, failure(apierrors.NewConflict(kind, "key", errAny)), Conflict},
		"conflict of a delete": {Request{Kind: Delete}, failure(apierrors.NewConflict(kind, "key", errAny)), Conflict},
		"read":                 {Request{Kind: Read}, written(7), Done},
		"starts still":         {Request{Kind: Update}, failure(apierrors.NewForbidden(kind, "key", errAny)), Refused},
		"too many":             {Request{Kind: Update}, failure(apierrors.NewTooManyRequests("", 1)), Refused},
		"no such path":         {Request{Kind: Update}, func(w http.ResponseWriter) { http.Error(w, "404 page not found", http.StatusNotFound) }, Refused},
		"timeout":              {Request{Kind: Update}, failure(apierrors.NewServerTimeout(kind, "update", 1)), Unknown},
		"etcd's timeout":       {Request{Kind: Update}, failure(apierrors.NewInternalError(net.ErrClosed)), Unknown},
		"unavailable":          {Request{Kind: Create}, failure(apierrors.NewServiceUnavailable("")), Unknown},
		"hangs up":             {Request{Kind: Update}, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			var asked int
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked++
				c.answer(w)
			}))
			defer server.Close()
			api := apiOf(t, server.Listener.Addr().String())
			got, err := api.Do(t.Context(), "key", c.request)
			if got.Outcome != c.want {
				t.Errorf("%s: %v, want %s", got.Outcome, err, c.want)
			}
			if asked != 1 {
				t.Errorf("the server was asked %d times", asked)
			}
		})
	}
}

// TestNextServer has one server that is not there, and one that is.
func TestNextServer(t *testing.T) {
	there := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { written(7)(w) }))
	defer there.Close()
	gone := httptest.NewTLSServer(nil)
	gone.Close()
	api := apiOf(t, gone.Listener.Addr().String(), there.Listener.Addr().String())
	for range 2 {
		if got, err := api.Do(t.Context(), "key", Request{Kind: Create}); got.Outcome != Done || got.Revision != 7 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if err := api.Through(gone.Listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if got, err := api.Do(t.Context(), "key", Request{Kind: Create}); got.Outcome != Refused || !strings.Contains(fmt.Sprint(err), "refused") {
		t.Errorf("%+v, %v", got, err)
	}
}

var errAny = errors.New("any")

func apiOf(t *testing.T, addresses ...string) *API {
	t.Helper()
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	api, err := NewAPI(config, (&net.Dialer{}).DialContext, "some", addresses...)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func written(revision int) func(http.ResponseWriter) {
	return answer(http.StatusOK, &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "key", ResourceVersion: fmt.Sprint(revision)},
	})
}

func failure(err *apierrors.StatusError) func(http.ResponseWriter) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	return answer(int(status.Code), status)
}

func answer(code int, body any) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(body)
	}
}
