package proof

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of kubelets.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{}
	signed := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "kubernetes-ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return authority{signed.Leaf, signed.PrivateKey.(*ecdsa.PrivateKey)}
}

func (a authority) sign(t *testing.T, c *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore = time.Unix(0, 0)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if signer == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestWhoAnswers(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	subject := pkix.Name{CommonName: "system:node:h1", Organization: []string{"system:nodes"}}
	serves := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for name, test := range map[string]struct {
		by   authority
		cert x509.Certificate
		want string
	}{
		"the node":               {ca, x509.Certificate{Subject: subject, ExtKeyUsage: serves}, ""},
		"the node, by its name":  {ca, x509.Certificate{Subject: subject, ExtKeyUsage: serves, DNSNames: []string{"h1"}}, ""},
		"another node":           {ca, x509.Certificate{Subject: pkix.Name{CommonName: "system:node:h2", Organization: subject.Organization}, ExtKeyUsage: serves}, `"system:node:h2" answers there`},
		"who is called so":       {ca, x509.Certificate{Subject: pkix.Name{CommonName: "system:node:h1"}, ExtKeyUsage: serves}, `"system:node:h1" answers there`},
		"a stranger":             {other, x509.Certificate{Subject: subject, ExtKeyUsage: serves}, "no serving certificate of the cluster's authority"},
		"a client's certificate": {ca, x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "no serving certificate"},
		"one that has expired":   {ca, x509.Certificate{Subject: subject, ExtKeyUsage: serves, NotAfter: time.Now().Add(-time.Minute)}, "no serving certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			cert := test.by.sign(t, &test.cert)
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go accept(listener)
			err = handshake{roots}.ask(t.Context(), claim{node: "h1", at: netip.MustParseAddrPort(listener.Addr().String())})
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// accept speaks as long as a listener is open.
func accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if c, ok := conn.(*tls.Conn); ok {
			_ = c.Handshake()
		}
		conn.Close()
	}
}

// What is said of a connection that fails is the same each time, and quotes nobody.
func TestNobodyAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(listener.Addr().String())
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 a secret banner\r\n"))
			conn.Close()
		}
	}()
	ask := func() string {
		err := handshake{x509.NewCertPool()}.ask(t.Context(), claim{node: "h1", at: at})
		if err == nil {
			t.Fatal("a stranger is the node")
		}
		return err.Error()
	}
	if got := ask(); strings.Contains(got, "banner") {
		t.Errorf("got %q", got)
	}
	listener.Close()
	first, second := ask(), ask()
	if first != second || !strings.Contains(first, "connection refused") {
		t.Errorf("got %q, then %q", first, second)
	}
}
