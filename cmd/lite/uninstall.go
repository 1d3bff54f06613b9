package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/uninstall"
	"lite.io/lite/pkg/server"
)

func uninstallCommand() *cobra.Command {
	var r removal
	var yes bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove lite and all its data from this machine",
		Long: `Remove lite from this machine: stop it and all pods, as ` + "`lite killall`" + ` does, then
remove the service, all data (including the cluster's if this is its server), the
configuration, pod logs, the files of the installer, and the program. Kernel settings
return to what they were before lite. What other software has created stays.

With --keep-data, a later installation continues with the same data. If the command
fails or is killed, you can run it again.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := r.check(); err != nil {
				return err
			}
			node, err := r.node()
			if err != nil {
				return err
			}
			if uninstall.Present(node) && !yes {
				if err := confirm(node, r.options.KeepData); err != nil {
					return err
				}
			}
			report := uninstall.NewReport(os.Stdout)
			if node.Agent && !r.options.KeepData {
				report.Leave("the Node object in the cluster: remove it with `lite kubectl delete node %s` on a server", node.Name)
			}
			return untilSignal(func(ctx context.Context) error { return uninstall.Remove(ctx, node, r.options, report) })
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&r.options.KeepData, "keep-data", false, "keep the data directory, the configuration, and the volumes and logs of pods")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

func (r *removal) check() error {
	if os.Geteuid() != 0 {
		return errors.New("must run as root; use `sudo`")
	}
	if r.options.Grace < 0 {
		return fmt.Errorf("--grace-period %s: must not be negative", r.options.Grace)
	}
	return nil
}

// confirm asks a person, and refuses where there is none.
func confirm(n uninstall.Node, keep bool) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("stdin or stdout is not a terminal; pass --yes to remove lite without confirmation")
	}
	what := "with ALL its data in " + strings.Join(n.DataDirs, " and ")
	if !n.Agent {
		what += ", including the cluster's"
	}
	if keep {
		what = "and keep its data in " + strings.Join(n.DataDirs, " and ")
	}
	fmt.Printf("Remove lite from this machine %s? [y/N] ", what)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		fmt.Println()
	}
	return errors.New("nothing was removed")
}

// node is where this node keeps what.
func (r *removal) node() (uninstall.Node, error) {
	cfg, err := r.configuration()
	if err != nil && r.dataDir == "" {
		return uninstall.Node{}, fmt.Errorf("%w; fix it, or pass --data-dir to continue without the configuration", err)
	}
	if err != nil {
		dir, err := filepath.Abs(r.dataDir)
		if err != nil {
			return uninstall.Node{}, err
		}
		cfg = &config.Config{DataDir: dir}
	}
	return uninstall.NodeOf(cfg, server.Used(cfg.DataDir)), nil
}

// configuration is that of the role which this node has.
func (r *removal) configuration() (*config.Config, error) {
	load := func(role config.Role) (*config.Config, error) {
		flags := config.Flags(role)
		if r.dataDir != "" {
			if err := flags.Set("data-dir", r.dataDir); err != nil {
				return nil, err
			}
		}
		return config.Load(role, flags, os.Environ())
	}
	cfg, err := load(config.Server)
	if err == nil && server.Used(cfg.DataDir) {
		return cfg, nil
	}
	agent, agentErr := load(config.Agent)
	if agentErr == nil && (err != nil || !server.Used(agent.DataDir)) {
		return agent, nil
	}
	return cfg, err
}
