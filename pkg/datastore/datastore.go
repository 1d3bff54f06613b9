// Package datastore says how the API server reaches the cluster's store. For
// now that is always the etcd member inside this process (package etcd); an
// external etcd is another value of the same type.
package datastore

// Endpoint is where the store listens and what a client shows to it.
type Endpoint struct {
	URLs     []string
	CAFile   string
	CertFile string
	KeyFile  string
}
