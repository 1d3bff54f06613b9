package join

import (
	"net/http"
	"strings"
	"testing"
)

// cluster is what Discover would have found.
func (a *apiServer) cluster() Cluster {
	return Cluster{CA: encodeCerts(a.ca.certs()), Server: a.start()}
}

func TestCheckRoles(t *testing.T) {
	for name, test := range map[string]struct {
		groups []string
		role   Role
		says   string // "" if it may join
	}{
		"agent":             {[]string{"system:bootstrappers", "system:bootstrappers:lite:agent"}, Agent, ""},
		"server":            {[]string{"system:bootstrappers:lite:server"}, Server, ""},
		"both":              {[]string{"system:bootstrappers:lite:agent", "system:bootstrappers:lite:server"}, Server, ""},
		"agent's as server": {[]string{"system:bootstrappers:lite:agent"}, Server, "is for joining as agent, not as server; start `lite agent` with it, or create another one with `lite token create --role server`"},
		"server's as agent": {[]string{"system:bootstrappers:lite:server"}, Agent, "is for joining as server, not as agent; start `lite server` with it"},
		"kubeadm's":         {[]string{"system:bootstrappers"}, Agent, "is not for joining lite; create one with `lite token create --role agent`"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.admit(sample, test.groups...)
			err := Check(t.Context(), a.cluster(), sample, test.role)
			if test.says != "" {
				wants(t, err, false, test.says, "abcdef")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCheckSaysWhyATokenIsRefused(t *testing.T) {
	third := Token{ID: "ghijkl", Secret: "0123456789abcdef"}
	for name, test := range map[string]struct {
		change func(*apiServer)
		retry  bool
		says   string
	}{
		"expired": {func(a *apiServer) { a.info["ended-abcdef"] = "expired " + stamp(noon) }, false, "expired at 2026-01-02T12:00:00Z"},
		"deleted": {func(a *apiServer) { a.info["ended-abcdef"] = "deleted " + stamp(noon) }, false, "was deleted at 2026-01-02T12:00:00Z"},
		"ended, still signed": {func(a *apiServer) {
			a.admit(sample)
			a.info["ended-abcdef"] = "expired " + stamp(noon)
			clear(a.tokens)
		}, false, "expired at"},
		"just expired":   {func(a *apiServer) { a.admit(sample); clear(a.tokens) }, false, "no longer accepts the token abcdef"},
		"wrong secret":   {func(a *apiServer) { a.admit(Token{ID: "abcdef", Secret: "fedcba9876543210"}) }, false, "with another secret"},
		"unknown":        {func(a *apiServer) { a.admit(third) }, false, "has no token with the ID abcdef"},
		"none":           {func(*apiServer) {}, true, "has no valid token, or none yet"},
		"cannot be told": {func(a *apiServer) { a.answers[infoPath] = refuse(http.StatusServiceUnavailable) }, true, "answers 503"},
		"forbidden yet":  {func(a *apiServer) { a.answers[reviewPath] = refuse(http.StatusForbidden) }, true, "waiting for its roles"},
		"starting":       {func(a *apiServer) { a.answers[reviewPath] = refuse(http.StatusInternalServerError) }, true, "answers 500"},
		"another API":    {func(a *apiServer) { a.answers[reviewPath] = refuse(http.StatusNotFound) }, false, "is not a lite server: it answers 404"},
		"a website":      {func(a *apiServer) { a.answers[reviewPath] = page(http.StatusUnauthorized) }, false, "is not a lite server: it answers 401"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			test.change(a)
			wants(t, Check(t.Context(), a.cluster(), sample, Agent), test.retry, test.says)
		})
	}
}

func TestCheckShowsTheTokenToNobodyElse(t *testing.T) {
	a := newAPI(t)
	a.answers[reviewPath] = func(http.ResponseWriter, *http.Request) { t.Error("the token was shown") }
	c := a.cluster()
	c.CA = encodeCerts(newAuthority(t).certs())
	wants(t, Check(t.Context(), c, sample, Agent), false, "is not signed by the cluster's CA")
}

func TestCheckOfNoCluster(t *testing.T) {
	wants(t, Check(t.Context(), Cluster{Server: "https://127.0.0.1:1"}, sample, Agent), false, "is damaged")
	ca := encodeCerts(newAuthority(t).certs())
	wants(t, Check(t.Context(), Cluster{CA: ca}, sample, Agent), false, "does not contain the address of the server")
	wants(t, Check(t.Context(), Cluster{CA: ca, Server: "https://127.0.0.1:1"}, sample, Agent), true, "connection refused")
	if strings.Contains(review, "\n") {
		t.Error("the review is more than a line")
	}
}
