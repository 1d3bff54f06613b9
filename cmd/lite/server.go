package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/bundle"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

func serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Start a cluster on this machine",
		Long: `Start a cluster on this machine: the datastore, the control plane and a node.

It runs in the foreground until it gets SIGTERM or SIGINT; pods go on running
when it stops and are taken over at the next start. Every flag can also be set
in the environment (LITE_DATA_DIR for --data-dir) and in the configuration file;
` + "`lite config print`" + ` shows the result and where each value came from.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServer(cmd.Flags())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(config.Flags(config.Server))
	return cmd
}

// runServer is the life of a server: everything that can be found wrong is
// found before anything is touched.
func runServer(flags *pflag.FlagSet) error {
	began := time.Now()
	debug.SetGCPercent(startGC)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()

	host, err := agent.Inspect()
	if err != nil {
		return err
	}
	cfg, err := config.Load(config.Server, flags, os.Environ())
	if err != nil {
		return err
	}
	if err := check(cfg); err != nil {
		return err
	}
	ui := newProgress(os.Stderr, cfg.LogFormat)
	log.Bridge(log.New(ui, ui.logLevel(cfg.LogLevel), cfg.LogFormat))
	node, err := server.New(cfg, host, ui.changed)
	if err != nil {
		return err
	}

	claim, err := server.Claim(cfg.DataDir, version.Version())
	if err != nil {
		return err
	}
	defer claim.Close()
	if err := node.Prepare(); err != nil {
		return err
	}
	if err := findHelpersFirst(cfg.DataDir); err != nil {
		return err
	}
	slog.Info("Starting lite", "version", version.Version(), "node", cfg.NodeName, "address", cfg.NodeIP[0], "data-dir", cfg.DataDir)
	self := status.Node{Role: string(config.Server), Name: cfg.NodeName, Version: version.Version(), PID: os.Getpid(), Since: began}
	now := func(ctx context.Context) status.Node { return status.Of(ctx, self, node.Group) }
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	if err := status.Serve(serving, status.Socket, now); err != nil {
		return err
	}

	ui.begin(node.Group)
	go func() {
		if ui.awaitReady(ctx) {
			ui.ready(cfg, time.Since(began))
			rest(ctx)
		}
	}()
	context.AfterFunc(ctx, func() {
		log.ShowUpstream(false)
		ui.stopping()
	})
	err = runGroup(ctx, node.Group)
	ui.end(err)
	if err != nil {
		return &saidError{err}
	}
	return nil
}

// runGroup runs the components until ctx is done, one fails, or upstream wants to
// end the process.
func runGroup(ctx context.Context, g *component.Group) error {
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		select {
		case err := <-log.GaveUp():
			fail(err)
		case <-running.Done():
		}
	}()
	return g.Run(running)
}

// check finds what stands in the way of a start, and touches nothing.
func check(cfg *config.Config) error {
	for _, check := range []func() error{
		func() error { return server.CheckClaim(cfg.DataDir, version.Version()) },
		cfg.Check,
		func() error { return agent.CheckDisk(cfg.DataDir) },
		func() error { return containerd.CheckRegistries(cfg.PrivateRegistry) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// findHelpersFirst puts the helpers' directory at the head of PATH. containerd
// has the full path of its shim written into its configuration, and yet looks
// it and runc up by name when it comes back after a crash and finds a container
// that was being made: not finding them it forgets the container, whose
// processes go on running (2.3).
func findHelpersFirst(dataDir string) error {
	helpers, err := bundle.At(dataDir)
	if err != nil {
		return err
	}
	return os.Setenv("PATH", helpers.Bin()+string(os.PathListSeparator)+os.Getenv("PATH"))
}

const (
	// settleAfter is how long upstream's parts still complain of each other
	// after all are ready.
	settleAfter = 10 * time.Second
	// trimAfter is when a start has left nothing more behind.
	trimAfter = 30 * time.Second
)

// rest ends the start: upstream's warnings are shown from now on, and what
// only the start needed is given back. The Go runtime would keep the memory of
// a start, which is twice that of the work after it, for good.
func rest(ctx context.Context) {
	memory := governor{percent: startGC}
	memory.watch(ctx)
	for _, step := range []struct {
		after time.Duration
		do    func()
	}{
		{settleAfter, func() { log.ShowUpstream(true) }},
		{trimAfter - settleAfter, memory.rest},
	} {
		select {
		case <-time.After(step.after):
			step.do()
		case <-ctx.Done():
			return
		}
	}
}
