package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/install/uninstall"
)

// removal is what killall and uninstall can be told alike.
type removal struct {
	dataDir string
	options uninstall.Options
}

func (r *removal) flags(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&r.dataDir, "data-dir", "", "data directory of the node (default: from its configuration)")
	cmd.Flags().DurationVar(&r.options.Grace, "grace-period", 10*time.Second, "how long containers may take to stop before they are killed")
}

func killallCommand() *cobra.Command {
	var r removal
	cmd := &cobra.Command{
		Use:   "killall",
		Short: "Stop lite and all pods of this node; keep all data",
		Long: `Stop lite, then all pods of this node, and clean up their processes, mounts, network,
packet filter rules and cgroups. All data stays: start lite again, and the pods return.

Containers get a signal to stop, and are killed after --grace-period. Other programs
on the machine, their containers and their rules are not touched.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := r.check(); err != nil {
				return err
			}
			node, err := r.node()
			if err != nil {
				return err
			}
			return untilSignal(func(ctx context.Context) error {
				return uninstall.Kill(ctx, node, r.options, uninstall.NewReport(os.Stdout))
			})
		},
	}
	r.flags(cmd)
	return cmd
}

// untilSignal runs what a signal ends between two steps, and the same command
// goes on with. That nobody looks any more does not end it: who has lost the
// connection to the machine would find half a node.
func untilSignal(do func(context.Context) error) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer release()
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted; run the command again to continue")
	}
	return err
}
