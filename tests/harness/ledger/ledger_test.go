package ledger

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a store, with the fault that it is given.
type memory struct {
	mu       sync.Mutex
	objects  map[string]Answer
	revision int64
	fault    func(m *memory, key string, r Request) (Answer, error, bool)
}

func (m *memory) Do(_ context.Context, key string, r Request) (Answer, error) {
	time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	m.mu.Lock()
	answer, err, faulty := Answer{}, error(nil), false
	if m.fault != nil {
		answer, err, faulty = m.fault(m, key, r)
	}
	if !faulty {
		answer = m.do(key, r)
	}
	m.mu.Unlock()
	time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	return answer, err
}

func (m *memory) do(key string, r Request) Answer {
	o, there := m.objects[key]
	switch {
	case r.Kind == Create && there:
		return Answer{Outcome: Exists}
	case r.Kind != Create && !there:
		return Answer{Outcome: Missing}
	case r.Kind == Read:
		return o
	case r.Kind != Create && o.Revision != r.Revision:
		return Answer{Outcome: Conflict}
	}
	m.revision++
	if r.Kind == Delete {
		delete(m.objects, key)
		return Answer{Outcome: Done}
	}
	m.objects[key] = Answer{Outcome: Done, Value: r.Value, Revision: m.revision}
	return Answer{Outcome: Done, Revision: m.revision}
}

func (m *memory) List(context.Context) ([]Snapshot, error) {
	time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	return []Snapshot{{From: "memory", Objects: maps.Clone(m.objects)}}, nil
}

var errTimeout = errors.New("timeout")

// TestCheck lets stores do what they may not, and what they may: only the former is found.
func TestCheck(t *testing.T) {
	now := func(n int) bool { return rand.IntN(n) == 0 }
	for name, c := range map[string]struct {
		fault func(m *memory, key string, r Request) (Answer, error, bool)
		after func(m *memory) // done to the store before the check
		want  string          // "" = nothing is found
	}{
		"sound": {},
		"answers are lost": {fault: func(m *memory, key string, r Request) (Answer, error, bool) {
			if !now(10) {
				return Answer{}, nil, false
			}
			if now(2) {
				m.do(key, r)
			}
			return Answer{Outcome: Unknown}, errTimeout, true
		}},
		"requests are refused": {fault: func(*memory, string, Request) (Answer, error, bool) {
			return Answer{Outcome: Refused}, errTimeout, now(3)
		}},
		"acknowledges and forgets": {want: "no store without faults", fault: func(m *memory, key string, r Request) (Answer, error, bool) {
			if r.Kind != Update || m.objects[key].Revision != r.Revision || !now(100) {
				return Answer{}, nil, false
			}
			m.revision++
			return Answer{Outcome: Done, Revision: m.revision}, nil, true
		}},
		"refuses and does": {want: "no store without faults", fault: func(m *memory, key string, r Request) (Answer, error, bool) {
			if r.Kind != Update || !now(100) || m.do(key, r).Outcome != Done {
				return Answer{}, nil, false
			}
			return Answer{Outcome: Conflict}, nil, true
		}},
		"heeds no revision": {want: "no store without faults", fault: func(m *memory, key string, r Request) (Answer, error, bool) {
			if r.Kind == Update {
				r.Revision = m.objects[key].Revision
			}
			return m.do(key, r), nil, true
		}},
		"does it twice": {want: "two writes have one revision", fault: func(m *memory, _ string, r Request) (Answer, error, bool) {
			if r.Kind == Create && now(5) {
				m.revision--
			}
			return Answer{}, nil, false
		}},
		"loses an object": {want: "no store without faults", after: func(m *memory) {
			for key := range m.objects {
				delete(m.objects, key)
				return
			}
		}},
		"brings one back": {want: "no store without faults", after: func(m *memory) {
			for key := range m.objects {
				m.objects[key] = Answer{Outcome: Done, Value: key + ".1", Revision: 1}
			}
		}},
		"has a stranger": {want: "which nobody has written", after: func(m *memory) {
			m.objects["ledger-9999"] = Answer{Outcome: Done, Value: "x", Revision: 1}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{objects: map[string]Answer{}, fault: c.fault}
				l := Start(m)
				// Whoever checks in between finds what is under way.
				for range 30 {
					time.Sleep(2 * time.Second)
					if err := l.Check(t.Context()); err != nil && c.want == "" {
						t.Fatal(err)
					}
				}
				l.Stop()
				if c.after != nil {
					c.after(m)
				}
				err := l.Check(t.Context())
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v", err)
				}
				if n := l.Acknowledged(0); n < 100 {
					t.Errorf("%d writes were acknowledged", n)
				}
			})
		})
	}
}

// TestOutage measures the time without a write, and what stood in its way.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down bool
		m := &memory{objects: map[string]Answer{}, fault: func(*memory, string, Request) (Answer, error, bool) {
			return Answer{Outcome: Refused}, errTimeout, down
		}}
		l := Start(m)
		time.Sleep(10 * time.Second)
		m.mu.Lock()
		down = true
		m.mu.Unlock()
		before := l.Now()
		time.Sleep(7 * time.Second)
		if got := l.Outage(before).Round(time.Second); got != 7*time.Second {
			t.Errorf("while it is down: %s", got)
		}
		m.mu.Lock()
		down = false
		m.mu.Unlock()
		time.Sleep(5 * time.Second)
		l.Stop()
		if got := l.Outage(0).Round(time.Second); got != 7*time.Second {
			t.Errorf("afterwards: %s", got)
		}
		if got := l.Acknowledged(before); got < 100 || got > 5*Rate+10 {
			t.Errorf("%d writes were acknowledged within 5 s", got)
		}
		if got := l.Reasons(); len(got) != 1 || !strings.HasSuffix(got[0], "timeout") {
			t.Errorf("reasons: %v", got)
		}
	})
}
