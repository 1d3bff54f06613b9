package component_test

import (
	"context"
	"fmt"
	"time"

	"lite.io/lite/pkg/component"
)

// store is a component that is ready once it has opened its file.
type store struct{ open chan struct{} }

func (s store) Name() string { return "store" }

func (s store) Run(ctx context.Context) error {
	fmt.Println("store opens")
	close(s.open)
	<-ctx.Done() // returning earlier would be a failure
	fmt.Println("store closes")
	return nil
}

func (s store) Ready(context.Context) error {
	select {
	case <-s.open:
		return nil
	default:
		return fmt.Errorf("opening the file") // what `lite status` shows meanwhile
	}
}

// front is a component that needs the store, and fails.
type front struct{}

func (front) Name() string                { return "front" }
func (front) Ready(context.Context) error { return nil }

func (front) Run(context.Context) error {
	fmt.Println("front serves")
	return fmt.Errorf("port 6443 is taken")
}

// A component starts when all that it needs is ready, and stops before it. When one fails, all stop, and the group
// returns why.
func ExampleGroup() {
	group := component.Group{StopTimeout: time.Minute}
	opened := group.Add(store{make(chan struct{})})
	group.Add(front{}, opened)
	fmt.Println("error:", group.Run(context.Background()))
	// Output:
	// store opens
	// front serves
	// store closes
	// error: front: port 6443 is taken
}
