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
` + "`lite server`" + ` and touches nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(config.Server, cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return cfg.Print(os.Stdout)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(config.Server))
	return cmd
}
