package watch

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// watchAddresses reports when the machine's addresses differ from the node's. As long as the machine has
// none, the node keeps its own: the link may come back with the same address.
func (m *Machine) watchAddresses(ctx context.Context, changed func(what string)) {
	if m.config.Find == nil {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		if m.follow(ctx, changed) || !pause(ctx) {
			return
		}
	}
}

// follow checks immediately, and whenever the kernel reports that an address was added or
// removed. It returns false if the kernel has stopped reporting, which it does when events
// were lost.
func (m *Machine) follow(ctx context.Context, changed func(what string)) (done bool) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	updates := make(chan netlink.AddrUpdate)
	err := netlink.AddrSubscribeWithOptions(updates, ctx.Done(), netlink.AddrSubscribeOptions{})
	if err != nil {
		slog.Warn("Cannot watch the addresses of the machine", "err", err)
		return false
	}
	defer func() { // the sender ends when nobody has to read
		go func() {
			for range updates {
			}
		}()
	}()
	for {
		if len(m.moved()) > 0 {
			if !pause(ctx) {
				return true
			}
			if to := m.moved(); len(to) > 0 {
				changed(fmt.Sprintf("the node's address was %s and is %s", texts(m.config.Addresses), texts(to)))
				return true
			}
		}
		if !m.next(ctx, updates) {
			return ctx.Err() != nil
		}
	}
}

// next waits for an event that could concern the node.
func (m *Machine) next(ctx context.Context, updates <-chan netlink.AddrUpdate) bool {
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return false
			}
			addr, _ := netip.AddrFromSlice(u.LinkAddress.IP)
			if slices.Contains(m.config.Addresses, addr.Unmap()) || u.NewAddr && addr.IsGlobalUnicast() || m.stuck.Load() != nil {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// moved is the addresses that the node should have, if they differ: the machine has lost
// one of the node's addresses, or got one of an IP family that the node does not have, as
// when DHCP answers after the router. Otherwise the node keeps its addresses, whichever a
// start would choose.
func (m *Machine) moved() []netip.Addr {
	gone, err := Gone(m.config.Addresses)
	if err != nil {
		return nil
	}
	to, err := m.config.Find()
	m.reportStuck(gone, err)
	if len(to) == 0 || slices.Equal(to, m.config.Addresses) ||
		!gone && !m.config.Standby && slices.Equal(families(to), families(m.config.Addresses)) {
		return nil
	}
	return to
}

// Gone reports whether the machine does not have one of the addresses.
func Gone(addresses []netip.Addr) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(addresses, func(ours netip.Addr) bool {
		return !slices.ContainsFunc(addrs, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && p.Addr() == ours
		})
	}), nil
}

// reportStuck logs, once, why the node keeps an address that is gone: a start would fail,
// and pods keep running without one.
func (m *Machine) reportStuck(gone bool, err error) {
	if !gone || err == nil {
		m.stuck.Store(nil)
		return
	}
	why := fmt.Sprintf("the node's address %s is gone, and the node cannot use the new one: %v", texts(m.config.Addresses), err)
	if was := m.stuck.Swap(&why); was == nil || *was != why {
		slog.Warn("The node cannot use the machine's new address", "was", texts(m.config.Addresses), "err", err)
	}
}

// families is which of the two addresses are of, sorted.
func families(addrs []netip.Addr) (lengths []string) {
	for _, a := range addrs {
		lengths = append(lengths, strconv.Itoa(a.BitLen()))
	}
	slices.Sort(lengths)
	return lengths
}

func texts(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}
