package cluster

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"

	certificates "k8s.io/api/certificates/v1"
)

// CertificateRequest is what somebody asks the cluster for a certificate with.
type CertificateRequest struct {
	Signer   string
	Usages   []certificates.KeyUsage
	Template x509.CertificateRequest
}

// NodeCertificate is what a kubelet asks for when it joins: the client certificate of
// its node.
func NodeCertificate(node string) CertificateRequest {
	return CertificateRequest{
		Signer: certificates.KubeAPIServerClientKubeletSignerName,
		Usages: []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageClientAuth},
		Template: x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
		},
	}
}

// Sign returns the object to create, which still needs a name.
func (r CertificateRequest) Sign(key crypto.Signer) (*certificates.CertificateSigningRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &r.Template, key)
	if err != nil {
		return nil, err
	}
	return &certificates.CertificateSigningRequest{Spec: certificates.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		SignerName: r.Signer,
		Usages:     r.Usages,
	}}, nil
}
