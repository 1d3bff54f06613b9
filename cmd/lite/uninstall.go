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

	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/uninstall"
	"lite.io/lite/pkg/server"
)

func uninstallCommand() *cobra.Command {
	var r removal
	var yes, force bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove lite and all its data from this machine",
		Long: `Remove lite from this machine: stop it and all pods, as ` + "`lite killall`" + ` does, then
remove the service, all data (including the cluster's if this is its server), the
configuration, pod logs, the files of the installer, and the program. Kernel settings
return to what they were before lite. What other software has created stays.

A server of several leaves its cluster first, which is refused if the others would have no
quorum. With --keep-data it stays a member.

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
			if !node.Agent && !r.options.KeepData {
				if err := r.leave(report, force); err != nil {
					return err
				}
			}
			if node.Agent && !r.options.KeepData {
				report.Leave("the Node object in the cluster: remove it with `lite kubectl delete node %s` on a server", node.Name)
			}
			return untilSignal(func(ctx context.Context) error { return uninstall.Remove(ctx, node, r.options, report) })
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&r.options.KeepData, "keep-data", false, "keep the data directory, the configuration, and the volumes and logs of pods")
	cmd.Flags().BoolVar(&force, "force", false, "remove a server even if the others have no quorum without it")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	return cmd
}

// leave takes a server that is one of several out of its cluster.
func (r *removal) leave(report *uninstall.Report, force bool) error {
	flags := config.Flags(config.Server)
	if r.dataDir != "" {
		if err := flags.Set("data-dir", r.dataDir); err != nil {
			return err
		}
	}
	cfg, err := config.Load(config.Server, flags, os.Environ())
	if err != nil {
		report.Leave("the member of this server in the datastore, if the cluster has other servers: remove it with `lite member remove` on one of them (%v)", err)
		return nil
	}
	err = untilSignal(func(ctx context.Context) error { return server.Leave(ctx, cfg) })
	switch {
	case errors.Is(err, server.ErrSilent), err != nil && force:
		report.Leave("the member of this server in the datastore: remove it with `lite member remove %s` on another server (%v)", cfg.NodeName, err)
	case err != nil:
		return fmt.Errorf("leave the cluster: %w; nothing was removed: with --force the server is removed all the same, and the cluster may be lost", err)
	}
	return nil
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
func confirm(n uninstall.Installation, keep bool) error {
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
func (r *removal) node() (uninstall.Installation, error) {
	flags := config.Flags(config.Agent) // the role does not matter to the one that is set
	if r.dataDir != "" {
		if err := flags.Set("data-dir", r.dataDir); err != nil {
			return uninstall.Installation{}, err
		}
	}
	here := check.Here(nil, flags)
	cfg := here.Config
	if here.Err != nil && r.dataDir == "" {
		return uninstall.Installation{}, fmt.Errorf("%w; fix it, or pass --data-dir to continue without the configuration", here.Err)
	}
	if here.Err != nil {
		dir, err := filepath.Abs(r.dataDir)
		if err != nil {
			return uninstall.Installation{}, err
		}
		cfg = &config.Config{DataDir: dir}
	}
	stamp, err := cfg.Layout().Data.Stamp()
	return uninstall.InstallationOf(cfg, err == nil && stamp.Role == string(config.Server)), nil
}
