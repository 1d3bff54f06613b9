package server

import (
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

func called(name, names string, server bool) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}, Annotations: map[string]string{layout.APINamesAnnotation: names}}}
	if server {
		n.Labels[kube.ServerLabel] = "true"
	}
	return n
}

// Each server's certificate was for its own names alone.
func TestCertificatesAreForTheNamesOfAllServers(t *testing.T) {
	dir := layout.Server(t.TempDir())
	node := pki.Node{Name: "a", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, ClusterDomain: "cluster.local", SANs: []string{"own.example"}}
	if _, err := pki.Ensure(pki.Dir(dir.PKI()), node, time.Now()); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(called("a", "own.example", true), called("b", "api.example,*.b.example,198.51.100.7", true),
		called("agent", "bank.example", false), called("c", "api.example,not a name,", true))
	n := &names{dir: dir, pki: pki.Dir(dir.PKI()), node: node, self: "a", nodes: kube.NodesOf(client), port: 6443, learn: func([]string) error { return nil }}
	stop := runNames(t, n)
	want := []string{"own.example", "*.b.example", "api.example", "198.51.100.7"}
	certified(t, n, want, []string{"bank.example"})
	key := n.read(t, n.pki.Key(pki.APIServer))

	// It is known at the next start, before there is an API.
	if got := readNames(dir); !slices.Equal(got, []string{"*.b.example", "198.51.100.7", "api.example"}) {
		t.Errorf("remembered: %q", got)
	}
	for _, gone := range []string{"b", "c"} {
		if err := client.CoreV1().Nodes().Delete(t.Context(), gone, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	certified(t, n, []string{"own.example"}, []string{"api.example", "198.51.100.7"})
	if n.read(t, n.pki.Key(pki.APIServer)) != key {
		t.Error("the key has changed as well: who reads both files may find those of two pairs")
	}
	stop()
}

func runNames(t *testing.T, n *names) (stop func()) {
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- n.Run(ctx) }()
	return func() {
		select {
		case err := <-done:
			t.Errorf("it has ended: %v", err)
		default:
		}
		if err := n.Ready(ctx); err != nil {
			t.Error(err)
		}
	}
}

func (n *names) read(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// certified waits until the certificate is for some names, and not for others.
func certified(t *testing.T, n *names, want, not []string) {
	t.Helper()
	var problem string
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		block, _ := pem.Decode([]byte(n.read(t, n.pki.Cert(pki.APIServer))))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		problem = ""
		for _, name := range want {
			if cert.VerifyHostname(strings.Replace(name, "*", "x", 1)) != nil {
				problem += " no " + name
			}
		}
		for _, name := range not {
			if cert.VerifyHostname(name) == nil {
				problem += " " + name
			}
		}
		if problem == "" {
			return
		}
	}
	t.Fatalf("the certificate is wrong:%s", problem)
}
