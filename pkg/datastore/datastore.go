// Package datastore is the cluster's store, of whatever kind: a component that runs,
// and an endpoint by which the API server reaches it. For now that is always the
// embedded etcd (package etcd).
package datastore

import (
	"context"
	"fmt"
	"net/netip"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// Endpoint is where the store listens and what a client shows to it.
type Endpoint struct {
	URLs     []string
	CAFile   string
	CertFile string
	KeyFile  string
}

// Config is what a store has to be told by the server that it runs on.
type Config struct {
	Kind     string // of cluster.Facts
	NodeName string
	Dir      layout.Server
	PKI      pki.Dir
	Metrics  []netip.Addr // where etcd tells its figures to everybody
	EtcdArgs []string

	// Event posts an event of the node.
	Event func(ctx context.Context, reason, message string) error

	// Address is where the other members of the embedded etcd reach this one. Several and Admit are as in
	// etcd.Config.
	Address netip.Addr
	Several bool
	Admit   func(ctx context.Context, peerURL string) (initialCluster string, err error)
}

// Store is a datastore of which nothing has been touched yet.
type Store struct {
	// Component is what makes the store answer; the API server needs it.
	Component component.Component
	Endpoint  Endpoint
	// Used is whether it may hold what an earlier start has written.
	Used bool
	// Shared is closed as soon as other servers may work on the same store, so that one has to be
	// elected for what must run once per cluster; nil if none ever will.
	Shared <-chan struct{}
	// Member is the embedded etcd; nil if the store is another one.
	Member *etcd.Etcd
}

// New makes the store of a server. It parses arguments; nothing is touched before Run.
func New(c Config) (Store, error) {
	if c.Kind != cluster.Etcd {
		return Store{}, fmt.Errorf("the cluster's datastore is of the kind %q, which this version of lite does not have; use the version that the other servers run", c.Kind)
	}
	member, err := etcd.New(etcd.Config{
		Name: c.NodeName, Dir: c.Dir.Etcd(), PKI: c.PKI, Metrics: c.Metrics, Args: c.EtcdArgs,
		Address: c.Address, Several: c.Several, Admit: c.Admit, Event: c.Event,
	})
	if err != nil {
		return Store{}, err
	}
	return Store{
		Component: member,
		Endpoint: Endpoint{
			URLs:     []string{etcd.Endpoint()},
			CAFile:   c.PKI.CA(pki.EtcdCA),
			CertFile: c.PKI.Cert(pki.APIServerEtcdClient),
			KeyFile:  c.PKI.Key(pki.APIServerEtcdClient),
		},
		Used:   etcd.Used(c.Dir.Etcd()),
		Shared: member.Shared(),
		Member: member,
	}, nil
}
