package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/status"
)

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Join this machine to a cluster as a node",
		Long: `Join this machine to a cluster as a node that runs pods. It needs a token: a server
prints one when it starts, and so does ` + "`lite token create --print-join-command`" + `.

  lite agent --token lite://...                     a token with the address of the server
  lite agent --token-file f --server https://host:` + layout.APIPortText + `

The private key of the node is generated here and never leaves the machine. Once
the node has joined, it no longer needs a token. lite runs in the foreground until
it gets SIGTERM or SIGINT. Pods keep running when it stops, and the next start
takes them over.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runAgent(cmd.Flags())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(config.Agent))
	return cmd
}

// runAgent is the life of an agent.
func runAgent(flags *pflag.FlagSet) error {
	b, err := newBoot(config.Agent, flags)
	if err != nil {
		return err
	}
	defer b.stop()
	return b.relaunch(b.runAgent())
}

func (b *boot) runAgent() error {
	if err := agent.CheckArguments(b.cfg, b.host); err != nil {
		return err
	}
	claim, err := b.claim()
	if err != nil {
		return err
	}
	defer claim.Close()
	if err := b.serveStatus(); err != nil {
		return err
	}
	member, err := b.join()
	if b.ctx.Err() != nil {
		return nil // told to stop while it waited
	}
	if err != nil {
		return err
	}
	facts := member.Facts
	if err := b.cfg.WithRanges(facts.ClusterCIDR, facts.ServiceCIDR, facts.Disable).CheckNetworks(); err != nil {
		slog.Warn("Ranges of the cluster overlap networks of this machine: pods cannot reach those networks", "err", err)
	}
	node, err := agent.New(b.cfg, member, b.host, b.ui.changed)
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
	return b.run(node.Group, add, "Show its components:  lite status")
}

// join makes the machine a node, and says what that waits for.
func (b *boot) join() (agent.Membership, error) {
	began := time.Now()
	var waiting atomic.Pointer[string]
	b.show(func(context.Context) status.Node {
		c := status.Component{Name: "join", State: component.Starting, Since: began}
		if w := waiting.Load(); w != nil {
			c.Reason = *w
		}
		return b.self(c)
	})
	return agent.Join(b.ctx, b.cfg, func(problem string) {
		waiting.Store(&problem)
		b.manager.Status("Waiting to join the cluster: " + problem)
		slog.Warn("Waiting to join the cluster: " + problem)
	})
}
