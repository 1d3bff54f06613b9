package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// machine is a host that is connected with another one.
type machine struct {
	*netlink.Handle
	ns netns.NsHandle
}

// newMachines makes two machines with eth0 each, on one cable.
func newMachines(t *testing.T) (a, b *machine) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	a, b = newMachine(t), newMachine(t)
	must(t, a.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.ns)}))
	for m, addresses := range map[*machine][]string{a: {"192.0.2.1/24", "fd00::1/64"}, b: {"192.0.2.2/24", "fd00::2/64"}} {
		must(t, m.LinkSetUp(m.link(t)))
		for _, address := range addresses {
			m.add(t, address)
		}
	}
	return a, b
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	var m machine
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with the goroutine
		var err error
		m.ns, err = netns.New()
		done <- err
	}()
	must(t, <-done)
	t.Cleanup(func() { m.ns.Close() })
	handle, err := netlink.NewHandleAt(m.ns)
	must(t, err)
	t.Cleanup(handle.Close)
	m.Handle = handle
	return &m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) link(t *testing.T) netlink.Link {
	t.Helper()
	link, err := m.LinkByName("eth0")
	must(t, err)
	return link
}

func (m *machine) add(t *testing.T, address string) {
	t.Helper()
	a, err := netlink.ParseAddr(address)
	must(t, err)
	must(t, m.AddrReplace(m.link(t), a))
}

func (m *machine) has(t *testing.T, ip netip.Addr) bool {
	t.Helper()
	all, err := m.AddrList(m.link(t), family(ip))
	must(t, err)
	for _, have := range all {
		if have.IP.Equal(net.IP(ip.AsSlice())) {
			return true
		}
	}
	return false
}

// run has a machine work for the address until stop.
func (m *machine) run(t *testing.T, ip netip.Addr) (a *Address, stop func()) {
	a = New(ip, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(m.ns)
		if err == nil {
			err = a.Run(ctx)
		}
		done <- err
	}()
	return a, func() {
		t.Helper()
		cancel()
		must(t, <-done)
	}
}

// until waits until a check succeeds.
func until(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// The address of a server that leads no more is gone, and another machine gets it only then.
func TestOneMachineHasTheAddress(t *testing.T) {
	for _, text := range []string{"192.0.2.100", "fd00::100"} {
		t.Run(text, func(t *testing.T) {
			a, b := newMachines(t)
			ip := netip.MustParseAddr(text)
			first, stop := a.run(t, ip)
			until(t, func() error { return first.Ready(t.Context()) })
			if !a.has(t, ip) {
				t.Error("it is ready, and does not have the address")
			}
			second, stopSecond := b.run(t, ip)
			until(t, func() error {
				if err := second.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), text+" is in use, by ") {
					return errors.Join(errors.New("the other does not notice"), err)
				}
				return nil
			})
			stop()
			if a.has(t, ip) {
				t.Error("it has stopped, and has the address")
			}
			until(t, func() error { return second.Ready(t.Context()) })
			if err := first.Ready(t.Context()); err == nil {
				t.Error("the first is ready")
			}
			stopSecond()
		})
	}
}

// What the machine sends on its own comes from its own address, however similar the one that moves is to the other
// end: a peer of the datastore is known by that.
func TestTheAddressIsNoSource(t *testing.T) {
	a, _ := newMachines(t)
	for text, c := range map[string]struct{ to, own string }{
		"192.0.2.100": {"192.0.2.101", "192.0.2.1"},
		"fd00::100":   {"fd00::101", "fd00::1"},
	} {
		ip := netip.MustParseAddr(text)
		address, stop := a.run(t, ip)
		until(t, func() error { return address.Ready(t.Context()) })
		// The kernel may still be looking whether somebody else has the machine's own address of IPv6.
		until(t, func() error {
			routes, err := a.RouteGet(net.ParseIP(c.to))
			if err == nil && (len(routes) != 1 || !routes[0].Src.Equal(net.ParseIP(c.own))) {
				err = fmt.Errorf("with %s, packets to %s are sent from %v", text, c.to, routes)
			}
			return err
		})
		stop()
	}
}

// What keeps a machine from having the address for ever is said, and no address of a user's changes.
func TestAddressesThatCannotMove(t *testing.T) {
	a, _ := newMachines(t)
	a.add(t, "192.0.2.50/32")
	for text, want := range map[string]string{
		"192.0.2.1":    "is an address that this machine was given; remove it from there",
		"192.0.2.50":   "is an address that this machine was given; remove it from there",
		"198.51.100.1": "is in no network of this machine; set cluster-vip to ",
		"fd01::1":      "is in no network of this machine; set cluster-vip to ",
	} {
		ip := netip.MustParseAddr(text)
		address, stop := a.run(t, ip)
		until(t, func() error {
			if err := address.Ready(t.Context()); err == nil || !strings.HasPrefix(err.Error(), text+" "+want) {
				return errors.Join(errors.New("it does not say what is wrong"), err)
			}
			return nil
		})
		stop()
		if given := strings.HasPrefix(text, "192.0.2."); a.has(t, ip) != given {
			t.Errorf("it has %s: %v", ip, !given)
		}
	}
}

// A process that was killed removes nothing: the kernel does.
func TestAnAddressEndsByItself(t *testing.T) {
	a, _ := newMachines(t)
	ip := netip.MustParseAddr("192.0.2.100")
	address := New(ip, func() {})
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(a.ns); err != nil {
			done <- err
			return
		}
		link, err := address.network()
		if err == nil {
			err = address.renew(link)
		}
		done <- err
	}()
	must(t, <-done)
	if !a.has(t, ip) {
		t.Fatal("it does not have the address")
	}
	until(t, func() error {
		if a.has(t, ip) {
			return errors.New("the machine still has it")
		}
		return nil
	})
}
