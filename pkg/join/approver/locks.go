package approver

import "sync"

// locks has a lock for every name that somebody holds, and for no other.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	sync.Mutex
	wanted int // by how many
}

// hold waits until nobody else holds the name.
func (l *locks) hold(name string) (release func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	mine := l.held[name]
	if mine == nil {
		mine = &lock{}
		l.held[name] = mine
	}
	mine.wanted++
	l.mu.Unlock()
	mine.Lock()
	return func() {
		mine.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if mine.wanted--; mine.wanted == 0 {
			delete(l.held, name)
		}
	}
}
