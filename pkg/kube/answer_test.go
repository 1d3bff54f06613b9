package kube

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

func TestAnswer(t *testing.T) {
	var code int
	var answer any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	client, err := rest.UnversionedRESTClientFor(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{NegotiatedSerializer: scheme.Codecs.WithoutConversion()}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() ([]byte, error) {
		return Answer(client.Delete().AbsPath("/lite/v1/members/a").MaxRetries(0).Do(t.Context()))
	}
	for reason, is := range map[metav1.StatusReason]func(error) bool{
		metav1.StatusReasonNotFound: apierrors.IsNotFound, metav1.StatusReasonConflict: apierrors.IsConflict, metav1.StatusReasonServiceUnavailable: apierrors.IsServiceUnavailable,
	} {
		code = map[metav1.StatusReason]int{metav1.StatusReasonNotFound: 404, metav1.StatusReasonConflict: 409, metav1.StatusReasonServiceUnavailable: 503}[reason]
		answer = metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "so that it is known",
		}
		if _, err := ask(); err == nil || err.Error() != "so that it is known" || !is(err) {
			t.Errorf("%s: %v", reason, err)
		}
	}
	code, answer = 200, []string{"a"}
	if got, err := ask(); err != nil || string(got) != "[\"a\"]\n" {
		t.Errorf("%q, %v", got, err)
	}
}
