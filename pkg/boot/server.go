package boot

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
)

// Server is the life of a server: everything that can be found wrong is found before anything
// is touched.
func Server(flags *pflag.FlagSet) error {
	return life(func(p *process) error {
		n, err := p.inspect(config.Server, flags)
		if err != nil {
			return err
		}
		return n.end(n.server())
	})
}

func (n *plan) server() error {
	resets, err := server.Resets(n.cfg)
	if err != nil {
		return err
	}
	if resets {
		return n.lastServer()
	}
	joins, err := server.Joins(n.cfg)
	if err != nil {
		return err
	}
	if joins {
		return n.furtherServer()
	}
	facts, err := server.Facts(n.cfg)
	if err != nil {
		return err
	}
	unprepared, err := server.New(server.Config{Node: n.cfg, Cluster: facts, Host: n.host}, n.ui.changed)
	if err != nil {
		return err
	}
	c, err := n.claim(facts)
	if err != nil {
		return err
	}
	defer c.Close()
	node, err := unprepared.Prepare()
	if err != nil {
		return err
	}
	r, err := c.report()
	if err != nil {
		return err
	}
	return r.serve(node)
}

// furtherServer is a server whose cluster has others, which have to hand over to it first.
func (n *plan) furtherServer() error {
	if err := server.Check(n.cfg, n.host); err != nil {
		return err
	}
	r, err := n.occupy()
	if err != nil {
		return err
	}
	defer r.Close()
	var facts cluster.Facts
	err = r.join(func(ctx context.Context, say func(string)) (err error) {
		facts, err = server.Join(ctx, r.cfg, say)
		return err
	})
	if r.ctx.Err() != nil {
		return nil // told to stop while it waited
	}
	if err != nil {
		return err
	}
	r.checkNetworks(facts)
	return r.goOn(facts)
}

// lastServer is one that is left of its cluster, and becomes the only one first.
func (n *plan) lastServer() error {
	if err := server.Check(n.cfg, n.host); err != nil {
		return err
	}
	r, err := n.occupy()
	if err != nil {
		return err
	}
	defer r.Close()
	began := time.Now()
	r.show(func(context.Context) status.Node {
		return r.self(status.Component{Name: "reset", State: component.Starting, Since: began})
	})
	if err := server.Reset(r.ctx, r.cfg); err != nil {
		return err
	}
	facts, err := server.Facts(n.cfg)
	if err != nil {
		return err
	}
	return r.goOn(facts)
}

// goOn is the rest of the life of a server that was told the facts after it had begun.
func (r *reporting) goOn(facts cluster.Facts) error {
	unprepared, err := server.New(server.Config{Node: r.cfg, Cluster: facts, Host: r.host}, r.ui.changed)
	if err != nil {
		return err
	}
	node, err := unprepared.Prepare()
	if err != nil {
		return err
	}
	return r.serve(node)
}

// serve is the life of a server from its first component to its last.
func (r *reporting) serve(node server.Prepared) error {
	add := func(ctx context.Context, n *status.Node) {
		addCertificates(node.Certificates)(n)
		node.Members(ctx, n)
	}
	return r.run(node.Group, add, "Use the cluster:  lite kubectl get pods -A  (kubeconfig: "+r.cfg.WriteKubeconfig+")\n"+
		"Show its components:  lite status\n"+
		"Add a machine:  lite agent --token "+node.Token.Text())
}

// join makes the machine a node of a cluster that there is, and shows what that waits for.
func (r *reporting) join(do func(ctx context.Context, say func(string)) error) error {
	began := time.Now()
	var waiting atomic.Pointer[string]
	r.show(func(context.Context) status.Node {
		c := status.Component{Name: "join", State: component.Starting, Since: began}
		if w := waiting.Load(); w != nil {
			c.Reason = *w
		}
		return r.self(c)
	})
	return do(r.ctx, func(problem string) {
		waiting.Store(&problem)
		r.manager.Status("Waiting to join the cluster: " + problem)
		slog.Warn("Waiting to join the cluster: " + problem)
	})
}

// checkNetworks warns of networks of the machine that the cluster hides.
func (r *reporting) checkNetworks(facts cluster.Facts) {
	if err := r.cfg.With(facts).CheckNetworks(); err != nil {
		slog.Warn("CIDRs of the cluster overlap networks of this machine: pods cannot reach those networks", "err", err)
	}
}
