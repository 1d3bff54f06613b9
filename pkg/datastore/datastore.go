// Package datastore is the cluster's store, of whatever kind: a component that runs,
// and an endpoint by which the API server reaches it. It is the embedded etcd (package
// etcd), an etcd of somebody else's (package external), or what kine translates for
// (package kine).
package datastore

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/datastore/external"
	"lite.io/lite/pkg/datastore/kine"
	"lite.io/lite/pkg/datastore/shared"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
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

	// External is a store that is not the embedded etcd.
	External External
}

// External is a store that a user has chosen in place of the embedded etcd.
type External struct {
	Endpoint                  string // as the user has it, perhaps with a password
	CAFile, CertFile, KeyFile string // for TLS to it; "" = none
	Socket                    string // where the API server reaches what kine translates for
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
	// Events makes the component that tells of outages, where a store can have them while the server runs; nil for the
	// embedded etcd.
	Events func(*kube.Client) component.Component
}

// New makes the store of a server. It parses arguments; nothing is touched before Run.
func New(c Config) (Store, error) {
	switch c.Kind {
	case cluster.Etcd:
		return newEtcd(c)
	case cluster.SQLite, cluster.PostgreSQL, cluster.MySQL, cluster.ExternalEtcd:
		if c.External.Endpoint == "" {
			return Store{}, fmt.Errorf("the cluster's datastore is of the kind %q, and its address is not handed over, since it may contain a password; set datastore-endpoint as on the other servers", c.Kind)
		}
	}
	switch c.Kind {
	case cluster.ExternalEtcd:
		return newExternal(c), nil
	case cluster.SQLite, cluster.PostgreSQL, cluster.MySQL:
		return newKine(c)
	}
	return Store{}, fmt.Errorf("the cluster's datastore is of the kind %q, which this version of lite does not have; use the version that the other servers run", c.Kind)
}

func newEtcd(c Config) (Store, error) {
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

func newExternal(c Config) Store {
	x, urls := c.External, strings.Split(c.External.Endpoint, ",")
	e := external.New(external.Config{URLs: urls, CAFile: x.CAFile, CertFile: x.CertFile, KeyFile: x.KeyFile, Owner: c.owner})
	return Store{
		Component: e, Events: c.events(e.Health()), Used: c.started(), Shared: always(),
		Endpoint: Endpoint{urls, x.CAFile, x.CertFile, x.KeyFile},
	}
}

// always is of a store that other servers may use from the beginning.
func always() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func newKine(c Config) (Store, error) {
	x := c.External
	config := kine.Config{
		Kind: c.Kind, Endpoint: x.Endpoint, CAFile: x.CAFile, CertFile: x.CertFile, KeyFile: x.KeyFile,
		File: c.Dir.SQLite(), Socket: x.Socket, Owner: c.owner,
	}
	k, err := kine.New(config)
	if err != nil {
		return Store{}, err
	}
	s := Store{Component: k, Events: c.events(k.Health()), Endpoint: Endpoint{URLs: []string{k.URL()}}}
	if c.Kind == cluster.SQLite {
		s.Used = kine.Used(config)
	} else {
		s.Used, s.Shared = c.started(), always()
	}
	return s, nil
}

func (c Config) events(h *shared.Health) func(*kube.Client) component.Component {
	return func(client *kube.Client) component.Component {
		return &shared.Reporter{Health: h, Client: client, NodeName: c.NodeName}
	}
}

// started reports whether this server has used its store before: what is in one on the network, nobody knows before
// it answers.
func (c Config) started() bool {
	_, err := os.Stat(c.Dir.Facts())
	return err == nil
}

// owner is by what a store is known for this cluster's: the hash by which tokens know its authority.
func (c Config) owner() (string, error) {
	pem, err := os.ReadFile(c.PKI.CA(pki.ClusterCA))
	if err != nil {
		return "", fmt.Errorf("read the cluster's authority: %w", err)
	}
	return join.CAHash(pem)
}
