package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lite.io/lite/pkg/file"
)

// Ensure makes dir hold everything of the table for node n: what is missing is
// made, leaves that are no longer usable are reissued. It returns a line for each
// file it wrote that had been there before, saying why. An authority or the
// service-account key is never replaced: if one is damaged the error says so
// and nothing is written.
func Ensure(dir Dir, n Node, now time.Time) (renewed []string, err error) {
	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	signers := map[Authority]*signer{}
	for _, a := range authorities {
		if err := lost(dir, a.name, n); err != nil {
			return nil, err
		}
	}
	for _, a := range authorities {
		if signers[a.name], err = ensureCA(dir, a.name, a.commonName, now); err != nil {
			return nil, err
		}
	}
	if err := ensureServiceAccountKey(dir); err != nil {
		return nil, err
	}
	for _, l := range leaves(n) {
		reason, err := l.ensure(dir, signers[l.signer], now, false)
		if err != nil {
			return renewed, err
		}
		if reason != "" {
			renewed = append(renewed, l.path+": "+reason)
		}
	}
	return renewed, nil
}

// EnsureLeaf is Ensure for one leaf that a server works with meanwhile: if only names have changed, it
// keeps its key, since whoever reads both files must not find those of two pairs. It returns
// why the leaf was reissued, "" if it was not.
func EnsureLeaf(dir Dir, path string, n Node, now time.Time) (reason string, err error) {
	for _, l := range leaves(n) {
		if l.path != path {
			continue
		}
		by, err := ensureCA(dir, l.signer, "", now)
		if err != nil {
			return "", err
		}
		return l.ensure(dir, by, now, true)
	}
	return "", fmt.Errorf("there is no certificate %s", path)
}

func makeDirs(dir Dir) error {
	for _, d := range []string{string(dir), filepath.Dir(dir.Cert(EtcdServer))} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("create the PKI directory: %w", err)
		}
		if err := os.Chmod(d, 0o700); err != nil {
			return fmt.Errorf("restrict the PKI directory: %w", err)
		}
	}
	return nil
}

// signer is an authority that can sign.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// lost reports an authority that is gone though certificates of its are there.
func lost(dir Dir, a Authority, n Node) error {
	if exists(dir.CA(a)) || exists(dir.CAKey(a)) {
		return nil
	}
	for _, l := range leaves(n) {
		if l.signer == a && exists(dir.Cert(l.path)) {
			return fmt.Errorf("authority: %s and its key are gone; restore them from a backup: a new authority would lock every node and client out", dir.CA(a))
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// ensureCA loads an authority or makes it. The key is written first: one without
// a certificate, which is what a crash in between leaves, gets another
// certificate, under which everything that the key has signed holds.
func ensureCA(dir Dir, a Authority, cn string, now time.Time) (*signer, error) {
	certPath, keyPath := dir.CA(a), dir.CAKey(a)
	cert, err := readCert(certPath)
	if errors.Is(err, fs.ErrNotExist) {
		return makeCA(dir, a, cn, now)
	}
	if err != nil {
		return nil, fmt.Errorf("authority: %w; restore the file from a backup: a new authority would lock every node and client out", err)
	}
	key, err := readKey(keyPath)
	if err != nil {
		return nil, fmt.Errorf("authority: %w; restore the file from a backup", err)
	}
	if !publicKeyIs(cert, key) {
		return nil, fmt.Errorf("authority: %s is not the key of %s; restore both from the same backup", keyPath, certPath)
	}
	if now.Before(cert.NotBefore) {
		return nil, fmt.Errorf("authority: %s is not valid before %s (the clock shows %s); set the clock", certPath, day(cert.NotBefore), day(now))
	}
	if now.After(cert.NotAfter) {
		return nil, fmt.Errorf("authority: %s expired on %s (the clock shows %s); if the clock is right, %s", certPath, day(cert.NotAfter), day(now), authorityRemedy)
	}
	return &signer{cert, key}, nil
}

func makeCA(dir Dir, a Authority, cn string, now time.Time) (*signer, error) {
	key, err := readKey(dir.CAKey(a))
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey(dir.CAKey(a))
	}
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: cn},
		DNSNames:              []string{cn},
		NotBefore:             always,
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := issue(dir.CA(a), template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &signer{cert, key}, nil
}

// ensure issues the leaf if it has to be, and says why if one was there before. keepKey is for
// other names.
func (l leaf) ensure(dir Dir, by *signer, now time.Time, keepKey bool) (reason string, err error) {
	certPath, keyPath := dir.Cert(l.path), dir.Key(l.path)
	cert, certErr := readCert(certPath)
	key, keyErr := readKey(keyPath)
	switch {
	case errors.Is(certErr, fs.ErrNotExist):
		// The first issue, or one that a crash cut short.
	case certErr != nil:
		reason = certErr.Error()
	case keyErr != nil:
		reason = keyErr.Error()
	case !publicKeyIs(cert, key):
		reason = "the key belongs to another certificate"
	case cert.CheckSignatureFrom(by.cert) != nil:
		reason = "signed by another authority"
	case now.After(cert.NotAfter):
		reason = "expired on " + day(cert.NotAfter)
	case cert.NotBefore.After(by.cert.NotBefore):
		reason = "not valid before " + day(cert.NotBefore)
	case cert.NotAfter.Sub(now) < leafLife/3 && cert.NotAfter.Before(l.until(by, now)):
		reason = "would expire on " + day(cert.NotAfter)
	case !l.matches(cert):
		reason = namesChanged
	case slices.Contains(showsCA, l.path) && !hasCert(certPath, by.cert):
		reason = "without its authority's certificate"
	default:
		return "", nil
	}

	if !keepKey || reason != namesChanged {
		if key, err = newKey(keyPath); err != nil {
			return "", err
		}
	}
	dns, ips := splitNames(l.names)
	template := &x509.Certificate{
		Subject:     l.subject(),
		DNSNames:    dns,
		IPAddresses: ips,
		NotBefore:   by.cert.NotBefore,
		NotAfter:    l.until(by, now),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: l.usages,
	}
	var chain []*x509.Certificate
	if slices.Contains(showsCA, l.path) {
		chain = append(chain, by.cert)
	}
	_, err = issue(certPath, template, by.cert, key.Public(), by.key, chain...)
	return reason, err
}

const namesChanged = "names changed"

// hasCert reports whether a file holds a certificate behind its first.
func hasCert(path string, cert *x509.Certificate) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	_, rest := pem.Decode(data)
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if bytes.Equal(block.Bytes, cert.Raw) {
			return true
		}
	}
	return false
}

// until is when a certificate ends that is issued now.
func (leaf) until(by *signer, now time.Time) time.Time {
	return earlier(now.Add(leafLife), by.cert.NotAfter)
}

// matches reports whether cert is for the same subject, names and usages.
func (l leaf) matches(cert *x509.Certificate) bool {
	dns, ips := splitNames(l.names)
	sameIPs := slices.EqualFunc(cert.IPAddresses, ips, net.IP.Equal)
	return cert.Subject.String() == l.subject().String() &&
		slices.Equal(cert.DNSNames, dns) && sameIPs && slices.Equal(cert.ExtKeyUsage, l.usages)
}

func (l leaf) subject() pkix.Name {
	name := pkix.Name{CommonName: l.cn}
	if l.org != "" {
		name.Organization = []string{l.org}
	}
	return name
}

// splitNames sorts names into DNS names and addresses, each once.
func splitNames(names []string) (dns []string, ips []net.IP) {
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, ips
}

// issue signs template and writes the certificate, with chain behind it.
func issue(path string, template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer,
	chain ...*x509.Certificate) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("generate a serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", path, err)
	}
	ders := [][]byte{der}
	for _, cert := range chain {
		ders = append(ders, cert.Raw)
	}
	if err := writePEM(path, "CERTIFICATE", ders...); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func ensureServiceAccountKey(dir Dir) error {
	path := dir.ServiceAccountKey()
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) && !exists(dir.ServiceAccountPub()) {
		key, err = newKey(path)
	}
	if err != nil {
		return fmt.Errorf("service-account key: %w; restore the file from a backup: a new key would invalidate every token", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode the public key of %s: %w", path, err)
	}
	if old, err := readPEM(dir.ServiceAccountPub()); err == nil && bytes.Equal(old, der) {
		return nil
	}
	return writePEM(dir.ServiceAccountPub(), "PUBLIC KEY", der)
}

func newKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", path, err)
	}
	return key, writePEM(path, "EC PRIVATE KEY", der)
}

// writePEM replaces a file atomically; it is readable by root alone.
func writePEM(path, kind string, ders ...[]byte) error {
	var data []byte
	for _, der := range ders {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	if err := file.Write(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s does not contain a PEM block", path)
	}
	return block.Bytes, nil
}

func readCert(path string) (*x509.Certificate, error) {
	der, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return cert, nil
}

func readKey(path string) (crypto.Signer, error) {
	der, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	// A user may bring keys of their own, commonly PKCS #8.
	any8, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil {
		if key, ok := any8.(crypto.Signer); ok {
			return key, nil
		}
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	return nil, fmt.Errorf("%s does not contain a private key that can sign", path)
}

func publicKeyIs(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(key.Public())
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
