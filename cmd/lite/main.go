// Command lite is a whole Kubernetes in one binary.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/version"
)

func main() {
	if err := run(os.Args); err != nil {
		var shown *log.ShownError
		if !errors.As(err, &shown) {
			fmt.Fprintln(os.Stderr, "lite: "+log.OneLine(err))
		}
		os.Exit(1)
	}
}

// run lets a link named after a bundled tool be that tool.
func run(args []string) error {
	name := filepath.Base(args[0])
	for _, t := range tools {
		if t.name == name {
			return t.run(args[1:])
		}
	}
	root := command()
	root.SetArgs(args[1:])
	return root.Execute()
}

func command() *cobra.Command {
	// Upstream packages put flags of theirs into the set that every command
	// inherits; one is a --version that is not ours.
	pflag.CommandLine = pflag.NewFlagSet("lite", pflag.ContinueOnError)
	root := &cobra.Command{
		Use:   "lite",
		Short: "A whole Kubernetes in one binary",
		Long: `lite is a whole Kubernetes in one binary: etcd, the control plane and a node
that runs containers, all in one process.

  lite server            start a cluster on this machine
  lite agent             join this machine to a cluster
  lite kubectl get pods  work with the cluster
  lite status            show the state of this node's components
  lite check             check whether this machine can run lite`,
		Version:           version.Version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.AddCommand(serverCommand(), agentCommand(), tokenCommand(), nodeCommand(), memberCommand(), statusCommand(), topCommand(), configCommand(),
		checkCommand(), imagesCommand(), bundleCommand(), setupCommand(), killallCommand(), uninstallCommand(), upgradeCommand(),
		rollbackCommand(), licensesCommand(), versionCommand())
	for _, t := range tools {
		root.AddCommand(t.command())
	}
	return root
}
