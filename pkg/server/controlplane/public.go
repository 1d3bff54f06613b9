package controlplane

import (
	"errors"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
)

// public is what anonymous requests may ask for: whether the server is well, as
// load balancers must, and what the cluster's CA is, which machines that want to
// join verify by their token; and nothing else.
var public = []apiserver.AnonymousAuthCondition{
	{Path: "/livez"}, {Path: "/readyz"}, {Path: "/healthz"},
	{Path: "/api/v1/namespaces/kube-public/configmaps/cluster-info"},
}

// settleAnonymous decides who says what anonymous requests may do: the user, by
// anonymous-auth or by a file that has the field anonymous, or we do. Upstream's
// default is that all may ask for anything, and only a file can restrict that (1.37).
// A file of ours would exclude a file or the oidc-* flags of a user. So upstream is
// told that there are no anonymous requests, and [withPublic] lets some in, unless a
// profile leaves that out.
func settleAnonymous(s *options.ServerRunOptions, profile string) (ours bool, err error) {
	file, authn := s.Authentication.AuthenticationConfigFile, s.Authentication.Anonymous
	configured := false
	if file != "" {
		a, err := readAuthentication(file, s.Authentication.ServiceAccounts.Issuers)
		if err != nil {
			return false, kube.FileError("kube-apiserver", "authentication-config", file, err, "")
		}
		configured = a.Anonymous != nil
	}
	switch {
	case configured && authn.FlagsSet:
		return false, kube.FileError("kube-apiserver", "authentication-config", file,
			errors.New("has the field anonymous, which excludes anonymous-auth"), "use one of them")
	case !configured && !authn.FlagsSet:
		authn.Allow = false
		return profile != config.ProfileCIS, nil
	}
	return false, nil
}

// withPublic allows anonymous requests to what is public. Wrong credentials are refused,
// as upstream does.
func withPublic(others authenticator.Request) authenticator.Request {
	return union.NewFailOnError(others, anonymous.NewAuthenticator(public))
}
