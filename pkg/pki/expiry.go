package pki

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// Soon is how long before its end a certificate is spoken of.
const Soon = 30 * 24 * time.Hour

// Renewal is what replaces a certificate that expires.
type Renewal int

// The ways by which certificates of a node are renewed.
const (
	AtStart   Renewal = iota // a start of the server does
	ByKubelet                // the kubelet does while it runs, if a server signs
	ByUser                   // whoever has brought it
)

// File is a file that holds certificates, in PEM or as a kubeconfig does.
type File struct {
	Path    string
	Renewal Renewal
}

// Files is where the certificates of the table are. Authorities come first.
func (d Dir) Files() (files []File) {
	for _, a := range authorities {
		files = append(files, File{Path: d.CA(a.name)})
	}
	for _, l := range leaves(Node{}) {
		files = append(files, File{Path: d.Cert(l.path)})
	}
	return files
}

// Certificate is one that was found in a file.
type Certificate struct {
	File
	*x509.Certificate
	// By is the authority among the certificates found that has signed it and ends no
	// later: another of the same authority would end no later either.
	By *Certificate
}

// Scan reads the certificates of files; those that are not there are left out. A
// certificate counts once, for the first file that has it: kubeconfigs and chains
// repeat what stands elsewhere. The errors are about files that cannot be read as
// certificates.
func Scan(files []File, read func(path string) ([]byte, error)) (all []*Certificate, damaged map[string]error) {
	damaged = map[string]error{}
	for _, f := range files {
		data, err := read(f.Path)
		if err != nil {
			continue
		}
		certs, err := parse(data)
		if err != nil {
			damaged[f.Path] = err
		}
		for _, c := range certs {
			if !slices.ContainsFunc(all, func(known *Certificate) bool { return bytes.Equal(known.Raw, c.Raw) }) {
				all = append(all, &Certificate{File: f, Certificate: c})
			}
		}
	}
	for _, c := range all {
		c.By = c.boundBy(all)
	}
	return all, damaged
}

// boundBy finds the authority that a certificate ends with. Of several that have
// signed it, as when one was made again for the same key, the last to end counts.
func (c *Certificate) boundBy(all []*Certificate) (by *Certificate) {
	if bytes.Equal(c.RawSubject, c.RawIssuer) {
		return nil
	}
	for _, a := range all {
		if a.IsCA && a != c && (by == nil || a.NotAfter.After(by.NotAfter)) && c.CheckSignatureFrom(a.Certificate) == nil {
			by = a
		}
	}
	if by != nil && by.NotAfter.After(c.NotAfter) {
		return nil
	}
	return by
}

// parse finds the certificates in PEM or a kubeconfig.
func parse(data []byte) (certs []*x509.Certificate, err error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		config, err := clientcmd.Load(data)
		if err != nil {
			return nil, fmt.Errorf("contains neither PEM nor a kubeconfig: %w", err)
		}
		data = nil
		for _, c := range config.Clusters {
			data = append(append(data, c.CertificateAuthorityData...), '\n')
		}
		for _, u := range config.AuthInfos {
			data = append(append(data, u.ClientCertificateData...), '\n')
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return nil, nil // it names files, or has a token
		}
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return certs, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("does not contain a certificate")
	}
	return certs, nil
}

// WarnFrom is when warnings about a certificate begin. One that is renewed while
// lite runs has to be overdue: the kubelet does so after 70 to 90 % of its life, which
// may be short as a whole.
func (c *Certificate) WarnFrom() time.Time {
	soon := Soon
	if c.Renewal == ByKubelet {
		soon = min(soon, c.NotAfter.Sub(c.NotBefore)/10)
	}
	return c.NotAfter.Add(-soon)
}

// Ended reports whether nobody accepts it any more.
func (c *Certificate) Ended(now time.Time) bool { return now.After(c.NotAfter) }

// State is how a certificate is at a time.
func (c *Certificate) State(now time.Time) string {
	switch {
	case c.Ended(now):
		return "ended"
	case now.Before(c.NotBefore):
		return "not yet valid"
	case now.Before(c.WarnFrom()):
		return "valid"
	}
	return "ends soon"
}

// authorityRemedy is true of each authority, also of the copy that an agent has.
const authorityRemedy = `no restart renews an authority, and what it has signed expires with it: see "When an authority ends" in docs/security.md`

// Remedy is what mends that it ends.
func (c *Certificate) Remedy(now time.Time) string {
	switch {
	case c.By != nil && c.By.State(now) != "valid":
		return fmt.Sprintf("it expires with its authority %s: %s", c.By.Path, c.By.Remedy(now))
	case c.Renewal == ByUser:
		return "it is your own: replace it and restart lite"
	case c.IsCA:
		return authorityRemedy
	case c.Renewal == ByKubelet && c.Ended(now) && slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		// It cannot ask for another without.
		return "join again with a token: `lite token create --print-join-command` on a server prints the command"
	case c.Renewal == ByKubelet:
		return "the kubelet renews it as soon as a server signs: check that `lite status` shows a healthy server, and read the log of lite on the servers"
	}
	return "restart lite, which renews it"
}

// Due sorts out the certificates that are spoken of: those that end first come
// first. One that ends with its authority is left out where that is among them.
func Due(all []*Certificate, now time.Time) (due []*Certificate) {
	for _, c := range all {
		if state := c.State(now); state != "ended" && state != "ends soon" {
			continue
		}
		if c.By == nil || c.By.State(now) == "valid" {
			due = append(due, c)
		}
	}
	slices.SortStableFunc(due, func(a, b *Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Path, b.Path))
	})
	return due
}
