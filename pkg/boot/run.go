package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/host/watch"
	"lite.io/lite/pkg/install/upgrade"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/log"
	"lite.io/lite/pkg/pki/expiry"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

// reporting is a node of which `lite status` tells, from before its first component until
// after its last.
type reporting struct {
	*claimed
	// now is what lite status shows; it changes as the start proceeds.
	now atomic.Pointer[func(context.Context) status.Node]
	// group is the node's parts, once they are made.
	group atomic.Pointer[component.Group]
}

// report answers lite status, until release.
func (c *claimed) report() (*reporting, error) {
	r := &reporting{claimed: c}
	r.show(func(context.Context) status.Node { return r.self() })
	serving, release := context.WithCancel(context.WithoutCancel(r.ctx))
	r.releases = append(r.releases, release)
	if err := status.Serve(serving, r.cfg.Layout().Run.Socket(), func(ctx context.Context) status.Node { return (*r.now.Load())(ctx) },
		r.settings); err != nil {
		return nil, err
	}
	go r.manager.Watch(serving, alive)
	return r, nil
}

// show changes what lite status shows.
func (r *reporting) show(now func(context.Context) status.Node) { r.now.Store(&now) }

// self is what lite status shows of a node whose components are not made yet.
func (r *reporting) self(components ...status.Component) status.Node {
	return status.Node{
		Role: string(r.cfg.Role), Name: r.cfg.NodeName, Version: version.Version(), PID: os.Getpid(), Since: r.began, Components: components,
		Netfilter: &r.tools,
	}
}

// settings is what the node goes by.
func (r *reporting) settings() (status.Settings, error) {
	s := status.Settings{Role: string(r.cfg.Role), Name: r.cfg.NodeName, Version: version.Version(), DataDir: r.cfg.DataDir,
		Kubeconfig: r.cfg.WriteKubeconfig}
	g := r.group.Load()
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

// run is the life of the node from its first component to its last. add, if not
// nil, adds to what lite status shows; next is what a person may do once the
// node is ready.
func (r *reporting) run(g *component.Group, add func(context.Context, *status.Node), next string) error {
	r.group.Store(g)
	r.show(func(ctx context.Context) status.Node {
		n := status.Of(ctx, r.self(), g)
		if add != nil {
			add(ctx, &n)
		}
		return n
	})
	r.ui.begin(g)
	go r.whenReady(next)
	// A node that restarts does not stop: systemd would kill it when the time to
	// stop is over.
	keepOn := context.AfterFunc(r.ctx, func() {
		log.ShowUpstream(false)
		r.manager.Stopping()
		r.ui.stopping()
	})
	defer keepOn()
	err := r.runGroup(g)
	if changed, again := r.changed(err); changed != nil {
		var stuck *component.StuckError
		errors.As(err, &stuck)
		if again {
			if stuck != nil {
				slog.Warn("Not all components have stopped", "err", stuck)
			}
			r.ui.again(changed)
			return errAgain
		}
		err = nil // it was told to stop meanwhile
		if stuck != nil {
			err = stuck
		}
	}
	r.ui.end(err)
	if err != nil {
		return log.Shown(err)
	}
	return nil
}

// whenReady tells everybody that the node is ready, and ends the start.
func (r *reporting) whenReady(next string) {
	if !r.ui.awaitReady(r.ctx) {
		return
	}
	r.manager.Ready()
	r.ui.ready(r.cfg, time.Since(r.began), next)
	if err := r.before.Ready(); err != nil {
		slog.Warn("An uninstall will not know which kernel settings lite changed", "err", err)
	}
	rest(r.ctx)
}

// runGroup runs the components until the node is to stop, one fails, this version has to
// go, or upstream wants to end the process.
func (r *reporting) runGroup(g *component.Group) error {
	running, fail := context.WithCancelCause(r.ctx)
	defer fail(nil)
	go func() {
		if err := upgrade.Watch(running, r.cfg); err != nil {
			fail(err)
		}
	}()
	go func() {
		select {
		case err := <-log.GaveUp():
			fail(err)
		case <-running.Done():
		}
	}()
	err := g.Run(running)
	if err == nil && r.ctx.Err() == nil {
		err = context.Cause(running)
	}
	return err
}

// changed is what has changed of the machine, if that is why the components have ended, and
// whether the node restarts for it.
func (r *reporting) changed(err error) (changed *watch.Changed, again bool) {
	if !errors.As(err, &changed) {
		changed = r.lostAddress(err)
	}
	return changed, r.ctx.Err() == nil
}

// lostAddress is not nil if a part has failed while the node's address was gone, as
// when that changes during the start: then the next start is at another address, or
// alone.
func (r *reporting) lostAddress(err error) *watch.Changed {
	if err == nil || r.cfg.NamesNodeIP() || r.cfg.Standby {
		return nil
	}
	if gone, _ := watch.Gone(r.cfg.NodeIP); !gone {
		return nil
	}
	return &watch.Changed{What: fmt.Sprintf("the node's address %s is gone; %v", r.cfg.NodeIP[0], err)}
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
