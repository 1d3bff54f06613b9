package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func topCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "top [node|pod] [flags of kubectl top]",
		Short: "Show the CPU and memory usage of nodes and pods",
		Long: `Show the CPU and memory usage of nodes and pods. Without arguments, it shows all
nodes and the pods of all namespaces, sorted by memory usage; with arguments, it is
the same as ` + "`lite kubectl top`" + `.

Metrics are available about 15 s after a node or pod starts.`,
		DisableFlagParsing: true, // all flags are kubectl's
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
				return cmd.Help()
			case len(args) > 0:
				return runKubectl(append([]string{"top"}, args...))
			}
			if err := runKubectl([]string{"top", "node"}); err != nil {
				return err
			}
			fmt.Println()
			return runKubectl([]string{"top", "pod", "--all-namespaces", "--sort-by=memory"})
		},
	}
}
