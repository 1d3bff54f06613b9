package join

import (
	"context"
	"errors"
	"net/http"
	"slices"

	authv1 "k8s.io/api/authentication/v1"
	"k8s.io/cluster-bootstrap/token/jws"
)

const (
	reviewPath = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	review     = `{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}`
)

// Check asks the cluster whether the token lets a machine join it as role. What
// it returns is an *Error.
func Check(ctx context.Context, c Cluster, t Token, role Role) error {
	ca, err := parseCerts(c.CA)
	if err != nil {
		return &Error{Problem: "the CA that was discovered is damaged", Remedy: "join again", err: err}
	}
	server, err := serverOf(t, c.Server)
	if err != nil {
		return err
	}
	p := peer{server: server, client: client(verified(ca))}
	var who authv1.SelfSubjectReview
	a, err := p.ask(ctx, http.MethodPost, reviewPath, t.ID+"."+t.Secret, review, &who)
	switch {
	case err != nil:
		return err
	case a.code == http.StatusUnauthorized && a.kubernetes:
		return p.explain(ctx, t)
	case a.code == http.StatusForbidden && a.kubernetes:
		return p.starting("its roles, which let a token authenticate")
	case a.code/100 != 2:
		return p.unexpected(a)
	}
	return p.checkRole(t, role, who.Status.UserInfo.Groups)
}

func (p peer) checkRole(t Token, want Role, groups []string) error {
	if slices.Contains(groups, want.Group()) {
		return nil
	}
	return p.wrongRole(t, want, roleIn(groups))
}

// explain finds out why the cluster does not know the token.
func (p peer) explain(ctx context.Context, t Token) error {
	i, err := p.clusterInfo(ctx)
	if closed := new(closedError); errors.As(err, &closed) {
		return p.unknown(t)
	}
	if err != nil {
		return err
	}
	if how, when := i.ended(t.ID); how != "" {
		return p.over(t, how, when)
	}
	signature, ok := i.signature(t.ID)
	switch {
	case !ok:
		return p.absent(t, i)
	case !jws.DetachedTokenIsValid(signature, i.kubeconfig, t.ID, t.Secret):
		return p.wrongSecret(t)
	}
	return p.refused(t)
}
