package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/component"
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
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		err = e.Encode(n)
	} else {
		err = writeTable(w, n, time.Now())
	}
	if err != nil {
		return err
	}
	if !n.Ready {
		return log.Shown(errors.New("not ready"))
	}
	return nil
}

func writeTable(w io.Writer, n status.Node, now time.Time) error {
	fmt.Fprintf(w, "%s %s, lite %s, pid %d, up %s\n\n", n.Role, n.Name, n.Version, n.PID, age(now.Sub(n.Since)))
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tSTATE\tSINCE\tTOOK\tNOTE")
	for _, c := range n.Components {
		took := "-"
		if c.State == component.Ready {
			took = fmt.Sprintf("%.2f s", c.Took)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Name, c.State, age(now.Sub(c.Since)), took, strings.ReplaceAll(c.Reason+c.Note, "\n", " "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(n.Certificates) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "CERTIFICATE\tSTATE\tUNTIL\tREMEDY")
		for _, c := range n.Certificates {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Path, c.State, c.Until.UTC().Format(time.RFC3339), c.Remedy)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(n.Servers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "SERVER\tSTATE\tSINCE\tIN USE\tREASON")
	for _, s := range n.Servers {
		used := ""
		if s.InUse {
			used = "yes, " + age(now.Sub(s.UsedSince))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Address, s.State, age(now.Sub(s.Since)), used, strings.ReplaceAll(s.Reason, "\n", " "))
	}
	return t.Flush()
}

// age is a duration in the two units that matter.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
