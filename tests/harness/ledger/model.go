package ledger

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// Kind is what a client asks for.
type Kind string

// The kinds of requests.
const (
	Create Kind = "create"
	Update Kind = "update"
	Delete Kind = "delete"
	Read   Kind = "read"
)

// Outcome is what a client knows of a request afterwards.
type Outcome string

const (
	// Done says that it was acknowledged.
	Done Outcome = "done"
	// Exists says that the object to create is there already.
	Exists Outcome = "exists"
	// Missing says that there is no such object.
	Missing Outcome = "missing"
	// Conflict says that the object has another revision than the request names.
	Conflict Outcome = "conflict"
	// Refused says that it has not happened, and nothing is known of the object.
	Refused Outcome = "refused"
	// Unknown says that it may have happened, or happen yet.
	Unknown Outcome = "unknown"
)

// Request is one write or read of an object.
type Request struct {
	Kind  Kind
	Value string // what create and update write; no two requests write the same
	// Revision is what update and delete want the object to have.
	Revision int64
}

// Answer is what came of a request.
type Answer struct {
	Outcome  Outcome
	Value    string // of a read
	Revision int64  // of what was read or written, but not of a deletion
}

// object is what the model knows of an object at a moment.
type object struct {
	exists bool
	value  string
	// revision is 0 after a write that nobody has heard of, until it is read.
	revision int64
	// newest is the highest revision that was known so far: none after it is lower.
	newest int64
}

// model is an object as a store without faults keeps it.
var model = porcupine.Model{
	Init: func() any { return object{} },
	Step: func(state, input, output any) (bool, any) {
		return state.(object).step(input.(Request), output.(Answer))
	},
	DescribeOperation: func(input, output any) string { return describe(input.(Request), output.(Answer)) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}

// step reports whether an object answers a request in this way, and what it is then.
func (o object) step(r Request, a Answer) (bool, object) {
	if a.Outcome == Unknown {
		return true, o.after(r)
	}
	var right bool
	next := o
	switch r.Kind {
	case Read:
		right, next = o.read(a)
	case Create:
		right = a.Outcome == Exists && o.exists
		if a.Outcome == Done {
			right = !o.exists && a.Revision > o.newest
			next = object{exists: true, value: r.Value, revision: a.Revision, newest: a.Revision}
		}
	case Update, Delete:
		switch a.Outcome {
		case Missing:
			right = !o.exists
		case Conflict:
			right = o.exists && o.revision != r.Revision
		case Done:
			right, next = o.exists && o.revision == r.Revision, object{newest: o.newest}
			if r.Kind == Update {
				right = right && a.Revision > o.newest
				next = object{exists: true, value: r.Value, revision: a.Revision, newest: a.Revision}
			}
		}
	}
	return right, next
}

func (o object) read(a Answer) (bool, object) {
	if a.Outcome == Missing {
		return !o.exists, o
	}
	if !o.exists || o.value != a.Value || o.revision != 0 && o.revision != a.Revision || o.revision == 0 && a.Revision <= o.newest {
		return false, o
	}
	o.revision, o.newest = a.Revision, a.Revision
	return true, o
}

// after is what an object is after a request that may have come too late for it.
func (o object) after(r Request) object {
	switch {
	case r.Kind == Create && !o.exists:
		return object{exists: true, value: r.Value, newest: o.newest}
	case r.Kind == Update && o.exists && o.revision == r.Revision:
		return object{exists: true, value: r.Value, newest: o.newest}
	case r.Kind == Delete && o.exists && o.revision == r.Revision:
		return object{newest: o.newest}
	}
	return o
}

func describe(r Request, a Answer) string {
	text := string(r.Kind)
	if r.Value != "" {
		text += " " + r.Value
	}
	if r.Revision != 0 {
		text += fmt.Sprintf(" at %d", r.Revision)
	}
	text += ": " + string(a.Outcome)
	if a.Value != "" {
		text += " " + a.Value
	}
	if a.Revision != 0 {
		text += fmt.Sprintf(" at %d", a.Revision)
	}
	return text
}
