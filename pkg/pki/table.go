// Package pki holds every certificate and key of a cluster in one table; it
// makes, checks and renews them. File names are kubeadm's, so that what people
// know of a Kubernetes node's PKI is true here as well.
//
// All keys are ECDSA P-256. Authorities end after ten years, leaves after one; a leaf is
// renewed at start when under a third of its life is left, when its names have
// changed or when it no longer fits its authority or its key.
package pki

import (
	"crypto/x509"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"lite.io/lite/pkg/layout"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
)

// always is when every certificate begins to be valid, so that a machine without
// a clock of its own, which boots in 1970, accepts it, and one made while the
// clock was ahead is good once that is set back. What bounds a certificate is
// its end.
var always = time.Unix(0, 0)

// Node is what a server node's certificates say about it.
type Node struct {
	Name          string
	IPs           []netip.Addr // the node's own and the advertised address
	ServiceIPs    []netip.Addr // the first of each service network: the API's ClusterIP
	ClusterDomain string
	SANs          []string // what the user added, names or addresses
}

// Authority names a CA of the table by its path under the PKI directory.
type Authority string

// The cluster's three authorities.
const (
	ClusterCA    Authority = "ca"
	FrontProxyCA Authority = "front-proxy-ca"
	EtcdCA       Authority = "etcd/ca"
)

var authorities = []struct {
	name       Authority
	commonName string
}{
	{ClusterCA, "kubernetes-ca"},
	{FrontProxyCA, "front-proxy-ca"},
	{EtcdCA, "etcd-ca"},
}

// The leaves, by path under the PKI directory without extension.
const (
	APIServer              = "apiserver"
	APIServerKubeletClient = "apiserver-kubelet-client"
	APIServerEtcdClient    = "apiserver-etcd-client"
	FrontProxyClient       = "front-proxy-client"
	EtcdServer             = "etcd/server"
	EtcdPeer               = "etcd/peer"
	Admin                  = "admin"
	Lite                   = "lite"
	ControllerManager      = "controller-manager"
	Scheduler              = "scheduler"
	Metrics                = "metrics"
	Kubelet                = "kubelet"
	KubeletClient          = "kubelet-client"
)

// leaf is one row of the table.
type leaf struct {
	path   string
	signer Authority
	cn     string
	org    string
	usages []x509.ExtKeyUsage
	names  []string // subject alternative names, DNS or IP
}

// showsCA is the certificates whose files hold that of their authority too, so that
// it is shown when a connection is made: who has its hash needs nothing else to
// trust the server.
var showsCA = []string{APIServer}

var (
	client = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	server = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	both   = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

// leaves is the table of all certificates of a server node.
func leaves(n Node) []leaf {
	local := []string{"localhost", "127.0.0.1", "::1"}
	self := slices.Concat([]string{n.Name}, texts(n.IPs), local)
	api := slices.Concat(self, texts(n.ServiceIPs), n.SANs, []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + n.ClusterDomain,
	})
	return []leaf{
		{APIServer, ClusterCA, "kube-apiserver", "", server, api},
		{APIServerKubeletClient, ClusterCA, "kube-apiserver-kubelet-client", "", client, nil},
		{FrontProxyClient, FrontProxyCA, "front-proxy-client", "", client, nil},

		{EtcdServer, EtcdCA, n.Name, "", both, self},
		{EtcdPeer, EtcdCA, n.Name, "", both, self},
		{APIServerEtcdClient, EtcdCA, "kube-apiserver-etcd-client", "", client, nil},

		{Admin, ClusterCA, "kubernetes-admin", "system:masters", client, nil},
		// What lite writes of its own is told from what administrators write.
		{Lite, ClusterCA, layout.ServerUser, "system:masters", client, nil},
		// These two serve health and metrics on loopback with the same
		// certificate that they show to the API.
		{ControllerManager, ClusterCA, "system:kube-controller-manager", "", both, local},
		{Scheduler, ClusterCA, "system:kube-scheduler", "", both, local},

		// It serves the metrics API on loopback, under the name of its Service, and
		// asks kubelets and the API.
		{Metrics, ClusterCA, layout.MetricsUser, "", both, []string{layout.MetricsServiceDNS}},

		{Kubelet, ClusterCA, layout.NodeUser + n.Name, layout.NodesGroup, server, slices.Concat([]string{n.Name}, texts(n.IPs))},
		{KubeletClient, ClusterCA, layout.NodeUser + n.Name, layout.NodesGroup, client, nil},
	}
}

// APINames is what the API server's certificate is for.
func APINames(n Node) []string {
	for _, l := range leaves(n) {
		if l.path == APIServer {
			return l.names
		}
	}
	return nil
}

func texts(addrs []netip.Addr) []string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return s
}

// Dir is a PKI directory.
type Dir string

// Cert is the path of the certificate of a leaf or an authority, PEM.
func (d Dir) Cert(name string) string { return filepath.Join(string(d), name+".crt") }

// Key is the path of the private key of a leaf or an authority, PEM.
func (d Dir) Key(name string) string { return filepath.Join(string(d), name+".key") }

// CA is the path of an authority's certificate.
func (d Dir) CA(a Authority) string { return d.Cert(string(a)) }

// CAKey is the path of an authority's private key.
func (d Dir) CAKey(a Authority) string { return d.Key(string(a)) }

// ServiceAccountKey is the private key that signs service-account tokens.
func (d Dir) ServiceAccountKey() string { return d.Key("sa") }

// ServiceAccountPub is the public key that verifies service-account tokens.
func (d Dir) ServiceAccountPub() string { return filepath.Join(string(d), "sa.pub") }
