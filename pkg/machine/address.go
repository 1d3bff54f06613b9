package machine

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// watchAddresses tells when the node's address is gone and the machine has
// another. As long as there is none the node stays where it is: the link may come
// back with the address that it had.
func (m *Machine) watchAddresses(ctx context.Context, tell func(what string)) {
	if m.config.Find == nil {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		if m.follow(ctx, tell) || !pause(ctx) {
			return
		}
	}
}

// follow looks at once, and whenever the kernel tells of an address that comes or
// goes. It returns false if the kernel has stopped telling, which it does when it
// had more to tell than was read.
func (m *Machine) follow(ctx context.Context, tell func(what string)) (done bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	updates := make(chan netlink.AddrUpdate)
	err := netlink.AddrSubscribeWithOptions(updates, ctx.Done(), netlink.AddrSubscribeOptions{})
	if err != nil {
		slog.Warn("The kernel does not tell of its addresses", "err", err)
		return false
	}
	defer func() { // the sender ends when nobody has to read
		go func() {
			for range updates {
			}
		}()
	}()
	for {
		// Addresses of pods' interfaces come and go; ours is looked for only here.
		if m.moved() {
			if !pause(ctx) {
				return true
			}
			if to := m.found(); len(to) > 0 && m.moved() {
				tell(fmt.Sprintf("the node's address was %s and is %s", texts(m.config.Addresses), texts(to)))
				return true
			}
		}
		if !m.next(ctx, updates) {
			return ctx.Err() != nil
		}
	}
}

// next waits for news that could concern the node.
func (m *Machine) next(ctx context.Context, updates <-chan netlink.AddrUpdate) bool {
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return false
			}
			addr, _ := netip.AddrFromSlice(u.LinkAddress.IP)
			if slices.Contains(m.config.Addresses, addr.Unmap()) || u.NewAddr && addr.IsGlobalUnicast() {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// moved reports whether an address of the node is none of the machine's.
func (m *Machine) moved() bool {
	if m.config.Standby {
		return len(m.found()) > 0
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(m.config.Addresses, func(ours netip.Addr) bool {
		return !slices.ContainsFunc(addrs, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && p.Addr() == ours
		})
	})
}

// found is where the node would be if it were started now; nil if that is where
// it is, or nowhere.
func (m *Machine) found() []netip.Addr {
	addrs := m.config.Find()
	if slices.Equal(addrs, m.config.Addresses) {
		return nil
	}
	return addrs
}

func texts(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
