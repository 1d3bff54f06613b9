package kube

import "crypto/tls"

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
