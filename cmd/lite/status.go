package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/status"
)

func statusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of this node's components",
		Long: `Show each component of this node: its state (waiting, starting, ready, stopping,
stopped, failed), since when, and why it is not ready.

The exit code is 0 if all components are ready, otherwise 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showStatus(cmd.Context(), os.Stdout, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func showStatus(ctx context.Context, w io.Writer, output string) error {
	if output != "table" && output != "json" {
		return fmt.Errorf("--output %q: must be table or json", output)
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n, err := status.Get(ctx, layout.Default().Run.Socket())
	if err != nil {
		return err
	}
	if output == "json" {
		err = writeJSON(w, n)
	} else {
		err = n.WriteText(w, time.Now())
	}
	if err != nil {
		return err
	}
	if !n.Ready {
		return log.Shown(errors.New("not ready"))
	}
	return nil
}
