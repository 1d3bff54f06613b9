package kube

import "crypto/tls"

// insecureLoopback is for health checks of this very process: there is nobody
// to impersonate it, and nothing is sent.
func insecureLoopback() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
}
