package cluster

import (
	"errors"
	"testing"
)

// Cluster is what started nodes form.
type Cluster struct {
	Servers []*Node
	Agents  []*Node
	Network *Network
}

// Option changes how a cluster is made.
type Option func(*options)

type options struct {
	prepare         func(*Node)
	servers, agents int
}

// Prepare calls f with each node before lite is started on it, for example to
// write its configuration.
func Prepare(f func(*Node)) Option {
	return func(o *options) { o.prepare = f }
}

// Servers gives the cluster n servers; it has one otherwise.
func Servers(n int) Option {
	return func(o *options) { o.servers = n }
}

// Agents gives the cluster n agents.
func Agents(n int) Option {
	return func(o *options) { o.agents = n }
}

// New makes a cluster of one server, or as many as are asked for, and of agents if
// they are, and waits until all are ready. It ends with the test.
func New(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	o := options{prepare: func(*Node) {}, servers: 1}
	for _, option := range opts {
		option(&o)
	}
	c := &Cluster{Network: NewNetwork(t)}
	for range o.servers {
		server := NewNode(t, On(c.Network))
		o.prepare(server)
		if len(c.Servers) == 0 {
			server.Start(t)
		} else if err := c.joinServer(server); err != nil {
			t.Fatalf("server %d of %d: %v", len(c.Servers)+1, o.servers, err)
		}
		c.Servers = append(c.Servers, server)
	}
	for range o.agents {
		agent := c.NewAgent(t)
		o.prepare(agent)
		agent.Launch(t, "--token-file", TokenFile)
	}
	for _, agent := range c.Agents {
		agent.WaitReady(t)
	}
	return c
}

// joinServer starts lite on a host as another server of the cluster. There is no
// way to do that yet: a test that asks for two servers fails, and says so.
func (*Cluster) joinServer(*Node) error {
	return errors.New("lite cannot join a second server to a cluster yet")
}

// TokenFile is where NewAgent puts the cluster's token.
const TokenFile = "/etc/lite/token"

// NewAgent makes a host for an agent, with the token of the cluster on it; lite
// is not started.
func (c *Cluster) NewAgent(t testing.TB) *Node {
	t.Helper()
	agent := NewNode(t, On(c.Network))
	agent.Role = "agent"
	agent.WriteFile(t, TokenFile, c.Server().ReadFile(t, DataDir+"/server/token"))
	c.Agents = append(c.Agents, agent)
	return agent
}

// Server returns the first server.
func (c *Cluster) Server() *Node { return c.Servers[0] }
