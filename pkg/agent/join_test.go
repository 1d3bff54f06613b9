package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	api "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"

	"lite.io/lite/pkg/join/approver"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

func TestTheServerNamedLastComesFirst(t *testing.T) {
	var m Membership
	for _, step := range []struct {
		server string
		want   []string
	}{
		{"a", []string{"a"}},
		{"", []string{"a"}},
		{"b", []string{"b", "a"}},
		{"a", []string{"a", "b"}},
		{"c", []string{"c", "a", "b"}},
		{"d", []string{"d", "c", "a"}},
	} {
		if m.prefer(step.server); !slices.Equal(m.Servers, step.want) {
			t.Errorf("after %q: %v, want %v", step.server, m.Servers, step.want)
		}
	}
}

func TestWaitsFor(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	request := func(name string, age time.Duration, why string) certificates.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
		if err != nil {
			t.Fatal(err)
		}
		r := certificates.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec:       certificates.CertificateSigningRequestSpec{Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})},
		}
		if why != "" {
			r.Status.Conditions = []certificates.CertificateSigningRequestCondition{{Type: approver.Waiting, Status: v1.ConditionTrue, Message: why}}
		}
		return r
	}
	mine := "system:node:mine"
	for name, test := range map[string]struct {
		requests []certificates.CertificateSigningRequest
		want     string
	}{
		"none":                    {nil, ""},
		"nothing to wait for":     {[]certificates.CertificateSigningRequest{request(mine, 0, "")}, ""},
		"held":                    {[]certificates.CertificateSigningRequest{request(mine, 0, "held")}, "held"},
		"another's":               {[]certificates.CertificateSigningRequest{request("system:node:other", 0, "held")}, ""},
		"an older one of mine":    {[]certificates.CertificateSigningRequest{request(mine, 0, ""), request(mine, time.Hour, "held")}, ""},
		"the newest, any order":   {[]certificates.CertificateSigningRequest{request(mine, time.Hour, ""), request(mine, 0, "held")}, "held"},
		"something else entirely": {[]certificates.CertificateSigningRequest{{}}, ""},
	} {
		if got := waitsFor(test.requests, "mine"); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestForgetRemovesTheIdentityOfAnotherClusterOnly(t *testing.T) {
	for name, test := range map[string]struct {
		now  string
		left bool
	}{"same": {"ca", true}, "another": {"other", false}} {
		m := Membership{dir: layout.Agent(t.TempDir())}
		if err := os.MkdirAll(m.certificates(), 0o700); err != nil {
			t.Fatal(err)
		}
		for path, content := range map[string]string{m.CAFile(): "ca", m.joined(): "x"} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.forget([]byte(test.now)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{m.joined(), m.certificates()} {
			if _, err := os.Stat(path); (err == nil) != test.left {
				t.Errorf("%s: %s: %v", name, path, err)
			}
		}
	}
}

// memberOf makes the files of a machine that has joined.
func memberOf(t *testing.T, name string, until time.Time) Membership {
	t.Helper()
	m := Membership{dir: layout.Agent(t.TempDir())}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "system:node:" + name}, NotBefore: until.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.MkdirAll(m.certificates(), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		m.CAFile(): cert, m.joined(): nil, filepath.Join(m.certificates(), "kubelet-client-current.pem"): cert,
		m.file(): []byte(`{"servers":["https://192.0.2.1:6443"],"facts":{"clusterCIDR":["10.42.0.0/16"],"serviceCIDR":["10.43.0.0/16"],"clusterDNS":"10.43.0.10"}}`),
	} {
		write(t, path, string(content))
	}
	return m
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is damaged is named, so that a token mends it; some damages ended the
// agent even if it had one, or blamed an argument of kube-proxy's.
func TestDamagedMembership(t *testing.T) {
	if m := memberOf(t, "n1", time.Now().Add(time.Hour)); true {
		if member, err := m.load(); !member || err != nil || len(m.Servers) != 1 {
			t.Fatalf("got %t, %v", member, err)
		}
	}
	for want, damage := range map[string]func(m Membership){
		"cluster.json: unexpected end":                       func(m Membership) { write(t, m.file(), "") },
		"cluster.json: invalid character":                    func(m Membership) { write(t, m.file(), "\x00\x01") },
		"cluster.json: it contains no server":                func(m Membership) { write(t, m.file(), "{}") },
		`cluster.json: "x y" is not the address of a server`: func(m Membership) { write(t, m.file(), `{"servers":["x y"]}`) },
		"cluster.json: the facts of the cluster are missing": func(m Membership) { write(t, m.file(), `{"servers":["https://192.0.2.1:6443"]}`) },
		"ca.crt: it does not contain a certificate":          func(m Membership) { write(t, m.CAFile(), "") },
		"read the node's certificate":                        func(m Membership) { write(t, filepath.Join(m.certificates(), "kubelet-client-current.pem"), "x") },
	} {
		m := memberOf(t, "n1", time.Now().Add(time.Hour))
		damage(m)
		if member, err := m.load(); member || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %t, %v, want %s", member, err, want)
		}
	}
	m := memberOf(t, "n1", time.Now().Add(-time.Minute))
	if member, err := m.load(); member || err == nil || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("got %t, %v", member, err)
	}
}

// The kubelet's bootstrap ends by a key that was not written whole.
func TestHalfAKeyIsRemoved(t *testing.T) {
	for content, stays := range map[string]bool{"": false, "-----BEGIN EC PRIVATE KEY-----\nMHc": false, privateKey(t): true} {
		m := Membership{dir: layout.Agent(t.TempDir())}
		if err := os.MkdirAll(m.certificates(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := m.clear("n1"); err != nil {
			t.Errorf("without a key: %v", err)
		}
		write(t, m.unusedKey(), content)
		if err := m.clear("n1"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(m.unusedKey()); (err == nil) != stays {
			t.Errorf("%q: got %v", content, err)
		}
	}
}

func privateKey(t *testing.T) string {
	t.Helper()
	text, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A machine that was killed while it joined, and is then given another name, must
// not take the certificate of the first for that of the second.
func TestTheIdentityOfAnotherNameIsRemoved(t *testing.T) {
	for name, stays := range map[string]bool{"n1": true, "n2": false} {
		m := memberOf(t, "n1", time.Now().Add(time.Hour))
		if err := m.clear(name); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{m.joined(), m.certificates()} {
			if _, err := os.Stat(path); (err == nil) != stays {
				t.Errorf("as %s: %s: %v", name, path, err)
			}
		}
	}
}

// An agent whose certificate is refused is new. One that is not known yet, by a server
// that has only just begun or in any other trouble, is what it was.
func TestAnAgentLearnsThatItIsRefused(t *testing.T) {
	unauthorized := apierrors.NewUnauthorized("Unauthorized")
	refused := apierrors.NewUnauthorized("node mine was revoked")
	refused.ErrStatus.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: roll.Refused}}}
	for name, test := range map[string]struct {
		answer *apierrors.StatusError
		want   bool
	}{
		"refused":          {refused, true},
		"not let in":       {unauthorized, false},
		"unavailable":      {apierrors.NewServiceUnavailable("wait"), false},
		"forbidden":        {apierrors.NewForbidden(schema.GroupResource{}, "x", nil), false},
		"something broken": {apierrors.NewInternalError(errors.New("x")), false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(int(test.answer.ErrStatus.Code))
				test.answer.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
				_ = json.NewEncoder(w).Encode(test.answer.ErrStatus)
			}))
			defer server.Close()
			m := Membership{dir: layout.Agent(t.TempDir()), Servers: []string{server.URL}}
			write(t, m.CAFile(), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
			if err := m.writeKubeconfig(m.joined(), server.URL, &api.AuthInfo{Token: "x"}); err != nil {
				t.Fatal(err)
			}
			err := m.refresh(t.Context())
			if (err != nil) != test.want || test.want && !strings.Contains(err.Error(), "node mine was revoked") {
				t.Errorf("got %v", err)
			}
		})
	}
}
