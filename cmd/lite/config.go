package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and check the configuration",
	}
	cmd.AddCommand(configPrintCommand(), configCheckCommand(), configWriteCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check whether lite would start with the configuration",
		Long: `Check whether ` + "`lite server`" + ` (or, with agent before the flags, ` + "`lite agent`" + `) would accept
the configuration: values, registries.yaml, and the arguments for the components of
Kubernetes. The command changes nothing; a node may be running meanwhile.

The exit code is 0 if the configuration is valid, otherwise 1.`,
		Args: cobra.NoArgs,
	}
	perRole(cmd, "Check whether an agent would start with the configuration", check.Accepted)
	return cmd
}

func configPrintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration and where each value came from",
		Long: `Print the effective configuration as YAML, and where each value came from: the
default, a file, the environment or a flag. Values that the whole cluster shares are
marked as cluster-wide; if the cluster that this node is in has another value, that is
shown, too. The command takes the flags of ` + "`lite server`" + `, or after agent those of
` + "`lite agent`" + `, and changes nothing.`,
		Args: cobra.NoArgs,
	}
	perRole(cmd, "Print the effective configuration of an agent", func(cfg *config.Config) error { return cfg.Print(os.Stdout, check.KnownFacts(cfg)) })
	return cmd
}

// perRole makes a command do something with the configuration of a server, and gives
// it a subcommand that does the same with an agent's.
func perRole(cmd *cobra.Command, agentShort string, do func(*config.Config) error) {
	agentCmd := &cobra.Command{Use: "agent", Short: agentShort, Args: cobra.NoArgs}
	for role, cmd := range map[config.Role]*cobra.Command{config.Server: cmd, config.Agent: agentCmd} {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(role, cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return do(cfg)
		}
		cmd.Flags().SortFlags = false
		cmd.Flags().AddFlagSet(config.Flags(role))
	}
	cmd.AddCommand(agentCmd)
}

func configWriteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "write",
		Short: "Write flags and environment to a configuration file for a service",
		Long: `Write the values of flags and environment to a file that lite reads, for a service
that starts without either. install.sh stores its arguments this way.

The command first checks everything that can be checked without a start, together
with the other files and the content of the data directory. If anything is wrong, it
writes nothing. Only root can read the file, since it may hold a token.`,
		Args: cobra.NoArgs,
	}
	for role, short := range map[config.Role]string{
		config.Server: "Write the configuration of a server",
		config.Agent:  "Write the configuration of an agent",
	} {
		cmd.AddCommand(writeFor(role, short))
	}
	return cmd
}

func writeFor(role config.Role, short string) *cobra.Command {
	cmd := &cobra.Command{Use: string(role), Short: short, Args: cobra.NoArgs}
	cmd.Flags().SortFlags = false
	replaced := cmd.Flags().String("file", layout.Default().Config.Install(), "file to replace; its current content is ignored")
	to := cmd.Flags().String("to", "", "file to write instead, for you to rename to that one")
	cmd.Flags().AddFlagSet(config.Flags(role))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		content, _, err := dropIn(role, cmd.Flags(), *replaced)
		if err != nil {
			return err
		}
		if *to == "" {
			*to = *replaced
			change, err := service.BeginChange(cmd.Context(), printLine, string(layout.Default().Config))
			if err != nil {
				return err
			}
			defer change.Close()
		}
		return writeConfig(*to, content)
	}
	return cmd
}

// dropIn is what flags and environment say, for a file that a service reads, and the configuration that it would have.
func dropIn(role config.Role, flags *pflag.FlagSet, file string) ([]byte, *config.Config, error) {
	content, cfg, err := config.DropIn(role, flags, os.Environ(), file)
	if err != nil {
		return nil, nil, err
	}
	return content, cfg, check.Service(cfg)
}

// writeConfig writes a file, unless it is as it should be: who watches it may take
// a new file for a change.
func writeConfig(path string, content []byte) error {
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the existing file: %w", err)
	}
	if err == nil && bytes.Equal(before, content) {
		return os.Chmod(path, 0o600)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create the directory of the file: %w", err)
	}
	if err := file.Write(path, content, 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}
