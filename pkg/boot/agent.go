package boot

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/status"
)

// Agent is the life of an agent.
func Agent(flags *pflag.FlagSet) error {
	return life(func(p *process) error {
		n, err := p.inspect(config.Agent, flags)
		if err != nil {
			return err
		}
		return n.end(n.agent())
	})
}

func (n *plan) agent() error {
	if err := agent.CheckArguments(n.cfg, n.host); err != nil {
		return err
	}
	c, err := n.claim(cluster.Facts{})
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.report()
	if err != nil {
		return err
	}
	member, err := r.join()
	if r.ctx.Err() != nil {
		return nil // told to stop while it waited
	}
	if err != nil {
		return err
	}
	if err := n.cfg.With(member.Facts).CheckNetworks(); err != nil {
		slog.Warn("CIDRs of the cluster overlap networks of this machine: pods cannot reach those networks", "err", err)
	}
	node, err := agent.New(n.cfg, member, n.host, n.ui.changed)
	if err != nil {
		return err
	}
	addCertificates := addCertificates(node.Certificates)
	add := func(n *status.Node) {
		addCertificates(n)
		for _, s := range node.Balancer.Servers() {
			n.Servers = append(n.Servers, status.Server{
				Address: s.Address, State: string(s.State), Since: s.Since, InUse: s.InUse, UsedSince: s.UsedSince, Reason: s.Why,
			})
		}
	}
	return r.run(node.Group, add, "Show its components:  lite status")
}

// join makes the machine a node, and says what that waits for.
func (r *reporting) join() (agent.Membership, error) {
	began := time.Now()
	var waiting atomic.Pointer[string]
	r.show(func(context.Context) status.Node {
		c := status.Component{Name: "join", State: component.Starting, Since: began}
		if w := waiting.Load(); w != nil {
			c.Reason = *w
		}
		return r.self(c)
	})
	return agent.Join(r.ctx, r.cfg, func(problem string) {
		waiting.Store(&problem)
		r.manager.Status("Waiting to join the cluster: " + problem)
		slog.Warn("Waiting to join the cluster: " + problem)
	})
}
