package join

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
	bootstrap "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"

	"lite.io/lite/pkg/layout"
)

// Cluster is a cluster that may be trusted.
type Cluster struct {
	CA     []byte // PEM
	Server string // https://host:port, as it was reached
}

const infoPath = "/api/v1/namespaces/" + metav1.NamespacePublic + "/configmaps/" + bootstrap.ConfigMapClusterInfo

// Discover finds out what the cluster's CA is, and trusts it only if the token
// says so: by its hash if it has one, otherwise by the signature that only one
// who knows its secret can make. Where no anonymous request is allowed, the hash is
// the only way. server overrides the token's. What it returns as error
// is an *Error.
func Discover(ctx context.Context, t Token, server string) (Cluster, error) {
	server, err := serverOf(t, server)
	if err != nil {
		return Cluster{}, err
	}
	p := peer{server: server, client: client(unverified())}
	found, err := p.clusterInfo(ctx)
	if closed := new(closedError); errors.As(err, &closed) {
		return p.discoverShown(ctx, t, closed)
	}
	if err != nil {
		return Cluster{}, err
	}
	ca, err := p.accept(t, found)
	if err != nil {
		return Cluster{}, err
	}
	// Nobody has proved yet to be the server: only that they know the CA.
	p = peer{server: server, client: client(verified(ca)), clock: found.date}
	again, err := p.clusterInfo(ctx)
	if err != nil {
		return Cluster{}, err
	}
	if !again.hasAll(ca) {
		return Cluster{}, p.starting("its CA, which has just changed, to settle")
	}
	return Cluster{CA: encodeCerts(ca), Server: server}, nil
}

// serverOf checks the address and writes it as a URL.
func serverOf(t Token, server string) (string, error) {
	const remedy = "write the address as https://<host>:" + layout.APIPortText
	if server == "" && t.Server == "" {
		return "", &Error{
			Problem: "the token does not contain the address of the server",
			Remedy:  "pass its address with --server https://<host>:" + layout.APIPortText + ", or a token that begins with " + scheme,
		}
	}
	if server == "" {
		server = "https://" + t.Server
	}
	hostPort, ok := strings.CutPrefix(server, "https://")
	if !ok {
		return "", &Error{Problem: "the server's address does not begin with https://", Remedy: remedy}
	}
	hostPort, err := address(strings.TrimSuffix(hostPort, "/"))
	if err != nil {
		problem, _, _ := strings.Cut(err.Error(), "; ")
		return "", &Error{Problem: "the server's address " + problem, Remedy: remedy}
	}
	return "https://" + hostPort, nil
}

// info is what a server said in its cluster-info.
type info struct {
	data       map[string]string
	kubeconfig string
	ca         []*x509.Certificate
	date       time.Time // the server's clock; zero if it did not say
}

// clusterInfo fetches cluster-info, anonymously.
func (p peer) clusterInfo(ctx context.Context) (info, error) {
	var cm corev1.ConfigMap
	a, err := p.ask(ctx, http.MethodGet, infoPath, "", "", &cm)
	if err != nil {
		return info{}, err
	}
	switch {
	case a.code == http.StatusOK:
	case a.code == http.StatusUnauthorized && a.kubernetes:
		return info{}, &closedError{a.shown, a.date}
	case a.code == http.StatusNotFound && a.kubernetes:
		return info{}, p.starting("its cluster-info to be published")
	case a.code == http.StatusForbidden && a.kubernetes:
		return info{}, p.starting("its cluster-info to be readable")
	default:
		return info{}, p.unexpected(a)
	}
	i := info{data: cm.Data, kubeconfig: cm.Data[bootstrap.KubeConfigKey], date: a.date}
	if i.kubeconfig == "" {
		return info{}, p.starting("the CA in its cluster-info")
	}
	if i.ca, err = readCA(i.kubeconfig); err != nil {
		return info{}, p.notKubernetes("has a cluster-info without a CA", err)
	}
	return i, nil
}

func readCA(kubeconfig string) ([]*x509.Certificate, error) {
	config, err := clientcmd.Load([]byte(kubeconfig))
	if err != nil {
		return nil, err
	}
	if len(config.Clusters) != 1 {
		return nil, errors.New("the kubeconfig does not have exactly one cluster")
	}
	var only *api.Cluster
	for _, c := range config.Clusters {
		only = c
	}
	return parseCerts(only.CertificateAuthorityData)
}

// accept returns the certificates of the CA that the token vouches for.
func (p peer) accept(t Token, i info) ([]*x509.Certificate, error) {
	if t.CAHash != "" {
		return p.acceptHash(t, i)
	}
	signature, ok := i.signature(t.ID)
	if !ok {
		return nil, p.absent(t, i)
	}
	if !jws.DetachedTokenIsValid(signature, i.kubeconfig, t.ID, t.Secret) {
		return nil, p.wrongSecret(t)
	}
	return i.ca, nil
}

// acceptHash takes the one certificate that the token names: the others come
// with no proof.
func (p peer) acceptHash(t Token, i info) ([]*x509.Certificate, error) {
	var got []string
	for _, cert := range i.ca {
		hash := hashOf(cert)
		if subtle.ConstantTimeCompare([]byte(hash), []byte(strings.ToLower(t.CAHash))) == 1 {
			return []*x509.Certificate{cert}, nil
		}
		got = append(got, hash)
	}
	return nil, p.wrongCA(t.CAHash, got)
}

// closedError is a server that allows no anonymous requests: so its user wants it.
type closedError struct {
	shown []*x509.Certificate
	date  time.Time
}

func (*closedError) Error() string { return "anonymous requests may not read cluster-info" }

// discoverShown is Discover where the CA is only in what the server shows when a
// connection is made. There is nothing that a token without a hash could verify,
// and it is a secret that goes to no server which is not verified.
func (p peer) discoverShown(ctx context.Context, t Token, first *closedError) (Cluster, error) {
	if t.CAHash == "" {
		return Cluster{}, p.closed()
	}
	ca, err := p.acceptHash(t, info{ca: authorities(first.shown)})
	if err != nil {
		return Cluster{}, err
	}
	// What a verified server shows, nobody in between has changed.
	p = peer{server: p.server, client: client(verified(ca)), clock: first.date}
	_, err = p.clusterInfo(ctx)
	closed := new(closedError)
	switch {
	case errors.As(err, &closed) && (info{ca: authorities(closed.shown)}).hasAll(ca):
		return Cluster{CA: encodeCerts(ca), Server: p.server}, nil
	case err == nil || errors.As(err, &closed):
		return Cluster{}, p.starting("its CA, which has just changed, to settle")
	}
	return Cluster{}, err
}

// authorities is what a server shows behind its own certificate.
func authorities(shown []*x509.Certificate) []*x509.Certificate { return shown[min(1, len(shown)):] }

func (i info) signature(id string) (string, bool) {
	s, ok := i.data[bootstrap.JWSSignatureKeyPrefix+id]
	return s, ok
}

// signed reports whether there is a signature of any token.
func (i info) signed() bool {
	for key := range i.data {
		if strings.HasPrefix(key, bootstrap.JWSSignatureKeyPrefix) {
			return true
		}
	}
	return false
}

func (i info) ended(id string) (Ending, time.Time) { return readMark(i.data[markPrefix+id]) }

func (i info) hasAll(certs []*x509.Certificate) bool {
	for _, want := range certs {
		found := false
		for _, cert := range i.ca {
			found = found || cert.Equal(want)
		}
		if !found {
			return false
		}
	}
	return true
}
