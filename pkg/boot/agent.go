package boot

import (
	"context"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
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
	r, err := n.occupy()
	if err != nil {
		return err
	}
	defer r.Close()
	var member agent.Membership
	err = r.join(func(ctx context.Context, say func(string)) (err error) {
		member, err = agent.Join(ctx, r.cfg, say)
		return err
	})
	if r.ctx.Err() != nil {
		return nil // told to stop while it waited
	}
	if err != nil {
		return err
	}
	r.checkNetworks(member.Facts)
	node, err := agent.New(n.cfg, member, n.host, n.ui.changed)
	if err != nil {
		return err
	}
	addCertificates := addCertificates(node.Certificates)
	add := func(_ context.Context, n *status.Node) {
		addCertificates(n)
		for _, s := range node.Balancer.Servers() {
			n.Servers = append(n.Servers, status.Server{
				Address: s.Address, State: string(s.State), Since: s.Since, InUse: s.InUse, UsedSince: s.UsedSince, Reason: s.Why,
			})
		}
	}
	return r.run(node.Group, add, "Show its components:  lite status")
}
