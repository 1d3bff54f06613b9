package kube

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"
	cliflag "k8s.io/component-base/cli/flag"
)

// Each upstream reads the names by a table of its own.
func TestCipherSuitesAreStrongAndKnown(t *testing.T) {
	byKubernetes, err := cliflag.TLSCipherSuites(CipherSuites())
	if err != nil {
		t.Fatal(err)
	}
	byEtcd, err := tlsutil.GetCipherSuites(CipherSuites())
	if err != nil {
		t.Fatal(err)
	}
	ours := ServerTLS().CipherSuites
	if !slices.Equal(byKubernetes, ours) || !slices.Equal(byEtcd, ours) {
		t.Errorf("Kubernetes takes %x, etcd %x, we %x", byKubernetes, byEtcd, ours)
	}
	if v, err := cliflag.TLSVersion(MinTLSVersion); err != nil || v != ServerTLS().MinVersion || v != tls.VersionTLS12 {
		t.Errorf("%s is %x, %v", MinTLSVersion, v, err)
	}
	for _, id := range ours {
		name := tls.CipherSuiteName(id)
		if !strings.HasPrefix(name, "TLS_ECDHE_") || strings.Contains(name, "CBC") || strings.HasSuffix(name, "_SHA") {
			t.Errorf("%s is weak", name)
		}
	}
	// Without it Go refuses to serve HTTP/2.
	if !slices.Contains(ours, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) {
		t.Error("the suite that HTTP/2 demands is missing")
	}
}

// A list of suites that scanners like, or a name that is misspelt, was found when it
// was served by; the kubelet ended lite by it.
func TestSuitesThatNobodyCanServeBy(t *testing.T) {
	const required, strong, rsa = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	for name, test := range map[string]struct {
		l    Listener
		want []string
	}{
		"ours":                     {Listener{Suites: CipherSuites(), MinVersion: MinTLSVersion}, nil},
		"nothing said":             {Listener{}, nil},
		"strong ones alone":        {Listener{Suites: []string{strong}, MinVersion: MinTLSVersion}, []string{`kubelet-arg "tls-cipher-suites=` + strong + `"`, "HTTP/2", "add " + required, "VersionTLS13"}},
		"weak ones alone":          {Listener{Suites: []string{"TLS_RSA_WITH_AES_128_CBC_SHA"}}, []string{"HTTP/2", "add " + required}},
		"strong ones and that":     {Listener{Suites: []string{strong, required}}, nil},
		"that of the other kind":   {Listener{Suites: []string{strong, rsa}}, nil},
		"strong ones, TLS 1.3":     {Listener{Suites: []string{strong}, MinVersion: "VersionTLS13"}, nil},
		"strong ones, HTTP/1 only": {Listener{Suites: []string{strong}, HTTP1: true}, nil},
		"a name of OpenSSL's":      {Listener{Suites: []string{required, "ECDHE-RSA-AES128-GCM-SHA256"}}, []string{"tls-cipher-suites=", "ECDHE-RSA-AES128-GCM-SHA256 not supported", "names such as TLS_"}},
		"an unknown version":       {Listener{MinVersion: "TLS1.3"}, []string{`"tls-min-version=TLS1.3"`, "VersionTLS13"}},
	} {
		err := test.l.Check("kubelet")
		if (err == nil) != (len(test.want) == 0) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range test.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %v", name, w, err)
			}
		}
	}
}
