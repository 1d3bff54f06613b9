package controlplane

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// Authorization is ready when the control plane's own identities may work. The
// API server writes the roles of a new cluster a second or more after it has
// begun to serve, and looks at those of an old one again after a second (1.37):
// asking what they allow lets the others start as soon as they can.
type Authorization struct {
	kubeconfig string
	allowed    atomic.Bool
	problem    atomic.Pointer[error] // why it could not ask when it last tried
}

// NewAuthorization makes the component; nothing is touched before Run.
func NewAuthorization(c Config) *Authorization {
	return &Authorization{kubeconfig: c.Dir.Kubeconfig(pki.Scheduler)}
}

// Name implements component.Component.
func (*Authorization) Name() string { return "authorization" }

// Ready implements component.Component.
func (a *Authorization) Ready(context.Context) error {
	switch problem := a.problem.Load(); {
	case a.allowed.Load():
		return nil
	case problem != nil:
		return fmt.Errorf("waiting for the API server to write the bootstrap roles: %w", *problem)
	}
	return errors.New("waiting for the API server to write the bootstrap roles")
}

// Run implements component.Component. It asks for what is written last: a role
// in a namespace follows all roles and bindings of the cluster, and this one is
// the scheduler's only way to what it asks for.
func (a *Authorization) Run(ctx context.Context) error {
	client, err := kube.NewClient(a.kubeconfig, "authorization").Clientset()
	if err != nil {
		return err
	}
	review := &v1.SelfSubjectAccessReview{Spec: v1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &v1.ResourceAttributes{
			Verb: "get", Resource: "configmaps", Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication",
		},
	}}
	tick := time.NewTicker(50 * time.Millisecond)
	for !a.allowed.Load() && ctx.Err() == nil {
		answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err == nil && answer.Status.Allowed {
			a.allowed.Store(true)
			break
		}
		if err != nil {
			a.problem.Store(&err)
		} else {
			a.problem.Store(nil)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	tick.Stop()
	<-ctx.Done()
	return nil
}
