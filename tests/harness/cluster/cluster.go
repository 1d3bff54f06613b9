package cluster

import "testing"

// Cluster is what started nodes form.
type Cluster struct {
	Servers []*Node
	Agents  []*Node
	Network *Network

	hosts   []HostOption // what nodes are made with
	prepare func(*Node)
}

// Option changes how a cluster is made.
type Option func(*options)

type options struct {
	prepare         func(*Node)
	servers, agents int
	hosts           []HostOption
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

// Hosts makes the hosts of all nodes as options say.
func Hosts(of ...HostOption) Option {
	return func(o *options) { o.hosts = of }
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
	c := &Cluster{Network: NewNetwork(t), hosts: o.hosts, prepare: o.prepare}
	for range o.servers {
		server := c.NewServer(t)
		if len(c.Servers) == 0 {
			server.Start(t)
			c.Servers = append(c.Servers, server)
		} else {
			c.JoinServer(t, server)
		}
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

// NewServer makes a host for a server, prepared as the cluster's; lite is not started.
func (c *Cluster) NewServer(t testing.TB) *Node {
	t.Helper()
	server := c.newNode(t)
	c.prepare(server)
	return server
}

func (c *Cluster) newNode(t testing.TB) *Node {
	t.Helper()
	return NewNode(t, append(c.hosts[:len(c.hosts):len(c.hosts)], On(c.Network))...)
}

// JoinServer starts lite on a host as another server of the cluster, with a token that
// one of its servers makes, and waits until it is ready.
func (c *Cluster) JoinServer(t testing.TB, server *Node) {
	t.Helper()
	token := c.Server().Output(t, "lite", "token", "create", "--role", "server", "--ttl", "1h")
	server.WriteFile(t, TokenFile, token)
	server.Start(t, "--token-file", TokenFile)
	c.Servers = append(c.Servers, server)
}

// TokenFile is where NewAgent puts the cluster's token, and JoinServer a server's.
const TokenFile = "/etc/lite/token"

// NewAgent makes a host for an agent, with the token of the cluster on it; lite
// is not started.
func (c *Cluster) NewAgent(t testing.TB) *Node {
	t.Helper()
	agent := c.newNode(t)
	agent.Role = "agent"
	agent.WriteFile(t, TokenFile, c.Server().ReadFile(t, DataDir+"/server/token"))
	c.Agents = append(c.Agents, agent)
	return agent
}

// Server returns the first server.
func (c *Cluster) Server() *Node { return c.Servers[0] }
