package apiproxy

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"syscall"
	"time"
)

// State is what is known of a server's health.
type State string

// The states.
const (
	Unknown State = "unknown" // not asked yet
	Healthy State = "healthy"
	Failed  State = "failed"
)

// server is one API server. All of it is under the Balancer's lock.
type server struct {
	address string
	seed    bool
	learnt  bool
	// place is the position of a server among those of the same rank. It is random, so that
	// the agents of a cluster spread over its servers.
	place uint64

	state State
	since time.Time
	why   error
	// dead reports that the server did not answer when it was asked for its
	// health. One that refused a connection may still serve those that it has.
	dead  bool
	links map[*link]struct{}
}

// add makes a server known. The lock must be held, here and in all that
// follows up to mark, once Run runs.
func (b *Balancer) add(address string) *server {
	s := &server{address: address, place: rand.Uint64(), state: Unknown, since: time.Now(), links: map[*link]struct{}{}}
	b.servers[address] = s
	return s
}

// rank is how good a server is, 0 the best. A seed that answers is better than a learned
// server of unknown state: the servers' own addresses may be unreachable from here.
func (s *server) rank() int {
	rank := map[State]int{Healthy: 0, Unknown: 2, Failed: 4}[s.state]
	if !s.learnt {
		rank++
	}
	return rank
}

// order is all servers, the best first. Within a rank, the one in use comes first, to keep
// connections few.
func (b *Balancer) order() []*server {
	return slices.SortedFunc(maps.Values(b.servers), func(x, y *server) int {
		if c := cmp.Compare(x.rank(), y.rank()); c != 0 {
			return c
		}
		switch b.current {
		case x:
			return -1
		case y:
			return 1
		}
		return cmp.Compare(x.place, y.place)
	})
}

// settle makes the best server the one in use. Clients hold on to connections
// for hours, so those to dead servers are closed, but only when there is a
// better place to go: a server that is slow is still better than none.
func (b *Balancer) settle() {
	if best := b.order()[0]; best != b.current {
		b.current, b.usedSince = best, time.Now()
		slog.Info("Using an API server", "server", best.address)
	}
	if b.current.state != Healthy {
		return
	}
	for _, s := range b.servers {
		if s.dead {
			s.closeLinks()
		}
	}
}

func (s *server) closeLinks() {
	for l := range s.links {
		l.close()
	}
}

// set notes whether a server answers, and why not.
func (b *Balancer) set(s *server, why error) {
	was := s.state
	s.state, s.why = Healthy, why
	if why != nil {
		s.state = Failed
	}
	if was == s.state {
		return
	}
	s.since = time.Now()
	switch {
	case s.state == Failed:
		slog.Warn("An API server does not answer", "server", s.address, "reason", why)
	case was == Failed:
		slog.Info("An API server answers again", "server", s.address)
	}
}

// probed takes the answer to the question for a server's health.
func (b *Balancer) probed(s *server, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// It may have been removed while it was asked.
	if b.servers[s.address] != s || ofThisMachine(err) {
		return
	}
	s.dead = err != nil
	b.set(s, reason(err))
}

// refused notes that a server could not be connected to: the next connection
// does not try it first.
func (b *Balancer) refused(s *server, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.servers[s.address] != s || ofThisMachine(err) {
		return
	}
	b.set(s, reason(err))
	b.settle()
	b.checkSoon()
}

// checkSoon makes watchHealth check soon.
func (b *Balancer) checkSoon() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// learnt is the addresses of the servers that the cluster named last.
func (b *Balancer) learnt() (addresses []string) {
	for _, s := range b.servers {
		if s.learnt {
			addresses = append(addresses, s.address)
		}
	}
	slices.Sort(addresses)
	return addresses
}

// replace makes addresses, at least one, the learned servers. It reports whether that
// changes anything. It closes connections to former servers, so that clients continue with
// another.
func (b *Balancer) replace(addresses []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Equal(addresses, b.learnt()) {
		return false
	}
	for _, s := range b.servers {
		if !s.learnt || slices.Contains(addresses, s.address) {
			continue
		}
		s.learnt = false
		s.closeLinks()
		if !s.seed {
			delete(b.servers, s.address)
		}
	}
	for _, address := range addresses {
		s := b.servers[address]
		if s == nil {
			s = b.add(address)
		}
		s.learnt = true
	}
	b.settle()
	b.checkSoon()
	return true
}

// ofThisMachine is whether an error is this machine's, and not about the server.
func ofThisMachine(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL,
	}, func(own error) bool { return errors.Is(err, own) })
}

// reason is the part of an error that does not repeat which server it is about.
func reason(err error) error {
	var name *net.DNSError
	var timeout net.Error
	var call *os.SyscallError
	var op *net.OpError
	var request *url.Error
	switch {
	case errors.As(err, &name):
		return name
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	case errors.Is(err, io.EOF):
		return errors.New("closed the connection without an answer")
	case errors.As(err, &call):
		return call.Err
	case errors.As(err, &op):
		return op.Err
	case errors.As(err, &request):
		return request.Err
	}
	return err
}
