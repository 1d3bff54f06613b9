package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/setup"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/version"
)

// stagedFlag is what install.sh says when it becomes this command. It stands before all else, and nobody else says it.
const stagedFlag = "--staged"

func setupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "setup [server|agent] [flags]",
		Short: "Install this lite as a service of this machine; the last step of install.sh",
		Long: `Install this lite on this machine and run it as a service of systemd or OpenRC.
scripts/install.sh finds a lite, verifies it and becomes this command. Without the
script, this program installs itself from wherever it is, and verifies nothing.

The flags are those of ` + "`lite server`" + ` or ` + "`lite agent`" + `; each can also be a variable, such as
LITE_TOKEN for --token. Without a role, it installs an agent if LITE_URL is set and a
server otherwise. Without any arguments it keeps the role and the configuration of the
last installation. Run again, it changes only what is different, and restarts the
service only then. If it fails, it leaves the machine as it was.

  INSTALL_LITE_EXEC         words to put before the arguments
  INSTALL_LITE_BIN_DIR      directory for the commands (where they are, or /usr/local/bin)
  INSTALL_LITE_SKIP_ENABLE  true: neither start the service now nor enable it at boot
  INSTALL_LITE_SKIP_START   true: do not start the service now`,
		DisableFlagParsing: true, // which flags there are depends on the role
		ValidArgsFunction:  completeSetup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
				return cmd.Help()
			}
			return runSetup(cmd.Root(), args)
		},
	}
}

func runSetup(root *cobra.Command, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("setup: only root may install lite; run it as root")
	}
	syscall.Umask(0o022)
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	r := setup.Request{
		Args: args, Env: os.Environ(), Program: program, Version: version.Version(), Banner: banner(version.Get()),
		Configure: configureService, Complete: func(shell string, w io.Writer) error { return complete(root, shell, w) },
		Out: os.Stdout, Err: os.Stderr,
	}
	if len(args) > 0 && args[0] == stagedFlag {
		r.Staged, r.Args = true, args[1:]
	}
	// Whoever has become root by su lacks the directories of administrators.
	path := strings.TrimPrefix(os.Getenv("PATH")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ":")
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, release := signal.NotifyContext(context.Background(), signals...)
	defer release()
	err = setup.Run(ctx, r)
	switch {
	case errors.Is(err, setup.ErrInterrupted):
		fmt.Fprintln(os.Stderr, "[lite] interrupted: run the installer again to complete it")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "[lite] error: "+log.OneLine(err))
		return log.Shown(err)
	}
	return nil
}

// configureService is what a service of a role would be configured with, if a start would accept that.
func configureService(role config.Role, args []string, file string) (setup.Configuration, error) {
	flags := config.Flags(role)
	flags.Usage = func() {} // an error is one line
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return setup.Configuration{}, fmt.Errorf("--help: it is not for an installation; run `lite %s --help`", role)
	} else if err != nil {
		return setup.Configuration{}, err
	}
	if flags.NArg() > 0 {
		return setup.Configuration{}, fmt.Errorf("%q: it is no flag", flags.Arg(0))
	}
	text, cfg, err := dropIn(role, flags, file)
	if err != nil {
		return setup.Configuration{}, err
	}
	return setup.Configuration{Text: text, DataDir: cfg.DataDir, ImageDir: layout.Data(cfg.DataDir).Agent().Images()}, nil
}

// complete is what lite completion prints.
func complete(root *cobra.Command, shell string, w io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(w, true)
	case "zsh":
		return root.GenZshCompletion(w)
	case "fish":
		return root.GenFishCompletion(w, true)
	}
	return fmt.Errorf("no completion for %s", shell)
}

// completeSetup completes the role, and then its flags.
func completeSetup(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	role := config.Server
	if len(args) > 0 && args[0] == string(config.Agent) {
		role = config.Agent
	}
	var found []string
	if len(args) == 0 {
		found = append(found, string(config.Server), string(config.Agent))
	}
	config.Flags(role).VisitAll(func(f *pflag.Flag) { found = append(found, "--"+f.Name+"\t"+f.Usage) })
	return cobra.FixedCompletions(found, cobra.ShellCompDirectiveNoFileComp)(nil, nil, word)
}
