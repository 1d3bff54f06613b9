package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/helpers"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/host/watch"
	"lite.io/lite/pkg/install/notify"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/install/uninstall"
	"lite.io/lite/pkg/install/upgrade"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/pki/expiry"
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
	helpers layout.Helpers
	tools   netfilter.Tools
	ui      *progress
	// environment is what the process was started with.
	environment []string
	// before is how the machine is, for an uninstall to bring back.
	before *uninstall.Before
	// manager is the service manager that has started the process, if any has.
	manager *notify.Manager
	// now is what lite status shows; it changes as the start proceeds.
	now atomic.Pointer[func(context.Context) status.Node]
	// group is the node's parts, once they are made.
	group    atomic.Pointer[component.Group]
	releases []func()
	// paused says, once ctx is done, whether that was an upgrade.
	paused <-chan bool
}

// newBoot finds everything that can be found wrong, and touches nothing; but that
// modules of the kernel were loaded is written down.
func newBoot(role config.Role, flags *pflag.FlagSet) (*boot, error) {
	b := &boot{began: time.Now(), environment: os.Environ()}
	// Sockets are closed to others when they are made, and not a moment later. A stricter
	// one would close to pods what they are to read: directories on the way to their files,
	// their cgroups and their resolv.conf.
	syscall.Umask(0o022)
	if err := withoutCore(); err != nil {
		return nil, err
	}
	debug.SetGCPercent(startGC)
	series.Divide()
	var err error
	if b.manager, err = findManager(); err != nil {
		return nil, err
	}
	var release func()
	b.ctx, release = signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	b.releases = append(b.releases, release)
	b.before = uninstall.Look(layout.Default().Run)
	if err := b.inspect(role, flags); err != nil {
		if b.before.Changed() {
			err = errors.Join(err, b.before.Keep(""))
		}
		return nil, err
	}
	b.paused = whenDone(b.ctx, func() bool { return upgrade.UnderWay(b.cfg.DataDir) })
	if !b.cfg.NamesNodeIP() {
		b.host.Addresses = func() ([]netip.Addr, error) { return addressesNow(role, flags) }
	}
	return b, nil
}

// withoutCore keeps the process, which holds the cluster's keys and its Secrets, from
// leaving its memory in a file when it dies, whoever has started it. The hard limit
// stays: what runs in pods may raise its own.
func withoutCore() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("read the limit for core files: %w", err)
	}
	limit.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("disable core files: %w", err)
	}
	return nil
}

// whenDone answers a question at the moment when ctx is done.
func whenDone(ctx context.Context, ask func() bool) <-chan bool {
	answer := make(chan bool, 1)
	context.AfterFunc(ctx, func() { answer <- ask() })
	return answer
}

// addressesNow is the addresses that a node which starts now would have, or why
// it would not start with them.
func addressesNow(role config.Role, flags *pflag.FlagSet) ([]netip.Addr, error) {
	cfg, err := config.Load(role, flags, os.Environ())
	if err != nil || cfg.Standby {
		return nil, err
	}
	return cfg.NodeIP, cfg.CheckNetworks()
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
	b.ui = newProgress(os.Stderr, b.cfg.LogFormat, b.manager.Status)
	log.Bridge(log.New(b.ui, b.ui.logLevel(b.cfg.LogLevel), b.cfg.LogFormat))
	if err := b.settleUpgrade(); err != nil {
		return err
	}
	if err := check.Start(b.cfg); err != nil {
		return err
	}
	return b.chooseTools()
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
	path := b.tools.Path(b.helpers, os.Getenv("PATH"))
	local, _ := net.InterfaceAddrs() // without it nothing is added
	if err := errors.Join(os.Setenv("PATH", path), os.Setenv("NO_PROXY", noProxy(b.cfg, os.Getenv, local)), b.before.Keep(b.cfg.DataDir), ownTemp(b.cfg.Layout().Run.Temporary()), b.stand()); err != nil {
		claim.Close()
		return nil, err
	}
	if err := service.CloseUnit(); err != nil {
		slog.Warn("All users of the machine can read the service file", "err", err)
	}
	slog.Info("Starting lite", "version", version.Version(), "role", b.cfg.Role, "node", b.cfg.NodeName, "address", b.cfg.NodeIP[0], "data-dir", b.cfg.DataDir)
	slog.Info("Packet filter", "nft", b.tools.NFT, "iptables", b.tools.IPTables)
	b.endLost()
	return claim, nil
}

// ownTemp gives the process and what it starts a directory for temporary files. Whatever
// TMPDIR and XDG_RUNTIME_DIR, which containerd prefers, named may not be there: pods with
// users of their own did not start, and all parts were ready.
func ownTemp(dir string) error {
	return errors.Join(agent.MakeTemp(dir), os.Setenv("TMPDIR", dir), os.Unsetenv("XDG_RUNTIME_DIR"))
}

// lostGrace is how long containers of which all but they themselves has been removed may take
// to end: the start waits for it.
const lostGrace = 10 * time.Second

// endLost ends what runs on of pods that will be made anew.
func (b *boot) endLost() {
	if b.cfg.ContainerRuntimeEndpoint != "" {
		return // another containerd knows what it has
	}
	at := b.cfg.Layout()
	n, err := uninstall.EndLost(at.Data.Agent().Containerd().Root(), at.Run, lostGrace)
	if n > 0 {
		slog.Warn("Stopped containers whose state somebody has removed; their pods are recreated", "containers", n, "directory", at.Run)
	}
	if err != nil {
		slog.Warn("Cannot stop a container", "err", err)
	}
}

// stand gives the machine the node's addresses if it has none of its own.
func (b *boot) stand() error {
	if !b.cfg.Standby {
		return watch.Stand(nil)
	}
	slog.Warn("This machine has no network: the node starts alone, and restarts when there is a network")
	return watch.Stand(b.cfg.NodeIP)
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
	if err := status.Serve(serving, b.cfg.Layout().Run.Socket(), func(ctx context.Context) status.Node { return (*b.now.Load())(ctx) }, b.settings); err != nil {
		return err
	}
	go b.manager.Watch(serving, alive)
	return nil
}

// settings is what the node goes by.
func (b *boot) settings() (status.Settings, error) {
	s := status.Settings{Role: string(b.cfg.Role), Name: b.cfg.NodeName, Version: version.Version(), DataDir: b.cfg.DataDir, Kubeconfig: b.cfg.WriteKubeconfig}
	g := b.group.Load()
	if g == nil {
		return s, nil
	}
	var err error
	s.Components, err = g.Settings()
	return s, err
}

// alive is what the watchdog's answers depend on: that goroutines still run and the
// process still takes a connection and answers it. A process that is stopped or
// that spins in the kernel fails it, and so does one whose runtime hangs. How the
// components do is left out on purpose. A slow disk, an API that is busy, a network
// that is gone or a Corefile with a mistake are not healed by a restart, which
// would take the working parts down with the others.
func alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return status.Alive(ctx, layout.Default().Run.Socket())
}

// findManager finds the service manager and hides it from all that runs in this
// process or is started by it: the kubelet (1.37) says READY once it runs, and
// answers the watchdog by its own measure; the API server (0.36) says READY too.
func findManager() (*notify.Manager, error) {
	m, err := notify.Find(os.Getenv, os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("reach the service manager at NOTIFY_SOCKET: %w", err)
	}
	for _, name := range notify.Variables {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// run is the life of the node from its first component to its last. add, if not
// nil, adds to what lite status shows; next is what a person may do once the
// node is ready.
func (b *boot) run(g *component.Group, add func(*status.Node), next string) error {
	b.group.Store(g)
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
			b.manager.Ready()
			b.ui.ready(b.cfg, time.Since(b.began), next)
			if err := b.before.Ready(); err != nil {
				slog.Warn("An uninstall will not know which kernel settings lite changed", "err", err)
			}
			rest(b.ctx)
		}
	}()
	// A node that starts anew does not stop: systemd would kill it when the time to
	// stop is over.
	keepOn := context.AfterFunc(b.ctx, func() {
		log.ShowUpstream(false)
		b.manager.Stopping()
		b.ui.stopping()
	})
	defer keepOn()
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
	var changed *watch.Changed
	if errors.As(err, &changed) || b.lostAddress(err, &changed) {
		var stuck *component.StuckError
		errors.As(err, &stuck)
		if b.ctx.Err() == nil {
			if stuck != nil {
				slog.Warn("Not all components have stopped", "err", stuck)
			}
			b.ui.again(changed)
			return errAgain
		}
		err = nil // it was told to stop meanwhile
		if stuck != nil {
			err = stuck
		}
	}
	b.ui.end(err)
	if err != nil {
		return &saidError{err}
	}
	return nil
}

// lostAddress is whether a part has failed while the node's address was gone, as
// when that changes during the start: then the next start is at another address, or
// alone.
func (b *boot) lostAddress(err error, changed **watch.Changed) bool {
	if err == nil || b.cfg.NamesNodeIP() || b.cfg.Standby {
		return false
	}
	if gone, _ := watch.Gone(b.cfg.NodeIP); !gone {
		return false
	}
	*changed = &watch.Changed{What: fmt.Sprintf("the node's address %s is gone; %v", b.cfg.NodeIP[0], err)}
	return true
}

// addCertificates shows which certificates end.
func addCertificates(w *expiry.Watch) func(*status.Node) {
	return func(n *status.Node) {
		now := time.Now()
		for _, c := range w.Due(now) {
			n.Certificates = append(n.Certificates, status.Certificate{
				Path: c.Path, Subject: c.Subject.String(), State: c.State(now), Until: c.NotAfter, Remedy: c.Remedy(now),
			})
		}
	}
}

// errAgain ends a node that is to start anew, in the same process.
var errAgain = errors.New("restart")

// settleUpgrade does what an interrupted upgrade has left to do. It does not
// return if another program is in the place of this one afterwards.
func (b *boot) settleUpgrade() error {
	program, err := upgrade.Settle(b.cfg.DataDir)
	if err != nil || program == "" {
		return err
	}
	return upgrade.Become(program, b.environment)
}

// relaunch is the end of a node whose data directory is free again: an upgrade
// that has stopped it may want it to go on as another program.
func (b *boot) relaunch(err error) error {
	end := upgrade.Failed
	switch {
	case b.ctx.Err() != nil:
		end = upgrade.Asked
		if <-b.paused {
			end = upgrade.Paused
		}
		if errors.Is(err, errAgain) {
			err = nil // it was told to stop in the last moment
		}
	case errors.Is(err, errAgain):
		end = upgrade.Again
	}
	b.stop() // signals end the process again
	if again := upgrade.Relaunch(b.cfg.DataDir, end, b.environment); again != nil {
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

// chooseTools decides which iptables and nft the node runs, so that its parts
// can be told.
func (b *boot) chooseTools() (err error) {
	if b.helpers, err = helpers.At(b.cfg.DataDir); err != nil {
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
	memory := governor{percent: startGC, giveBack: debug.FreeOSMemory}
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
