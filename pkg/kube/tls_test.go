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
