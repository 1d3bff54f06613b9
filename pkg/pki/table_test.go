package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/golden"
)

// start is when the PKI of a test is made.
var start = time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)

// sample is a node with two families, two service networks and names of its
// user, one of them a repetition.
var sample = Node{
	Name:          "node-a",
	IPs:           []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
	ServiceIPs:    []netip.Addr{netip.MustParseAddr("10.43.0.1"), netip.MustParseAddr("fd43::1")},
	ClusterDomain: "cluster.local",
	SANs:          []string{"api.example.test", "203.0.113.7", "localhost"},
}

func ensure(t *testing.T, dir Dir, n Node, now time.Time) []string {
	t.Helper()
	renewed, err := Ensure(dir, n, now)
	if err != nil {
		t.Fatal(err)
	}
	return renewed
}

// made is a fresh PKI of the sample node.
func made(t *testing.T) Dir {
	t.Helper()
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	if renewed := ensure(t, dir, sample, start); len(renewed) > 0 {
		t.Fatalf("the first Ensure says that it renewed %q", renewed)
	}
	return dir
}

func cert(t *testing.T, dir Dir, name string) *x509.Certificate {
	t.Helper()
	c, err := readCert(dir.Cert(name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The table is what an operator sees with openssl: a change of it is a change
// of who may do what in every cluster.
func TestTable(t *testing.T) {
	dir := made(t)
	usages := map[x509.ExtKeyUsage]string{x509.ExtKeyUsageClientAuth: "client", x509.ExtKeyUsageServerAuth: "server"}
	var b strings.Builder
	for _, a := range authorities {
		c := cert(t, dir, string(a.name))
		fmt.Fprintf(&b, "%s\n  issuer   %s\n  subject  %s\n  CA       %t\n", dir.CA(a.name)[len(dir)+1:], c.Issuer, c.Subject, c.IsCA)
	}
	for _, l := range leaves(sample) {
		c := cert(t, dir, l.path)
		fmt.Fprintf(&b, "%s.crt\n  signer   %s\n  CN       %s\n", l.path, l.signer, c.Subject.CommonName)
		if o := strings.Join(c.Subject.Organization, ","); o != "" {
			fmt.Fprintf(&b, "  O        %s\n", o)
		}
		for _, u := range c.ExtKeyUsage {
			fmt.Fprintf(&b, "  usage    %s\n", usages[u])
		}
		for _, n := range c.DNSNames {
			fmt.Fprintf(&b, "  DNS      %s\n", n)
		}
		for _, ip := range c.IPAddresses {
			fmt.Fprintf(&b, "  IP       %s\n", ip)
		}
		if len(c.UnknownExtKeyUsage)+len(c.EmailAddresses)+len(c.URIs) > 0 || c.IsCA {
			t.Errorf("%s says more than the table can show", l.path)
		}
	}
	golden.Check(t, "table", b.String())
}

func TestEveryPathOfTheTableIsOnce(t *testing.T) {
	seen := map[string]bool{"sa": true}
	for _, a := range authorities {
		seen[string(a.name)] = true
	}
	for _, l := range leaves(sample) {
		if seen[l.path] {
			t.Errorf("%s is twice in the table", l.path)
		}
		seen[l.path] = true
	}
}

func TestKeysAreP256AndLivesAreTenYearsAndOne(t *testing.T) {
	dir := made(t)
	check := func(name string, life time.Duration) {
		c := cert(t, dir, name)
		if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
			t.Errorf("%s: the key is %T, not ECDSA P-256", name, c.PublicKey)
		}
		if !c.NotBefore.Equal(always) || !c.NotAfter.Equal(start.Add(life)) {
			t.Errorf("%s: valid from %s to %s", name, c.NotBefore, c.NotAfter)
		}
	}
	for _, a := range authorities {
		check(string(a.name), 10*365*24*time.Hour)
	}
	for _, l := range leaves(sample) {
		check(l.path, 365*24*time.Hour)
	}
	key, err := readKey(dir.ServiceAccountKey())
	if err != nil {
		t.Fatal(err)
	}
	if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		t.Errorf("sa.key is %T, not ECDSA P-256", key)
	}
}

func TestEveryLeafVerifiesForItsUsagesBySignerAlone(t *testing.T) {
	dir := made(t)
	for _, l := range leaves(sample) {
		c := cert(t, dir, l.path)
		for _, a := range authorities {
			roots := x509.NewCertPool()
			roots.AddCert(cert(t, dir, string(a.name)))
			for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
				_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{usage}})
				wanted := a.name == l.signer && strings.Contains(fmt.Sprint(l.usages), fmt.Sprint(usage))
				if (err == nil) != wanted {
					t.Errorf("%s by %s for usage %d: %v", l.path, a.name, usage, err)
				}
			}
		}
		for _, name := range l.names {
			if err := c.VerifyHostname(name); err != nil {
				t.Errorf("%s: %v", l.path, err)
			}
		}
		if _, err := tls.LoadX509KeyPair(dir.Cert(l.path), dir.Key(l.path)); err != nil {
			t.Errorf("%s: %v", l.path, err)
		}
	}
}

func TestServiceAccountPubIsThePublicHalf(t *testing.T) {
	dir := made(t)
	data, err := os.ReadFile(dir.ServiceAccountPub())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" {
		t.Fatalf("got %s", data)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, err := readKey(dir.ServiceAccountKey())
	if err != nil {
		t.Fatal(err)
	}
	if !key.Public().(*ecdsa.PublicKey).Equal(pub) {
		t.Error("sa.pub is another key's")
	}
}
