package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"slices"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/pkg/join/approver"
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
		m := Membership{dir: t.TempDir()}
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
