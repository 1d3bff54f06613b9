package cluster

import "testing"

// Cluster is what started nodes form.
type Cluster struct {
	Servers []*Node
	Network *Network
}

// Option changes how a cluster is made.
type Option func(*options)

type options struct {
	prepare func(*Node)
}

// Prepare calls f with each node before lite is started on it, for example to
// write its configuration.
func Prepare(f func(*Node)) Option {
	return func(o *options) { o.prepare = f }
}

// New makes a cluster of one server and waits until it is ready. It ends with
// the test.
func New(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	o := options{prepare: func(*Node) {}}
	for _, option := range opts {
		option(&o)
	}
	c := &Cluster{Network: NewNetwork(t)}
	server := NewNode(t, On(c.Network))
	o.prepare(server)
	server.Start(t)
	c.Servers = append(c.Servers, server)
	return c
}

// Server returns the first server.
func (c *Cluster) Server() *Node { return c.Servers[0] }
