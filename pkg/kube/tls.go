package kube

import "crypto/tls"

// insecureLoopback is for health checks of this very process: there is nobody
// to impersonate it, and nothing secret is sent. A client certificate proves
// itself by a signature of this one connection.
func insecureLoopback() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
}
