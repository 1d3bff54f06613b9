package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/cluster-bootstrap/token/jws"
)

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	return sign(t, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "kubernetes"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil)
}

// sign makes a key and a certificate for it; a nil signer is itself.
func sign(t *testing.T, template *x509.Certificate, by *authority) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = &authority{template, key}
	}
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) certs() []*x509.Certificate { return []*x509.Certificate{a.cert} }

func (a authority) hash() string { return hashOf(a.cert) }

// serving is a certificate for 127.0.0.1, unless change makes it another.
func (a authority) serving(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	leaf := sign(t, template, &a)
	return tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}
}

// apiServer is as much of an API server as a machine that joins meets. Tests change
// its fields before they start it, or while they hold the lock.
type apiServer struct {
	t    *testing.T
	ca   authority
	cert tls.Certificate

	sync.Mutex
	info    map[string]string
	tokens  map[string][]string         // the groups of each token that may authenticate
	date    time.Time                   // what its clock says; zero for the right time
	answers map[string]http.HandlerFunc // in place of the API's own, by path
}

func newAPI(t *testing.T) *apiServer {
	ca := newAuthority(t)
	a := &apiServer{t: t, ca: ca, cert: ca.serving(t, nil), tokens: map[string][]string{}, answers: map[string]http.HandlerFunc{}}
	a.publish(ca)
	return a
}

func (a *apiServer) publish(cas ...authority) {
	c := fake.NewClientset()
	var certs []*x509.Certificate
	for _, ca := range cas {
		certs = append(certs, ca.cert)
	}
	if err := Publish(a.t.Context(), c, "https://10.0.0.1:6443", encodeCerts(certs)); err != nil {
		a.t.Fatal(err)
	}
	a.info = published(a.t, c)
}

// admit makes the cluster know a token, as the signer and the API server would.
func (a *apiServer) admit(t Token, groups ...string) {
	signature, err := jws.ComputeDetachedSignature(a.info["kubeconfig"], t.ID, t.Secret)
	if err != nil {
		a.t.Fatal(err)
	}
	a.info["jws-kubeconfig-"+t.ID] = signature
	a.tokens[t.ID+"."+t.Secret] = groups
}

// start serves on a loopback address and returns its URL.
func (a *apiServer) start() string {
	s := httptest.NewUnstartedServer(a)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.URL
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.Lock()
	defer a.Unlock()
	if !a.date.IsZero() {
		w.Header().Set("Date", a.date.Format(http.TimeFormat))
	}
	bearer, hasToken := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	groups, known := a.tokens[bearer]
	switch {
	case a.answers[r.URL.Path] != nil:
		a.answers[r.URL.Path](w, r)
	case r.URL.Path == infoPath && r.Method == http.MethodGet:
		if hasToken {
			a.t.Error("the token was shown to a server before it was trusted")
		}
		reply(w, http.StatusOK, corev1.ConfigMap{Data: a.info})
	case r.URL.Path == reviewPath && r.Method == http.MethodPost && known:
		var review authv1.SelfSubjectReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Kind != "SelfSubjectReview" {
			a.t.Errorf("was sent %+v, %v", review, err)
		}
		review.Status.UserInfo.Groups = groups
		reply(w, http.StatusCreated, review)
	case r.URL.Path == reviewPath:
		refuse(http.StatusUnauthorized)(w, r)
	default:
		a.t.Errorf("was asked %s %s", r.Method, r.URL)
	}
}

func reply(w http.ResponseWriter, code int, object any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object)
}

// refuse answers an error as Kubernetes does.
func refuse(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		reply(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Code: int32(code)})
	}
}

// page answers as something else than Kubernetes does.
func page(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://elsewhere.invalid")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "<html>")
	}
}

// wants fails unless err is an *Error of this sort that says each of the texts
// and keeps the secret.
func wants(t *testing.T, err error, retry bool, says ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if e.Retry != retry {
		t.Errorf("Retry = %t of %v", e.Retry, err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
	if strings.Contains(err.Error(), sample.Secret) {
		t.Errorf("%q shows the secret", err)
	}
	if e.Problem == "" || e.Remedy == "" || strings.HasSuffix(e.Remedy, ".") {
		t.Errorf("not a problem and a remedy: %q", err)
	}
}

func TestDiscoverBySignature(t *testing.T) {
	a, next := newAPI(t), newAuthority(t)
	a.publish(a.ca, next)
	a.admit(sample)
	url := a.start()
	got, err := Discover(t.Context(), sample, url+"/")
	if err != nil {
		t.Fatal(err)
	}
	if got.Server != url || string(got.CA) != string(encodeCerts([]*x509.Certificate{a.ca.cert, next.cert})) {
		t.Errorf("got %s, %s", got.Server, got.CA)
	}
}

func TestDiscoverByHashTrustsOnlyWhatItNames(t *testing.T) {
	a := newAPI(t)
	a.publish(newAuthority(t), a.ca)
	url := a.start()
	token := sample
	token.CAHash, token.Server = strings.ToUpper(a.ca.hash()), strings.TrimPrefix(url, "https://")
	got, err := Discover(t.Context(), token, "")
	if err != nil {
		t.Fatal(err)
	}
	if got.Server != url || string(got.CA) != string(encodeCerts(a.ca.certs())) {
		t.Errorf("got %s, %s", got.Server, got.CA)
	}
	token.Server = "127.0.0.1:1"
	if _, err := Discover(t.Context(), token, url); err != nil {
		t.Errorf("the address that is given does not override the token's: %v", err)
	}
}

func TestDiscoverRefusesAnotherCA(t *testing.T) {
	a := newAPI(t)
	a.admit(sample) // a signature does not help
	token := sample
	token.CAHash = someHash
	_, err := Discover(t.Context(), token, a.start())
	wants(t, err, false, someHash, a.ca.hash(), "somebody is in between")
}

func TestDiscoverRefusesWhatIsNotSigned(t *testing.T) {
	other := Token{ID: sample.ID, Secret: "fedcba9876543210"}
	third := Token{ID: "ghijkl", Secret: "0123456789abcdef"}
	for name, test := range map[string]struct {
		change func(*apiServer)
		retry  bool
		says   string
	}{
		"another secret": {func(a *apiServer) { a.admit(other) }, false, "has the token abcdef with another secret"},
		"another kubeconfig": {func(a *apiServer) {
			a.admit(sample)
			s := a.info["jws-kubeconfig-abcdef"]
			a.publish(newAuthority(t))
			a.info["jws-kubeconfig-abcdef"] = s
		}, false, "with another secret"},
		"an empty signature":  {func(a *apiServer) { a.info["jws-kubeconfig-abcdef"] = "" }, false, "with another secret"},
		"no token of this ID": {func(a *apiServer) { a.admit(third) }, false, "has no token with the ID abcdef; compare"},
		"no token at all":     {func(*apiServer) {}, true, "has no valid token, or none yet; create one"},
		"expired":             {func(a *apiServer) { a.admit(third); a.info["ended-abcdef"] = "expired " + stamp(noon) }, false, "the token abcdef expired at 2026-01-02T12:00:00Z; create one with"},
		"deleted":             {func(a *apiServer) { a.info["ended-abcdef"] = "deleted " + stamp(noon) }, false, "the token abcdef was deleted at 2026-01-02T12:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			test.change(a)
			c, err := Discover(t.Context(), sample, a.start())
			wants(t, err, test.retry, test.says)
			if c.CA != nil {
				t.Error("returned a CA")
			}
		})
	}
}

func TestDiscoverAnswersOfTheServer(t *testing.T) {
	config := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			reply(w, http.StatusOK, corev1.ConfigMap{Data: map[string]string{"kubeconfig": text}})
		}
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		retry  bool
		says   string
	}{
		"not published yet":  {refuse(http.StatusNotFound), true, "waiting for its cluster-info to be published"},
		"not readable yet":   {refuse(http.StatusForbidden), true, "waiting for its cluster-info to be readable"},
		"empty":              {config(""), true, "waiting for the CA in its cluster-info"},
		"starting":           {refuse(http.StatusServiceUnavailable), true, "waiting for its API (it answers 503 Service Unavailable)"},
		"gateway":            {page(http.StatusBadGateway), true, "waiting for its API (it answers 502 Bad Gateway)"},
		"busy":               {refuse(http.StatusTooManyRequests), true, "answers 429 Too Many Requests"},
		"nobody may read":    {refuse(http.StatusUnauthorized), false, "allows no anonymous requests"},
		"a website's 404":    {page(http.StatusNotFound), false, "is not a lite server: it answers 404 Not Found"},
		"a website's 403":    {page(http.StatusForbidden), false, "is not a lite server: it answers 403 Forbidden"},
		"a redirect":         {page(http.StatusFound), false, "is not a lite server: it answers 302 Found"},
		"a website":          {page(http.StatusOK), false, "is not a lite server: it answers with something else"},
		"a strange file":     {config("]"), false, "has a cluster-info without a CA"},
		"two clusters":       {config("clusters: [{name: a, cluster: {}}, {name: b, cluster: {}}]"), false, "has a cluster-info without a CA"},
		"a kubeconfig alone": {config("clusters: [{name: a, cluster: {server: x}}]"), false, "has a cluster-info without a CA"},
		"hangs up":           {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true, "the connection was closed"},
		"half an answer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "{")
			panic(http.ErrAbortHandler)
		}, true, "the connection was closed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.answers[infoPath] = test.answer
			url := a.start()
			_, err := Discover(t.Context(), sample, url)
			wants(t, err, test.retry, test.says, url)
		})
	}
}

func TestDiscoverCertificates(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*x509.Certificate)
		date   time.Time
		retry  bool
		says   []string
	}{
		"this clock is behind": {func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		},
			noon, true, []string{"this machine's clock shows ", "the server's 2026-01-02T12:00:00Z", "set the clocks", "NTP"}},
		"this clock is ahead": {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
			noon, true, []string{"the server's 2026-01-02T12:00:00Z", "set the clocks"}},
		"expired": {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
			time.Time{}, true, []string{"restart `lite server`, which renews"}},
		"for another address": {func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other"} },
			time.Time{}, false, []string{"is not for that address; add the address to --tls-san"}},
		"for another use": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			time.Time{}, false, []string{"is not signed by the cluster's CA"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.cert, a.date = a.ca.serving(t, test.change), test.date
			a.admit(sample)
			url := a.start()
			_, err := Discover(t.Context(), sample, url)
			wants(t, err, test.retry, append(test.says, url)...)
		})
	}
}

// Somebody in between can pass cluster-info on, but not be the server.
func TestDiscoverRefusesOneWhoOnlyPassesTheCAOn(t *testing.T) {
	a := newAPI(t)
	a.cert = newAuthority(t).serving(t, nil)
	a.admit(sample)
	token := sample
	token.CAHash = a.ca.hash()
	url := a.start()
	for _, token := range []Token{sample, token} {
		_, err := Discover(t.Context(), token, url)
		wants(t, err, false, "is not signed by the cluster's CA", "somebody in between")
	}
}

func TestDiscoverLooksASecondTime(t *testing.T) {
	a := newAPI(t)
	a.admit(sample)
	asked := 0
	was := a.info
	a.answers[infoPath] = func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 2 {
			a.publish(newAuthority(t))
		}
		reply(w, http.StatusOK, corev1.ConfigMap{Data: a.info})
	}
	url := a.start()
	_, err := Discover(t.Context(), sample, url)
	wants(t, err, true, "waiting for its CA, which has just changed, to settle")
	a.info, asked = was, 2
	if _, err := Discover(t.Context(), sample, url); err != nil {
		t.Error(err)
	}
}

// closes makes the server allow no anonymous requests, and show its CA.
func (a *apiServer) closes() {
	a.answers[infoPath] = refuse(http.StatusUnauthorized)
	a.cert.Certificate = append(a.cert.Certificate, a.ca.cert.Raw)
}

func TestDiscoverWithoutAnonymousRequests(t *testing.T) {
	a := newAPI(t)
	a.admit(sample, Agent.Group())
	a.closes()
	url := a.start()
	token := sample
	token.CAHash = a.ca.hash()
	got, err := Await(t.Context(), token, url, Agent, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if got.Server != url || string(got.CA) != string(encodeCerts(a.ca.certs())) {
		t.Errorf("got %s, %s", got.Server, got.CA)
	}
	_, err = Discover(t.Context(), sample, url)
	wants(t, err, false, "does not contain the hash", "lite://", url)
	token.CAHash = someHash
	_, err = Discover(t.Context(), token, url)
	wants(t, err, false, someHash, a.ca.hash(), "somebody is in between")
	clear(a.tokens)
	token.CAHash = a.ca.hash()
	wants(t, Check(t.Context(), got, token, Agent), false, "does not accept the token abcdef: it has expired, was deleted")
}

// The token goes to nobody who is not the server, whatever is shown.
func TestDiscoverWithoutAnonymousRequestsRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*apiServer)
		retry  bool
		says   string
	}{
		"who only shows the CA": {func(a *apiServer) {
			a.cert = newAuthority(t).serving(t, nil)
			a.cert.Certificate = append(a.cert.Certificate, a.ca.cert.Raw)
		}, false, "is not signed by the cluster's CA"},
		"who shows no CA": {func(a *apiServer) { a.cert.Certificate = a.cert.Certificate[:1] }, false, "presents neither cluster-info nor the CA"},
		"another CA with the key": {func(a *apiServer) {
			forged := &x509.Certificate{Subject: pkix.Name{CommonName: "other"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
			forged.SerialNumber = big.NewInt(2)
			by := newAuthority(t)
			der, err := x509.CreateCertificate(rand.Reader, forged, by.cert, a.ca.key.Public(), by.key)
			if err != nil {
				t.Fatal(err)
			}
			a.cert = by.serving(t, nil)
			a.cert.Certificate = append(a.cert.Certificate, der)
		}, false, "is not signed by the cluster's CA"},
		"who has just opened": {func(a *apiServer) {
			asked := 0
			a.answers[infoPath] = func(w http.ResponseWriter, r *http.Request) {
				if asked++; asked == 1 {
					refuse(http.StatusUnauthorized)(w, r)
					return
				}
				reply(w, http.StatusOK, corev1.ConfigMap{Data: a.info})
			}
		}, true, "waiting for its CA, which has just changed, to settle"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.admit(sample)
			a.closes()
			a.answers[reviewPath] = func(http.ResponseWriter, *http.Request) { t.Error("the token was shown") }
			test.change(a)
			token := sample
			token.CAHash = a.ca.hash()
			c, err := Discover(t.Context(), token, a.start())
			wants(t, err, test.retry, test.says)
			if c.CA != nil {
				t.Error("returned a CA")
			}
		})
	}
}

func TestDiscoverAddresses(t *testing.T) {
	for _, test := range []struct{ server, says string }{
		{"", "does not contain the address of the server; pass its address with --server"},
		{"host:6443", "does not begin with https://"},
		{"http://host:6443", "does not begin with https://"},
		{"https://", "neither a name nor an address"},
		{"https://host:port", "port that is not a number"},
		{"https://host:6443/path", "port that is not a number"},
		{"https://user@host", "neither a name nor an address"},
	} {
		_, err := Discover(t.Context(), sample, test.server)
		wants(t, err, false, test.says, "https://<host>:6443")
	}
	for server, want := range map[string]string{
		"https://host/":         "https://host:6443",
		"https://[fd00::1]:443": "https://[fd00::1]:443",
	} {
		if got, err := serverOf(sample, server); err != nil || got != want {
			t.Errorf("%s: got %s, %v", server, got, err)
		}
	}
}

// listen accepts connections and does what serve does with them.
func listen(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
		}
	}()
	return "https://" + l.Addr().String()
}

func TestDiscoverWhatDoesNotAnswer(t *testing.T) {
	plain := httptest.NewServer(page(http.StatusOK))
	t.Cleanup(plain.Close)
	picky := httptest.NewUnstartedServer(page(http.StatusOK))
	picky.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	picky.Config.ErrorLog = log.New(io.Discard, "", 0)
	picky.StartTLS()
	t.Cleanup(picky.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, test := range map[string]struct {
		url   string
		retry bool
		says  string
	}{
		"nobody listens": {"https://" + closed.Addr().String(), true, "cannot reach the server " + "https://" + closed.Addr().String() + ": connection refused"},
		"plain HTTP":     {"https://" + plain.Listener.Addr().String(), false, "does not speak TLS"},
		"SSH": {listen(t, func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-OpenSSH\r\n"); c.Close() }),
			false, "does not speak TLS"},
		"wants a client certificate": {picky.URL, false, "does not accept TLS connections from here"},
		"hangs up":                   {listen(t, func(c net.Conn) { c.Close() }), true, "cannot reach the server "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Discover(t.Context(), sample, test.url)
			wants(t, err, test.retry, test.says)
		})
	}
}

func TestDiscoverWhenTimeIsUp(t *testing.T) {
	url := listen(t, func(net.Conn) {})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Discover(ctx, sample, url)
	wants(t, err, true, "no answer in time")
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = Discover(ctx, sample, url)
	wants(t, err, true, "the request was canceled")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v hides its cause", err)
	}
}

func TestNamesThatCannotBeLookedUp(t *testing.T) {
	p := peer{server: "https://host:6443"}
	wants(t, p.noAnswer(&net.DNSError{Name: "host", IsNotFound: true}), false, "the name host of the server does not exist")
	wants(t, p.noAnswer(&net.DNSError{Name: "host", IsTemporary: true}), true, "cannot look up the name host")
}

func TestAClockThatTheServerDidNotTell(t *testing.T) {
	p := peer{server: "https://host:6443"}
	err := p.untrusted(x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{NotBefore: noon, NotAfter: noon}})
	wants(t, err, true, "valid from 2026-01-02T12:00:00Z", "this machine's clock", "set the clocks")
	if strings.Contains(err.Error(), "the server's") {
		t.Errorf("%q makes the server's clock up", err)
	}
}
