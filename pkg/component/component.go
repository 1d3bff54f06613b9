// Package component runs the parts of a node in dependency order and stops
// them in reverse.
//
// It is the only lifecycle in lite. A part works for as long as its Run does:
// there is no Init, Start or Stop to keep in step with it, and a death is
// simply a return.
package component

import "context"

// Component is one part of a node.
type Component interface {
	// Name is unique within a Group, lower case, the word users see in
	// `lite status`.
	Name() string

	// Run works until ctx is done, having released all that it held by the
	// time it returns. Returning earlier, even nil, is a failure.
	Run(ctx context.Context) error

	// Ready checks once, cheaply, whether the component can serve those that
	// need it. It may be called at any time while Run runs, also from several
	// goroutines; the error says what is being waited for.
	Ready(ctx context.Context) error
}

// Noter is a Component that has something to tell about itself while it is
// ready: what it works with, or what a person should check. A note is one
// line, and "" says nothing.
type Noter interface {
	Note() string
}

// Node is a component's place in a Group. It is what other components name
// when they say what they need.
type Node struct {
	group     *Group
	component Component
	needs     []*Node
	neededBy  []*Node

	ready chan struct{} // closed once Ready has succeeded
	ended chan struct{} // closed when nothing of the component runs any more

	status status
}
