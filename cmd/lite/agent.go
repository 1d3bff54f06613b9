package main

import (
	"github.com/spf13/cobra"

	"lite.io/lite/pkg/boot"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
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
			return boot.Agent(cmd.Flags())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(config.Agent))
	return cmd
}
