// Package watch notices when the machine is no longer the one that a node was
// started on: its clock was set, or it has another address. Certificates,
// endpoints, tokens and the pod network are made for both at the start; so the
// remedy is a start, which takes two seconds and leaves pods alone.
package watch

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"lite.io/lite/pkg/kube"
)

// Changed is what Run returns when the node should restart.
type Changed struct{ What string }

// Error implements error.
func (c *Changed) Error() string { return c.What }

// Config is what the node was started with.
type Config struct {
	// Addresses are those of the node. Standby means that they are not the machine's, which
	// had no network.
	Addresses []netip.Addr
	Standby   bool
	// Find returns the addresses that the node would have if it started now, in the same
	// order; none without a network. The error is why it would not start. nil: the user has
	// set them.
	Find  func() ([]netip.Addr, error)
	Built time.Time // a clock that is behind it is wrong
}

// Machine is the component.
type Machine struct {
	config Config
	stuck  atomic.Pointer[string] // why the node cannot follow its machine
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Machine { return &Machine{config: c} }

// Name implements component.Component.
func (*Machine) Name() string { return "machine" }

// Ready implements component.Component.
func (*Machine) Ready(context.Context) error { return nil }

// Note implements component.Noter.
func (m *Machine) Note() string {
	switch {
	case m.clockWrong():
		return fmt.Sprintf("the clock is wrong: it shows %s; set it", time.Now().UTC().Format(time.RFC3339))
	case m.stuck.Load() != nil:
		return *m.stuck.Load()
	case m.config.Standby:
		return "there is no network: the node uses a private address until there is one"
	}
	return ""
}

func (m *Machine) clockWrong() bool { return time.Now().Before(m.config.Built) }

// Run implements component.Component. What it cannot watch does not end the node.
func (m *Machine) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	changed := func(what string) { stop(&Changed{what}) }
	ended := make(chan struct{}, 2)
	for _, watch := range []func(context.Context, func(string)){m.watchClock, m.watchAddresses} {
		go func() {
			watch(ctx, changed)
			ended <- struct{}{}
		}()
	}
	<-ended
	<-ended
	if c, ok := context.Cause(ctx).(*Changed); ok {
		return c
	}
	return nil
}

// settle is how long the machine's addresses must be stable before the node follows them,
// so that it ignores a flapping link.
const settle = 5 * time.Second

// pause waits until the addresses have settled.
func pause(ctx context.Context) bool { return kube.Sleep(ctx, settle) }
