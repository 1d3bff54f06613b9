package approver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	kubelet "k8s.io/kubernetes/pkg/apis/certificates"

	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

// request is a certificate signing request whose form is right.
type request struct {
	object *certificates.CertificateSigningRequest
	csr    *x509.CertificateRequest
	name   string // of the node
	joins  bool   // by a token; otherwise the node itself asks
}

// parse checks all that can be told from the request alone. If it is wrong, the
// verdict reports how.
func parse(object *certificates.CertificateSigningRequest) (*request, *verdict) {
	csr, err := decode(object.Spec.Request)
	if err != nil {
		return nil, denied(badRequest, "%s", err)
	}
	usages := sets.NewString()
	for _, u := range object.Spec.Usages {
		usages.Insert(string(u))
	}
	isServing := object.Spec.SignerName == certificates.KubeletServingSignerName
	check := kubelet.ValidateKubeletClientCSR
	if isServing {
		check = kubelet.ValidateKubeletServingCSR
	}
	if err := check(csr, usages); err != nil {
		return nil, denied(badRequest, "%s", err)
	}
	r := &request{object: object, csr: csr, name: strings.TrimPrefix(csr.Subject.CommonName, layout.NodeUser)}
	if problems := validation.IsDNS1123Subdomain(r.name); len(problems) > 0 {
		return nil, denied(badRequest, "subject common name %q is not a node name: %s", csr.Subject.CommonName, problems[0])
	}
	// The signer takes the whole subject over, and an authenticator may read
	// more than name and groups from it (1.37: a UID).
	if len(csr.Subject.Names) != 2 {
		return nil, denied(badRequest, "the subject has more than a common name and an organization: %s", csr.Subject)
	}
	switch {
	case object.Spec.Username == csr.Subject.CommonName && slices.Contains(object.Spec.Groups, layout.NodesGroup):
	case !isServing && bootstraps(object):
		r.joins = true
	default:
		return nil, denied(badRequester, "%q, in the groups %q, may not request a certificate of node %q from the signer %s",
			object.Spec.Username, object.Spec.Groups, r.name, object.Spec.SignerName)
	}
	return r, nil
}

// bootstraps reports that who asks joins by a token.
func bootstraps(object *certificates.CertificateSigningRequest) bool {
	return strings.HasPrefix(object.Spec.Username, layout.TokenUser) &&
		slices.ContainsFunc(layout.AllTokenGroups(), func(g string) bool { return slices.Contains(object.Spec.Groups, g) })
}

// decode reads the one request in data, and checks its key and signature.
func decode(data []byte) (*x509.CertificateRequest, error) {
	_, rest := pem.Decode(data)
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("spec.request is not a single PEM block")
	}
	csr, err := kubelet.ParseCSR(data)
	if err != nil {
		return nil, fmt.Errorf("spec.request is not a certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the signature does not match the key: %w", err)
	}
	return csr, checkKey(csr.PublicKey)
}

func checkKey(key any) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Errorf("the ECDSA key has %d bits, and must have 256", bits)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return fmt.Errorf("the RSA key has %d bits, and must have at least 2048", bits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of type %T are not accepted; use ECDSA, RSA or Ed25519", key)
	}
	return nil
}

// token is the ID of the token that is asked with.
func (r *request) token() string { return strings.TrimPrefix(r.object.Spec.Username, layout.TokenUser) }

// from is the address that the request came from; "" if the API server has not noted it.
func (r *request) from() string { return extra(r.object, layout.AddressExtra) }

// key names the key that the certificate is for.
func (r *request) key() string { return roll.Key(r.csr.RawSubjectPublicKeyInfo) }

func (r *request) entry() *entry {
	return &entry{
		object: r.object.Name, uid: r.object.UID, node: r.name, key: r.key(), from: r.from(), joins: r.joins,
		created: r.object.CreationTimestamp.Time,
	}
}

func (r *request) age() time.Duration { return time.Since(r.object.CreationTimestamp.Time) }

// newer orders pending requests for one name. The API's time has whole seconds.
func (e *entry) newer(r *request) bool {
	mine := r.object.CreationTimestamp.Time
	return e.created.After(mine) || e.created.Equal(mine) && e.object > r.object.Name
}
