package main

import (
	"github.com/spf13/cobra"

	"lite.io/lite/pkg/boot"
	"lite.io/lite/pkg/config"
)

func serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Start a cluster on this machine",
		Long: `Start a cluster on this machine: the datastore, the control plane and a node.

lite runs in the foreground until it gets SIGTERM or SIGINT. Pods keep running
when it stops, and the next start takes them over. You can also set every flag
in the environment (LITE_DATA_DIR for --data-dir) and in the configuration file;
` + "`lite config print`" + ` shows the result and where each value came from.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return boot.Server(cmd.Flags())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(config.Server))
	return cmd
}
