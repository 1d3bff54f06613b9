package gate

import (
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/client-go/kubernetes/scheme"

	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

func answer(w http.ResponseWriter, r *http.Request, err error) {
	responsewriters.ErrorNegotiated(err, scheme.Codecs, schema.GroupVersion{Version: "v1"}, w, r)
}

// refused is the answer for a node whose certificate is no longer valid. The cause lets it
// tell that from an API server that does not know it yet.
func refused(node string, r *roll.Refusal) error {
	err := apierrors.NewUnauthorized(fmt.Sprintf(
		"node %s %s, and its certificate is refused since then; to join again it needs a token (`lite token create`)", node, r.Text()))
	err.ErrStatus.Details = &metav1.StatusDetails{
		Name: node, Kind: "nodes",
		Causes: []metav1.StatusCause{{Type: roll.Refused, Message: string(r.Why)}},
	}
	return err
}

// notYet is an answer after which clients ask again.
func notYet() error {
	err := apierrors.NewServiceUnavailable("the list of refused certificates is not loaded yet; try again")
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}

// tooFast names the token by its ID, which is no secret. Kubernetes' clients ask again.
func tooFast(who, from string) error {
	const seconds = 5
	what, remedy := "node "+strings.TrimPrefix(who, layout.NodeUser), "revoke it with `lite node revoke`"
	if id, ok := strings.CutPrefix(who, layout.TokenUser); ok {
		what, remedy = "token "+id, fmt.Sprintf("revoke the token and its nodes with `lite token revoke --nodes %s`", id)
	}
	return apierrors.NewTooManyRequests(fmt.Sprintf(
		"too many certificate signing requests with %s, the last one from %s; retry in %d s. If these are not your machines, %s",
		what, from, seconds, remedy), seconds)
}
