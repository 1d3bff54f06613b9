package join

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
	bootstrap "k8s.io/cluster-bootstrap/token/api"
)

// Publish makes cluster-info, which everybody may read, say where the API is
// and what its CA is. Signatures and marks of others in it stay. The controller
// manager's bootstrap signer signs it for each token.
func Publish(ctx context.Context, client kubernetes.Interface, server string, ca []byte) error {
	if _, err := CAHash(ca); err != nil {
		return fmt.Errorf("publish cluster-info: %w", err)
	}
	// It has no name for the cluster and no user: so kubeadm has it.
	kubeconfig, err := clientcmd.Write(api.Config{
		Clusters: map[string]*api.Cluster{"": {Server: server, CertificateAuthorityData: ca}},
	})
	if err != nil {
		return fmt.Errorf("publish cluster-info: %w", err)
	}
	set := func(data map[string]string) bool {
		was := data[bootstrap.KubeConfigKey]
		data[bootstrap.KubeConfigKey] = string(kubeconfig)
		return was != string(kubeconfig)
	}
	if err := clusterInfo.put(ctx, client, set); err != nil {
		return fmt.Errorf("publish cluster-info: %w", err)
	}
	return nil
}

// CAHash is the hash by which a token names the CA: the SHA-256 of its public
// key, so that a renewed certificate has the same. Of several certificates it is
// the first one's.
func CAHash(pemCert []byte) (string, error) {
	certs, err := parseCerts(pemCert)
	if err != nil {
		return "", err
	}
	return hashOf(certs[0]), nil
}

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// parseCerts reads PEM; without an error there is at least one certificate.
func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the CA certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("the CA is not a certificate in PEM")
	}
	return certs, nil
}

func encodeCerts(certs []*x509.Certificate) []byte {
	var data []byte
	for _, cert := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return data
}
