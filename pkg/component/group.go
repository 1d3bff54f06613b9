package component

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// DefaultStopTimeout is under the 30 s that systemd and Kubernetes
	// commonly allow a process to end in, so that what is stuck can still be
	// named in the log.
	DefaultStopTimeout = 25 * time.Second

	// readyEvery is how often a starting component is asked whether it is
	// ready. Checks are cheap by contract, and the first pod waits for each.
	readyEvery = 20 * time.Millisecond

	// readyTimeout bounds one check, so that a hung one is asked again.
	readyTimeout = 5 * time.Second
)

// Group is the components of one node. Add them all, then Run once.
type Group struct {
	// StopTimeout bounds how long Run waits for components to return once it
	// has been told to stop. Zero means DefaultStopTimeout.
	StopTimeout time.Duration

	// OnChange, if set, is called for every change of a component's state,
	// from that component's goroutine: it must be quick and safe for
	// concurrent use.
	OnChange func(Status)

	// Veto, if set, is asked before a component is: an error is why it is not ready,
	// whatever it says itself.
	Veto func(component string) error

	nodes []*Node
	last  *Node // see AddLast
}

// Add puts c into the group. It will be started when all of needs are ready
// and told to stop only after everything that needs it has ended. A Node must
// exist before it can be needed, so there can be no cycle. A nil need is
// ignored, so that a component that was switched off can be named all the same.
func (g *Group) Add(c Component, needs ...*Node) *Node {
	needs = slices.DeleteFunc(slices.Clone(needs), func(n *Node) bool { return n == nil })
	n := &Node{group: g, component: c, needs: needs, ready: make(chan struct{}), ended: make(chan struct{})}
	n.status.set(Waiting, nil)
	for _, need := range needs {
		need.neededBy = append(need.neededBy, n)
	}
	g.nodes = append(g.nodes, n)
	return n
}

// AddLast is Add for the one component that is told to stop only after all others
// have ended, though none of them waits for it when it starts.
func (g *Group) AddLast(c Component) *Node {
	g.last = g.Add(c)
	return g.last
}

// Run starts the components in dependency order and works until ctx is done or
// a component fails; then it stops them in reverse order. It returns the first
// failure, with the component's name; nil if it was only told to stop and all
// components ended without an error; and an error that names what is stuck if
// the stop took longer than StopTimeout.
func (g *Group) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	for _, n := range g.nodes {
		if g.last != nil && n != g.last {
			g.last.neededBy = append(g.last.neededBy, n)
		}
	}
	for _, n := range g.nodes {
		go g.supervise(ctx, n, fail)
	}
	<-ctx.Done()

	var failure error
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		failure = cause
	}
	return errors.Join(failure, g.awaitEnd(failure))
}

// StuckError is that components did not end in time. Run joins it to a failure that
// came before.
type StuckError struct {
	After      time.Duration
	Components []string
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("stop took over %s: %s still running", e.After, strings.Join(e.Components, ", "))
}

// awaitEnd waits for every component to end. Errors met while stopping matter
// only if nothing failed before.
func (g *Group) awaitEnd(failure error) error {
	timeout := g.StopTimeout
	if timeout == 0 {
		timeout = DefaultStopTimeout
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()

	for _, n := range g.nodes {
		select {
		case <-n.ended:
		case <-deadline.C:
			return &StuckError{timeout, g.running()}
		}
	}
	if failure != nil {
		return nil
	}
	for _, n := range g.nodes {
		if err := n.status.get().Err; err != nil {
			return fmt.Errorf("stop %s: %w", n.component.Name(), err)
		}
	}
	return nil
}

// supervise takes one component through its life.
func (g *Group) supervise(ctx context.Context, n *Node, fail context.CancelCauseFunc) {
	defer close(n.ended)

	for _, need := range n.needs {
		select {
		case <-need.ready:
		case <-ctx.Done():
			g.change(n, Stopped, nil)
			return
		}
	}
	if ctx.Err() != nil {
		g.change(n, Stopped, nil)
		return
	}
	g.change(n, Starting, nil)

	// Not derived from ctx: a component may stop only after its dependents.
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	returned := make(chan error, 1)
	go func() { returned <- n.component.Run(own) }()

	if err, died := g.work(ctx, n, returned); died {
		if err == nil {
			err = errors.New("ended by itself")
		}
		g.change(n, Failed, err)
		fail(fmt.Errorf("%s: %w", n.component.Name(), err))
		n.awaitDependents() // what this one needs must outlive those that need it
		return
	}

	n.awaitDependents()
	g.change(n, Stopping, nil)
	stop()
	err := <-returned
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	g.change(n, Stopped, err)
}

func (n *Node) awaitDependents() {
	for _, dependent := range n.neededBy {
		<-dependent.ended
	}
}

// work waits for the component to get ready and then for it to die or for the
// group to stop, whichever is first.
func (g *Group) work(ctx context.Context, n *Node, returned <-chan error) (err error, died bool) {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()

	for waiting := true; waiting; {
		select {
		case err := <-returned:
			return err, true
		case <-ctx.Done():
			return nil, false
		case <-tick.C:
		}
		err := n.check(ctx)
		waiting = err != nil
		if err != nil && ctx.Err() == nil {
			g.change(n, Starting, err)
		}
	}
	g.change(n, Ready, nil)
	close(n.ready)
	tick.Stop()

	select {
	case err := <-returned:
		return err, true
	case <-ctx.Done():
		return nil, false
	}
}

// check asks the component once whether it is ready.
func (n *Node) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if n.group.Veto != nil {
		if err := n.group.Veto(n.component.Name()); err != nil {
			return err
		}
	}
	return n.component.Ready(ctx)
}

func (g *Group) change(n *Node, s State, err error) {
	if n.status.set(s, err) && g.OnChange != nil {
		g.OnChange(n.Status())
	}
}

// running names the components that have not ended yet, those told to stop
// first: they are what the others wait for.
func (g *Group) running() []string {
	var stopping, others []string
	for _, n := range g.nodes {
		switch n.status.get().State {
		case Stopped, Failed:
		case Stopping:
			stopping = append(stopping, n.component.Name())
		default:
			others = append(others, n.component.Name())
		}
	}
	return append(stopping, others...)
}
