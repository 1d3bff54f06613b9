package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/version"
)

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of lite and its components",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			switch output {
			case "json":
				return writeJSON(os.Stdout, v)
			case "text":
				_, err := fmt.Printf("%s\nkubernetes %s\netcd %s\ncontainerd %s\nrunc %s\n", banner(v), v.Kubernetes, v.Etcd, v.Containerd, v.Runc)
				return err
			}
			return fmt.Errorf("--output %q: must be text or json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// banner is how a lite says in one line which it is.
func banner(v version.Info) string {
	return fmt.Sprintf("lite %s (commit %s, %s, %s)", v.Version, v.Commit, v.Go, v.Platform)
}
