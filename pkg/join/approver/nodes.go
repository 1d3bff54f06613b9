package approver

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"lite.io/lite/pkg/kube"
)

// nodes is what is known of the Nodes, by a watch: their addresses, for serving
// certificates, and which of them live or have been deleted, for the census.
type nodes struct {
	mu     sync.Mutex
	byName map[string]known
	gone   map[string]time.Time // when it was deleted, while the census has not handled it
	listed func()
	// changed is called when one has become ready, has come or gone.
	changed func()
}

// known is what is kept of a Node.
type known struct {
	addresses []san
	held      []san // of the addresses, those that no other node gets a certificate for
	serves    []san // what its API server is called
	ready     bool
	server    bool // an API server runs there, whose certificates no approver gave
}

// mostOpen is of how many addresses a node keeps others before anybody knows whether they
// are its own: as many as are tried. A node that likes not to be ready could keep all of a
// network.
const mostOpen = 8

func knownOf(n *v1.Node) known {
	k, open := known{}, 0
	proven, decided := kube.Proven(n)
	for _, a := range n.Status.Addresses {
		s, ok := reported(a)
		if !ok {
			continue
		}
		k.addresses = append(k.addresses, s)
		switch {
		case a.Type != v1.NodeInternalIP, slices.ContainsFunc(proven, func(ip netip.Addr) bool { return ip.String() == s.text }):
			k.held = append(k.held, s)
		case !decided && open < mostOpen:
			open++
			k.held = append(k.held, s)
		}
	}
	for _, c := range n.Status.Conditions {
		k.ready = k.ready || c.Type == v1.NodeReady && c.Status == v1.ConditionTrue
	}
	_, k.server = n.Labels[kube.ServerLabel]
	for _, name := range canonical(kube.APINames(n)) {
		_, err := netip.ParseAddr(name)
		k.serves = append(k.serves, san{name, err == nil})
	}
	k.held = append(k.held, k.serves...)
	return k
}

// handler learns from the watch.
func (s *nodes) handler() kube.Handler[*v1.Node] {
	return kube.Handler[*v1.Node]{Listed: s.listed, Changed: func(c kube.Change[*v1.Node]) {
		// One that was deleted and made again while the watch was interrupted is another.
		if c.Gone || !c.Came && c.Before.UID != c.After.UID {
			s.lose(c.Key.Name)
		}
		if !c.Gone {
			s.learn(c.After)
		}
	}}
}

func (s *nodes) learn(n *v1.Node) {
	k := knownOf(n)
	s.mu.Lock()
	old, was := s.byName[n.Name]
	s.byName[n.Name] = k
	s.mu.Unlock()
	if !was || k.ready && !old.ready {
		s.changed()
	}
}

// lose forgets a node, whether its end was seen or found out by a list.
func (s *nodes) lose(name string) {
	s.mu.Lock()
	if !s.byName[name].server {
		s.gone[name] = time.Now()
	}
	delete(s.byName, name)
	s.mu.Unlock()
	s.changed()
}

// get returns what is known of a node.
func (s *nodes) get(name string) (known, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.byName[name]
	return k, ok
}

// deleted returns the nodes that were deleted, and when, that the census has not handled.
func (s *nodes) deleted() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.gone)
}

// seenTo strikes a deleted node off.
func (s *nodes) seenTo(name string, when time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone[name].Equal(when) {
		delete(s.gone, name)
	}
}

// serve reports whether a server is called so.
func (s *nodes) serve(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.byName {
		if slices.Contains(k.serves, san{text: name}) {
			return true
		}
	}
	return false
}

// sortOut returns what the node has, and who has what of the others.
func (s *nodes) sortOut(name string) (own map[san]bool, others map[san]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, others = map[san]bool{{text: name}: true}, map[san]string{}
	for other, k := range s.byName {
		if own := (san{text: other}); other != name {
			others[own] = max(others[own], other)
		}
		if other == name {
			for _, a := range k.addresses {
				own[a] = true
			}
			continue
		}
		for _, a := range k.held {
			others[a] = max(others[a], other) // the same one each time, if several say so
		}
	}
	return own, others
}
