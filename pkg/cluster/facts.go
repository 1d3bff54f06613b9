// Package cluster is what the whole cluster shares. The first server makes the
// facts from its configuration; every other node receives them. What a node does
// by itself is in package config.
package cluster

import (
	"net/netip"

	"lite.io/lite/pkg/addon"
)

// Facts is the same on all nodes, and no secret: machines that hold a token and
// nodes may read it. Whoever acts on what the cluster shares reads it here, never
// in a node's own configuration.
type Facts struct {
	// Both have the same one or two IP families, in the same order: the first is the
	// one that Services have by default.
	ClusterCIDR   []netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR   []netip.Prefix `json:"serviceCIDR"`
	ClusterDNS    netip.Addr     `json:"clusterDNS"`
	ClusterDomain string         `json:"clusterDomain"`
	// Backend is what carries packets to the pods of other nodes.
	Backend string `json:"backend"`
	// Disable is the batteries that no node runs.
	Disable addon.Disabled `json:"disable,omitempty"`

	// VIP is where the server that leads is reached, besides its own addresses; the zero
	// Addr if there is none.
	VIP netip.Addr `json:"vip,omitzero"`

	// What follows matters to servers. Versions until 1.37 did not tell it: then
	// Datastore is "".

	// NodePorts is the range of ports that Services may have on all nodes, as first-last.
	NodePorts string `json:"nodePorts,omitempty"`
	// Profile is what hardens the control plane. Whether a kubelet follows it, each node
	// decides: it depends on settings of its kernel.
	Profile string `json:"profile,omitempty"`
	// Encryption is whose configuration encrypts Secrets in the datastore.
	Encryption string `json:"encryption,omitempty"`
	// APIPort is where all servers listen; 0 if it is not known.
	APIPort int `json:"apiPort,omitempty"`
	// Datastore is the kind of the store.
	Datastore string `json:"datastore,omitempty"`
}

const (
	// OwnEncryption is by a key that lite's servers make and share.
	OwnEncryption = "lite"
	// UserEncryption is by a file that the user gives to each server.
	UserEncryption = "user"

	// The kinds of datastores: Etcd is the embedded one, whose members the servers are. SQLite is a file of the only
	// server; the others are servers somewhere else, which several servers of a cluster may share.
	Etcd         = "etcd"
	ExternalEtcd = "external-etcd"
	SQLite       = "sqlite"
	PostgreSQL   = "postgres"
	MySQL        = "mysql"
)

// Known reports whether there are facts at all.
func (f Facts) Known() bool { return len(f.ClusterCIDR) > 0 && len(f.ServiceCIDR) > 0 }
