package cluster

import "testing"

// Cluster is what started nodes form.
type Cluster struct {
	Servers []*Node
	Agents  []*Node
	Network *Network
}

// Option changes how a cluster is made.
type Option func(*options)

type options struct {
	prepare func(*Node)
	agents  int
}

// Prepare calls f with each node before lite is started on it, for example to
// write its configuration.
func Prepare(f func(*Node)) Option {
	return func(o *options) { o.prepare = f }
}

// Agents gives the cluster n agents.
func Agents(n int) Option {
	return func(o *options) { o.agents = n }
}

// New makes a cluster of one server, and agents if they are asked for, and
// waits until all are ready. It ends with the test.
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
