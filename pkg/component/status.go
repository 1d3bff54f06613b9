package component

import (
	"context"
	"sync"
	"time"
)

// State is where a component is in its life.
type State string

// The states, in the order a component goes through them.
const (
	Waiting  State = "waiting"  // for what it needs
	Starting State = "starting" // Run runs, Ready fails
	Ready    State = "ready"
	Stopping State = "stopping" // told to stop, Run has not returned
	Stopped  State = "stopped"  // Run returned after it had been told to, or was never called
	Failed   State = "failed"   // Run returned by itself, or what was ready no longer is
)

// Status is a snapshot of one component.
type Status struct {
	Name    string
	State   State
	Since   time.Time     // when it entered State
	Took    time.Duration // from Starting to Ready; zero if it is not there yet
	Started bool          // Run has been called
	Needs   []string
	Err     error  // why it is not ready, or what it failed with
	Note    string // what a ready component tells about itself, see Noter
}

// status is the mutable part of a Node.
type status struct {
	mu      sync.Mutex
	state   State
	since   time.Time
	started time.Time
	took    time.Duration
	err     error
}

// set records a state and its reason; it reports whether the state is another
// than before (a new reason alone is not a change worth telling).
func (s *status) set(state State, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	if s.state == state {
		return false
	}
	s.state, s.since = state, time.Now()
	switch state {
	case Starting:
		s.started = s.since
	case Ready:
		s.took = s.since.Sub(s.started)
	}
	return true
}

func (s *status) get() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{State: s.state, Since: s.since, Took: s.took, Started: !s.started.IsZero(), Err: s.err}
}

// Status returns the component's last known status, without asking it.
func (n *Node) Status() Status {
	s := n.status.get()
	s.Name = n.component.Name()
	for _, need := range n.needs {
		s.Needs = append(s.Needs, need.component.Name())
	}
	return s
}

// Status asks every component that has been ready whether it still is, all at
// once, and returns the answers in the order of Add. A component that is no
// longer ready is reported as Failed with the reason.
func (g *Group) Status(ctx context.Context) []Status {
	all := make([]Status, len(g.nodes))
	var wg sync.WaitGroup
	for i, n := range g.nodes {
		wg.Go(func() {
			all[i] = n.Status()
			if all[i].State != Ready {
				return
			}
			if err := n.check(ctx); err != nil {
				all[i].State, all[i].Err = Failed, err
				return
			}
			if c, ok := n.component.(Noter); ok {
				all[i].Note = c.Note()
			}
		})
	}
	wg.Wait()
	return all
}

// Known returns the last known status of every component in the order of Add,
// without asking them.
func (g *Group) Known() []Status {
	all := make([]Status, len(g.nodes))
	for i, n := range g.nodes {
		all[i] = n.Status()
	}
	return all
}
