package approver

// item is a request in the queue: who has asked, from which address, and its name.
type item struct{ requester, from, name string }

// turns is the order in which requests are handled. Everybody who asks has a
// turn, whether a token or a node, and so has every address of one: whoever floods
// waits for himself. It is a workqueue.Queue.
type turns struct {
	waiting int
	order   []string // who, the next first
	of      map[string]*addresses
}

// addresses are those that one asks from.
type addresses struct {
	order []string
	names map[string][]string
}

// Touch implements workqueue.Queue.
func (*turns) Touch(item) {}

// Len implements workqueue.Queue.
func (t *turns) Len() int { return t.waiting }

// Push implements workqueue.Queue.
func (t *turns) Push(i item) {
	if t.of == nil {
		t.of = map[string]*addresses{}
	}
	a := t.of[i.requester]
	if a == nil {
		a = &addresses{names: map[string][]string{}}
		t.of[i.requester] = a
		t.order = append(t.order, i.requester)
	}
	if len(a.names[i.from]) == 0 {
		a.order = append(a.order, i.from)
	}
	a.names[i.from] = append(a.names[i.from], i.name)
	t.waiting++
}

// Pop implements workqueue.Queue.
func (t *turns) Pop() item {
	who := t.order[0]
	t.order = t.order[1:]
	a := t.of[who]
	from := a.order[0]
	a.order = a.order[1:]
	name := a.names[from][0]
	if a.names[from] = a.names[from][1:]; len(a.names[from]) > 0 {
		a.order = append(a.order, from)
	} else {
		delete(a.names, from)
	}
	if len(a.order) > 0 {
		t.order = append(t.order, who)
	} else {
		delete(t.of, who)
	}
	t.waiting--
	return item{who, from, name}
}
