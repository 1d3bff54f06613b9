package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"lite.io/lite/pkg/install/upgrade"
	"lite.io/lite/pkg/log"
)

// healthTimeout is enough for a small board with a slow disk.
const healthTimeout = 10 * time.Minute

func upgradeCommand() *cobra.Command {
	o := upgrade.Options{}
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Upgrade lite to a newer version; roll back if that fails",
		Long: `Upgrade the lite on this machine to a newer version. Pods keep running. Without
arguments, lite upgrades to the version in the channel stable.

  lite upgrade --to v1.2.3
  lite upgrade --artifact ./lite-v1.2.3-linux-amd64.tar   (no network needed)
  lite upgrade --dry-run

lite checks everything that it can before it changes anything. Then it backs up the
program, the datastore, the keys and the configuration, replaces the program, and
restarts. If the new version does not become healthy in time, lite restores the
backup; what was written to the cluster in between is lost. ` + "`lite rollback`" + ` does
the same later, by hand.

In a cluster, upgrade all servers first, one after the other, then the agents. A server
is stopped only while all other servers work.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Artifact != "" && (o.Version != "" || cmd.Flags().Changed("channel") || o.BaseURL != "") {
				return errors.New("--artifact: cannot be combined with --to, --channel or --base-url; leave them out")
			}
			if o.Artifact == "" && o.SHA256 != "" {
				return errors.New("--sha256: needs --artifact; a release has its own SHA256SUMS")
			}
			if raw, err := hex.DecodeString(o.SHA256); o.SHA256 != "" && (err != nil || len(raw) != sha256.Size) {
				return fmt.Errorf("--sha256 %q: must be 64 hexadecimal digits, as sha256sum prints them", o.SHA256)
			}
			if o.HealthTimeout <= 0 {
				return fmt.Errorf("--health-timeout %s: must be greater than 0", o.HealthTimeout)
			}
			return runUpgrade(o, dryRun)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.Version, "to", "", "version to upgrade to, such as v1.2.3 (default: the version in the channel)")
	f.StringVar(&o.Artifact, "artifact", "", "upgrade from this file: the program, the program compressed with gzip, a bundle, or a directory with one of these")
	f.StringVar(&o.Channel, "channel", upgrade.Stable, "channel that names the version")
	f.StringVar(&o.BaseURL, "base-url", "", "URL where releases are served (default $"+upgrade.BaseURLVariable+", then the URL built into lite)")
	f.StringVar(&o.PublicKey, "public-key", "", "PEM file with the key that SHA256SUMS must be signed with, or none (default $"+upgrade.KeyVariable+", then the key that the installer stored)")
	f.StringVar(&o.SHA256, "sha256", "", "SHA-256 of the artifact, if it is a program without a SHA256SUMS beside it")
	f.BoolVar(&o.AllowHTTP, "allow-http", false, "accept a release that is neither signed nor encrypted in transit")
	f.BoolVar(&dryRun, "dry-run", false, "check everything and show what would happen, but change nothing")
	f.BoolVar(&o.Force, "force", false, "continue even if a component of this node is not ready, or another server does not answer")
	f.DurationVar(&o.HealthTimeout, "health-timeout", healthTimeout, "how long the new version may take to become healthy")
	_ = cmd.MarkFlagFilename("artifact")
	_ = cmd.MarkFlagFilename("public-key")
	cmd.AddCommand(upgradeResumeCommand(), upgradeAttendCommand())
	return cmd
}

func upgradeResumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "Roll back an upgrade whose new version does not start; run by the service before each start",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			return upgrade.Resume(self)
		},
	}
}

func upgradeAttendCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "attend DATA-DIR",
		Short: "Start the service if the running upgrade dies; an upgrade runs this itself",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return upgrade.Attend(cmd.Context(), args[0])
		},
	}
}

func runUpgrade(o upgrade.Options, dryRun bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	p, err := upgrade.Make(ctx, o, printLine)
	if err != nil {
		return err
	}
	defer p.Close()
	if p.Same {
		fmt.Printf("lite %s is already running; there is nothing to do.\n", p.From.Version)
		return nil
	}
	if err := p.Print(os.Stdout); err != nil {
		return err
	}
	for _, w := range p.Warnings {
		printLine("Warning: " + w)
	}
	if dryRun {
		printLine("Nothing was changed.")
		return nil
	}
	unwatched()
	return inLines(upgrade.Run(ctx, p, printLine))
}

// unwatched lets the work go on when nobody looks any more: who loses the connection
// to the machine while lite is stopped would leave it stopped, as no init system
// starts again what it was told to stop.
func unwatched() { signal.Ignore(unix.SIGHUP, unix.SIGPIPE) }

// printLine prints progress for whoever waits.
func printLine(line string) { fmt.Fprintln(os.Stderr, line) }

// inLines shows an error of several lines as it is.
func inLines(err error) error {
	if err == nil || !strings.Contains(err.Error(), "\n") {
		return err
	}
	fmt.Fprintln(os.Stderr, "lite: "+err.Error())
	return log.Shown(err)
}

func rollbackCommand() *cobra.Command {
	var yes, dryRun, force bool
	timeout := healthTimeout
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Roll back to the version and the data from before the last upgrade",
		Long: `Roll back to the backup of the last ` + "`lite upgrade`" + `: the program, the datastore, the
keys and the configuration. All changes to the cluster since then are lost: pods that
were created since then stop, and pods that were deleted since then start again.
Images and volumes stay as they are.

In a cluster of several servers, the datastore and the keys stay, and nothing is lost.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if timeout <= 0 {
				return fmt.Errorf("--health-timeout %s: must be greater than 0", timeout)
			}
			return runRollback(yes, dryRun, force, timeout)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	f.BoolVar(&dryRun, "dry-run", false, "show what would happen, but change nothing")
	f.BoolVar(&force, "force", false, "continue even if the other servers cannot do without this one")
	f.DurationVar(&timeout, "health-timeout", timeout, "how long the old version may take to become healthy")
	return cmd
}

func runRollback(yes, dryRun, force bool, timeout time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	p, err := upgrade.PlanRollback(ctx, configured(), force, printLine)
	if err != nil {
		return err
	}
	defer p.Driver.Close()
	fmt.Print(p.Text())
	for _, w := range p.Warnings {
		printLine("Warning: " + w)
	}
	if dryRun {
		printLine("Nothing was changed.")
		return nil
	}
	if !yes {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return errors.New("rollback: stdin is not a terminal; pass --yes")
		}
		fmt.Print("Roll back? [y/N] ")
		answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return errors.New("rollback: nothing was changed")
		}
	}
	unwatched()
	return inLines(upgrade.Rollback(ctx, p, timeout, printLine))
}
