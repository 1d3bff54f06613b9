package main

import (
	"os"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/server"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and check the configuration",
	}
	cmd.AddCommand(configPrintCommand(), configCheckCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether a start would accept the configuration",
		Long: `Say whether ` + "`lite server`" + `, or with agent before the flags ` + "`lite agent`" + `, would accept
its configuration: values, registries.yaml, and the arguments that are passed on
to the components of Kubernetes. It touches nothing, and a node may run.

The exit code is 0 if it would, 1 otherwise.`,
		Args: cobra.NoArgs,
	}
	checkFor(cmd, config.Server)
	agentCmd := &cobra.Command{
		Use:   "agent",
		Short: "Say whether the start of an agent would accept the configuration",
		Args:  cobra.NoArgs,
	}
	checkFor(agentCmd, config.Agent)
	cmd.AddCommand(agentCmd)
	return cmd
}

func checkFor(cmd *cobra.Command, role config.Role) {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(role, cmd.Flags(), os.Environ())
		if err != nil {
			return err
		}
		if err := containerd.CheckRegistries(cfg.PrivateRegistry); err != nil {
			return err
		}
		// Which machine it is makes no difference to what is accepted.
		if role == config.Agent {
			return agent.Check(cfg, agent.Host{})
		}
		_, err = server.New(cfg, agent.Host{}, func(component.Status) {})
		return err
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(role))
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
