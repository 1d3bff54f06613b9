package kube

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
	cliflag "k8s.io/component-base/cli/flag"
)

// suites is what all that listens in lite offers by TLS 1.2: forward secrecy and
// authenticated encryption. Go offers CBC with SHA-1 as well (1.26). The names are
// those of the CIS benchmark, which Kubernetes and etcd know besides Go's own. What
// TLS 1.3 has is all good, and Go lets nobody choose.
var suites = []struct {
	name string
	id   uint16
}{
	{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	{"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	// For certificates that a user brings.
	{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	{"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
}

// MinTLSVersion is the least that a listener takes, as Kubernetes names it.
const MinTLSVersion = "VersionTLS12"

// CipherSuites names the suites of TLS 1.2 that listeners offer.
func CipherSuites() (names []string) {
	for _, s := range suites {
		names = append(names, s.name)
	}
	return names
}

// Listener is how a component of upstream's is to serve.
type Listener struct {
	Suites     []string
	MinVersion string
	Curves     []int32
	HTTP1      bool // and nothing newer
}

// Check finds what upstream finds only when it begins to serve (1.37), by which the
// kubelet ends the process. component is as the user's flag has it.
func (l Listener) Check(component string) error {
	wrong := func(flag, value string, err error, remedy string) error {
		return fmt.Errorf("%s-arg %q, or its field in the file: %w; %s", component, flag+"="+value, err, remedy)
	}
	suites, err := cliflag.TLSCipherSuites(l.Suites)
	given := strings.Join(l.Suites, ",")
	if err != nil {
		return wrong("tls-cipher-suites", given, err, "use names such as "+CipherSuites()[0])
	}
	version, err := cliflag.TLSVersion(l.MinVersion)
	if err != nil {
		return wrong("tls-min-version", l.MinVersion, err, "use "+MinTLSVersion+" or VersionTLS13")
	}
	if _, err := cliflag.TLSCurvePreferences(l.Curves); err != nil {
		return wrong("tls-curve-preferences", fmt.Sprint(l.Curves), err, "use the numbers of curves in the TLS registry")
	}
	if l.HTTP1 {
		return nil
	}
	// Who has to speak HTTP/2 has to have one suite.
	server := &http.Server{TLSConfig: &tls.Config{MinVersion: version, CipherSuites: suites}}
	//nolint:staticcheck // what is deprecated is to serve by it: Kubernetes' servers do, and this finds what they end by
	if err := http2.ConfigureServer(server, nil); err != nil {
		return wrong("tls-cipher-suites", given, err, "add "+CipherSuites()[0]+", or set tls-min-version=VersionTLS13, whose suites cannot be configured")
	}
	return nil
}

// ServerTLS is what a listener of lite's own begins with: the same versions and
// suites as those of Kubernetes and etcd.
func ServerTLS() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, s := range suites {
		config.CipherSuites = append(config.CipherSuites, s.id)
	}
	return config
}

// insecureLoopback is for health checks of this very process: there is nobody
// to impersonate it, and nothing secret is sent. A client certificate proves
// itself by a signature of this one connection.
func insecureLoopback() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
}
