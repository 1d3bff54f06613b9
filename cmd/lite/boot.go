package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/bundle"
	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/machine"
	"lite.io/lite/pkg/server"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/uninstall"
	"lite.io/lite/pkg/upgrade"
	"lite.io/lite/pkg/version"
)

// boot is the start of a node of either role.
type boot struct {
	ctx   context.Context // done when the node is to stop
	began time.Time
	host  agent.Host
	cfg   *config.Config
	ui    *progress
	// before is how the machine is, for an uninstall to bring back.
	before uninstall.Before
	// now is what lite status shows; it changes as the start proceeds.
	now      atomic.Pointer[func(context.Context) status.Node]
	releases []func()
}

// newBoot finds everything that can be found wrong, and touches nothing; but that
// modules of the kernel were loaded is written down.
func newBoot(role config.Role, flags *pflag.FlagSet) (*boot, error) {
	b := &boot{began: time.Now()}
	debug.SetGCPercent(startGC)
	var release func()
	b.ctx, release = signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	b.releases = append(b.releases, release)
	b.before = uninstall.Look(agent.StateDir)
	if err := b.inspect(role, flags); err != nil {
		if b.before.Changed() {
			err = errors.Join(err, b.before.Keep(""))
		}
		return nil, err
	}
	if !b.cfg.NamesNodeIP() {
		b.host.Addresses = func() []netip.Addr { return addressesNow(role, flags) }
	}
	return b, nil
}

// addressesNow is the addresses that a node which starts now would have.
func addressesNow(role config.Role, flags *pflag.FlagSet) []netip.Addr {
	cfg, err := config.Load(role, flags, os.Environ())
	if err != nil || cfg.Standby {
		return nil
	}
	return cfg.NodeIP
}

// inspect looks at the machine and at what was asked for, when an upgrade that was
// interrupted has come to its end.
func (b *boot) inspect(role config.Role, flags *pflag.FlagSet) (err error) {
	if b.host, err = agent.Inspect(); err != nil {
		return err
	}
	if b.cfg, err = config.Load(role, flags, os.Environ()); err != nil {
		return err
	}
	b.ui = newProgress(os.Stderr, b.cfg.LogFormat)
	log.Bridge(log.New(b.ui, b.ui.logLevel(b.cfg.LogLevel), b.cfg.LogFormat))
	if err := settleUpgrade(b.cfg.DataDir); err != nil {
		return err
	}
	return check.Start(b.cfg)
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
	if err := errors.Join(findHelpersFirst(b.cfg.DataDir), b.before.Keep(b.cfg.DataDir), b.stand()); err != nil {
		claim.Close()
		return nil, err
	}
	slog.Info("Starting lite", "version", version.Version(), "role", b.cfg.Role, "node", b.cfg.NodeName, "address", b.cfg.NodeIP[0], "data-dir", b.cfg.DataDir)
	return claim, nil
}

// stand gives the machine the node's addresses if it has none of its own.
func (b *boot) stand() error {
	if !b.cfg.Standby {
		return machine.Stand(nil)
	}
	slog.Warn("There is no network: the node starts alone, and anew when there is one")
	return machine.Stand(b.cfg.NodeIP)
}

// self is what lite status shows of a node whose components are not made yet.
func (b *boot) self(components ...status.Component) status.Node {
	return status.Node{
		Role: string(b.cfg.Role), Name: b.cfg.NodeName, Version: version.Version(), PID: os.Getpid(), Since: b.began, Components: components,
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
			if err := uninstall.NoteSettings(agent.StateDir); err != nil {
				slog.Warn("Uninstalling will not know which settings of the kernel are lite's", "err", err)
			}
			rest(b.ctx)
		}
	}()
	context.AfterFunc(b.ctx, func() {
		log.ShowUpstream(false)
		b.ui.stopping()
	})
	running, fail := context.WithCancelCause(b.ctx)
	defer fail(nil)
	go func() {
		if err := upgrade.Watch(running, b.cfg); err != nil {
			fail(err)
		}
	}()
	err := runGroup(running, g)
	if err == nil && b.ctx.Err() == nil {
		err = context.Cause(running) // this version has to go
	}
	var changed *machine.Changed
	if errors.As(err, &changed) {
		b.ui.again(changed)
		return errAgain
	}
	b.ui.end(err)
	if err != nil {
		return &saidError{err}
	}
	return nil
}

// errAgain ends a node that is to start anew, in the same process.
var errAgain = errors.New("start anew")

// settleUpgrade does what an interrupted upgrade has left to do. It does not
// return if another program is in the place of this one afterwards.
func settleUpgrade(dataDir string) error {
	program, err := upgrade.Settle(dataDir)
	if err != nil || program == "" {
		return err
	}
	return upgrade.Become(program)
}

// relaunch is the end of a node whose data directory is free again: an upgrade
// that has stopped it may want it to go on as another program.
func (b *boot) relaunch(err error) error {
	b.stop() // signals end the process again
	if again := upgrade.Relaunch(b.cfg.DataDir, err != nil && !errors.Is(err, errAgain)); again != nil {
		slog.Error("The upgrade cannot start lite again", "err", again)
	}
	return err
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
