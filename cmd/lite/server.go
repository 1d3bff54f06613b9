package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/server"
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
			return runServer(cmd.Flags())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(config.Server))
	return cmd
}

// runServer is the life of a server: everything that can be found wrong is
// found before anything is touched.
func runServer(flags *pflag.FlagSet) error {
	b, err := newBoot(config.Server, flags)
	if err != nil {
		return err
	}
	defer b.stop()
	return b.relaunch(b.runServer())
}

func (b *boot) runServer() error {
	node, err := server.New(b.cfg, b.host, b.ui.changed)
	if err != nil {
		return err
	}
	claim, err := b.claim()
	if err != nil {
		return err
	}
	defer claim.Close()
	if err := node.Prepare(); err != nil {
		return err
	}
	if err := b.serveStatus(); err != nil {
		return err
	}
	token, err := server.ReadToken(b.cfg.DataDir)
	if err != nil {
		return err
	}
	return b.run(node.Group, addCertificates(node.Certificates), "Use the cluster:  lite kubectl get pods -A  (kubeconfig: "+b.cfg.WriteKubeconfig+")\n"+
		"Show its components:  lite status\n"+
		"Add a machine:  lite agent --token "+token.Text())
}
