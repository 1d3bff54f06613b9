package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/bundle"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/netfilter"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

// boot is the start of a node of either role.
type boot struct {
	ctx   context.Context // done when the node is to stop
	began time.Time
	host  agent.Host
	cfg   *config.Config
	// helpers is where the programs are that lite brings along, once unpacked.
	helpers bundle.Dir
	tools   netfilter.Tools
	ui      *progress
	// now is what lite status shows; it changes as the start proceeds.
	now      atomic.Pointer[func(context.Context) status.Node]
	releases []func()
}

// newBoot finds everything that can be found wrong, and touches nothing.
func newBoot(role config.Role, flags *pflag.FlagSet) (*boot, error) {
	b := &boot{began: time.Now()}
	debug.SetGCPercent(startGC)
	var release func()
	b.ctx, release = signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	b.releases = append(b.releases, release)
	var err error
	if b.host, err = agent.Inspect(); err != nil {
		return nil, err
	}
	if b.cfg, err = config.Load(role, flags, os.Environ()); err != nil {
		return nil, err
	}
	if err := check(b.cfg); err != nil {
		return nil, err
	}
	if err := b.chooseTools(); err != nil {
		return nil, err
	}
	b.ui = newProgress(os.Stderr, b.cfg.LogFormat)
	log.Bridge(log.New(b.ui, b.ui.logLevel(b.cfg.LogLevel), b.cfg.LogFormat))
	return b, nil
}

// stop ends what newBoot and serveStatus began.
func (b *boot) stop() {
	for _, release := range b.releases {
		release()
	}
}

// claim makes the data directory this process's own.
func (b *boot) claim() (io.Closer, error) {
	claim, err := server.Claim(b.cfg.DataDir, version.Version())
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("PATH", b.tools.Path(b.helpers, os.Getenv("PATH"))); err != nil {
		claim.Close()
		return nil, fmt.Errorf("set PATH: %w", err)
	}
	slog.Info("Starting lite", "version", version.Version(), "role", b.cfg.Role, "node", b.cfg.NodeName, "address", b.cfg.NodeIP[0], "data-dir", b.cfg.DataDir)
	slog.Info("Packet filter", "nft", b.tools.NFT, "iptables", b.tools.IPTables)
	return claim, nil
}

// self is what lite status shows of a node whose components are not made yet.
func (b *boot) self(components ...status.Component) status.Node {
	return status.Node{
		Role: string(b.cfg.Role), Name: b.cfg.NodeName, Version: version.Version(), PID: os.Getpid(), Since: b.began, Components: components, Netfilter: &b.tools,
	}
}

// show changes what lite status shows.
func (b *boot) show(now func(context.Context) status.Node) { b.now.Store(&now) }

// serveStatus answers lite status, until after the last component has stopped.
func (b *boot) serveStatus() error {
	b.show(func(context.Context) status.Node { return b.self() })
	serving, release := context.WithCancel(context.WithoutCancel(b.ctx))
	b.releases = append(b.releases, release)
	return status.Serve(serving, status.Socket, func(ctx context.Context) status.Node { return (*b.now.Load())(ctx) })
}

// run is the life of the node from its first component to its last. add, if not
// nil, adds to what lite status shows; next is what a person may do once the
// node is ready.
func (b *boot) run(g *component.Group, add func(*status.Node), next string) error {
	b.show(func(ctx context.Context) status.Node {
		n := status.Of(ctx, b.self(), g)
		if add != nil {
			add(&n)
		}
		return n
	})
	b.ui.begin(g)
	go func() {
		if b.ui.awaitReady(b.ctx) {
			b.ui.ready(b.cfg, time.Since(b.began), next)
			rest(b.ctx)
		}
	}()
	context.AfterFunc(b.ctx, func() {
		log.ShowUpstream(false)
		b.ui.stopping()
	})
	err := runGroup(b.ctx, g)
	b.ui.end(err)
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
		func() error { return checkRole(cfg) },
		func() error { return checkWatches(cfg.Role) },
		func() error { return agent.CheckDisk(cfg.DataDir) },
		func() error { return containerd.CheckRegistries(cfg.PrivateRegistry) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func checkWatches(role config.Role) error {
	if role == config.Server {
		return agent.CheckWatches(agent.ServerWatches)
	}
	return agent.CheckWatches(agent.Watches)
}

// checkRole refuses what does not go with what the data directory was used for.
func checkRole(cfg *config.Config) error {
	if cfg.Role == config.Server {
		return server.CheckRanges(cfg)
	}
	if server.Used(cfg.DataDir) {
		return fmt.Errorf("data-dir %s holds a server; start it with `lite server`, or choose another --data-dir for the agent", cfg.DataDir)
	}
	return nil
}

// chooseTools decides which iptables and nft the node runs, so that its parts
// can be told.
func (b *boot) chooseTools() (err error) {
	if b.helpers, err = bundle.At(b.cfg.DataDir); err != nil {
		return err
	}
	b.tools = netfilter.Choose(b.ctx, b.helpers, b.cfg.PreferBundledBin)
	b.host.NFTables = b.tools.NFTables()
	return nil
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
