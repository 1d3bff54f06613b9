package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lite.io/lite/tests/harness/cluster"
)

// testRequests asks for certificates as kubelets do that join: many at once get
// theirs, and nobody gets one that is not to be had.
func testRequests(t *testing.T, server *cluster.Node) {
	byToken := tokenClient(t, server)

	began := time.Now()
	const many = 20
	names := make([]string, many)
	var asking sync.WaitGroup
	for i := range many {
		asking.Go(func() { names[i] = ask(t, byToken, joining(fmt.Sprintf("light%d", i))) })
	}
	asking.Wait()
	for _, name := range names {
		cluster.Eventually(t, 30*time.Second-time.Since(began), func() error { return issued(t, server, name) })
	}
	t.Logf("%d took %s", many, time.Since(began).Round(time.Millisecond))

	refused := map[string]request{
		"client of the API":    joining("other").of(certificates.KubeAPIServerClientSignerName),
		"serving by a token":   joining("other").of(certificates.KubeletServingSignerName).uses(certificates.UsageServerAuth),
		"other usages":         joining("other").uses(certificates.UsageServerAuth),
		"more usages":          joining("other").uses(certificates.UsageClientAuth, certificates.UsageServerAuth),
		"administrator":        joining("other").named("kubernetes-admin", "system:masters"),
		"organization besides": joining("other").named("system:node:other", "system:nodes", "system:masters"),
		"another organization": joining("other").named("system:node:other", "system:masters"),
		"no node":              joining("other").named("other", "system:nodes"),
		"a DNS name":           joining("other").with(func(c *x509.CertificateRequest) { c.DNSNames = []string{"other"} }),
		"an address":           joining("other").with(func(c *x509.CertificateRequest) { c.IPAddresses = []net.IP{net.IPv4(10, 99, 0, 9)} }),
		"the server's name":    joining(server.Name),
		"an address for name":  joining(server.IP),
		"a tls-san":            joining(apiName),
	}
	asked := map[string]string{}
	for what, r := range refused {
		asked[what] = ask(t, byToken, r)
	}
	// What comes after them is decided after them.
	last := ask(t, byToken, joining("last"))
	cluster.Eventually(t, 20*time.Second, func() error { return issued(t, server, last) })
	for what, name := range asked {
		csr, err := server.Client(t).CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		denied := ""
		for _, c := range csr.Status.Conditions {
			if c.Type == certificates.CertificateApproved {
				t.Errorf("%s: approved: %s", what, c.Message)
			}
			denied = c.Message
		}
		if len(csr.Status.Certificate) > 0 {
			t.Errorf("%s: got a certificate", what)
		}
		if denied == "" && refused[what].Signer == certificates.KubeAPIServerClientKubeletSignerName {
			t.Errorf("%s: nobody has decided", what)
		}
		t.Logf("%s: %s", what, denied)
	}
}

// tokenClient is a client with the rights of a new token.
func tokenClient(t *testing.T, server *cluster.Node) kubernetes.Interface {
	t.Helper()
	text := strings.TrimSpace(server.Output(t, "lite", "token", "create"))
	token, _, _ := strings.Cut(strings.TrimPrefix(text, "lite://"), "@")
	admin := server.Config(t)
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: admin.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData},
		Dial: server.DialContext, QPS: 100, Burst: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// request is what is asked for.
type request struct{ cluster.CertificateRequest }

// joining is what a kubelet asks for with a token.
func joining(node string) request { return request{cluster.NodeCertificate(node)} }

func (r request) of(signer string) request { r.Signer = signer; return r }

func (r request) named(name string, organizations ...string) request {
	r.Template.Subject = pkix.Name{CommonName: name, Organization: organizations}
	return r
}

func (r request) uses(usages ...certificates.KeyUsage) request {
	r.Usages = append([]certificates.KeyUsage{certificates.UsageDigitalSignature}, usages...)
	return r
}

func (r request) with(change func(*x509.CertificateRequest)) request { change(&r.Template); return r }

// ask makes the request with a key of its own and returns the name of its object.
func ask(t *testing.T, client kubernetes.Interface, r request) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
		return ""
	}
	csr, err := r.Sign(key)
	if err != nil {
		t.Error(err)
		return ""
	}
	csr.GenerateName = "test-"
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	made, err := client.CertificatesV1().CertificateSigningRequests().Create(ctx, csr, metav1.CreateOptions{})
	if err != nil {
		t.Error(err)
		return ""
	}
	return made.Name
}

// issued says what keeps a request from having its certificate.
func issued(t *testing.T, server *cluster.Node, name string) error {
	t.Helper()
	csr, err := server.Client(t).CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
	if err == nil && len(csr.Status.Certificate) == 0 {
		err = errors.New("has no certificate")
	}
	if err != nil {
		return fmt.Errorf("request %s: %w: %+v", name, err, csr.Status.Conditions)
	}
	return nil
}
