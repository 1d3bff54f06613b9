package main

import (
	"os"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and check the configuration",
	}
	cmd.AddCommand(configPrintCommand())
	return cmd
}

func configPrintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration and where each value came from",
		Long: `Print the effective configuration as YAML, with where each value came from:
the default, a file, the environment or a flag. It takes the flags of
` + "`lite server`" + `, or with agent before them those of ` + "`lite agent`" + `, and touches nothing.`,
		Args: cobra.NoArgs,
	}
	printFor(cmd, config.Server)
	agent := &cobra.Command{
		Use:   "agent",
		Short: "Print the effective configuration of an agent",
		Args:  cobra.NoArgs,
	}
	printFor(agent, config.Agent)
	cmd.AddCommand(agent)
	return cmd
}

func printFor(cmd *cobra.Command, role config.Role) {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(role, cmd.Flags(), os.Environ())
		if err != nil {
			return err
		}
		return cfg.Print(os.Stdout)
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(role))
}
