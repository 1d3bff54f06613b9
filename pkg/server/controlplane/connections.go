package controlplane

import (
	"net"
	"net/netip"
	"sync"

	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// connections is those to an address that the server may lose while it works. Nothing that is sent
// on them arrives afterwards, and a client that only listens finds out after 45 s (client-go
// 0.37).
type connections struct {
	net.Listener
	address netip.Addr

	mu   sync.Mutex
	open map[*connection]struct{}
}

// followAddress has the API server know who is connected to the address that moves.
func (a *APIServer) followAddress(cfg *app.Config) {
	if !a.config.Cluster.VIP.IsValid() {
		return
	}
	serving := cfg.Aggregator.GenericConfig.SecureServing
	c := &connections{Listener: serving.Listener, address: a.config.Cluster.VIP, open: map[*connection]struct{}{}}
	serving.Listener = c
	a.moving.Store(c)
}

// Disconnect ends the connections to the address that moves.
func (a *APIServer) Disconnect() {
	if c := a.moving.Load(); c != nil {
		c.closeAll()
	}
}

// Accept implements net.Listener.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if at, err := netip.ParseAddrPort(conn.LocalAddr().String()); err != nil || at.Addr().Unmap() != c.address {
		return conn, nil
	}
	one := &connection{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[one] = struct{}{}
	return one, nil
}

func (c *connections) closeAll() {
	c.mu.Lock()
	var all []*connection
	for one := range c.open {
		all = append(all, one)
	}
	c.mu.Unlock()
	for _, one := range all {
		_ = one.Close() // whoever reads from it hears so
	}
}

type connection struct {
	net.Conn
	of *connections
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
