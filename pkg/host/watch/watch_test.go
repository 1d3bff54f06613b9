package watch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

func TestTooFar(t *testing.T) {
	for step, want := range map[time.Duration]string{
		0:                         "",
		-30 * time.Second:         "",
		12 * time.Hour:            "", // a board without a hardware clock, after its first answer from a time server
		-2 * time.Minute:          "the clock was set back by 2m0s",
		-2 * 365 * 24 * time.Hour: "the clock was set back by 17520h0m0s",
		56 * 365 * 24 * time.Hour: "the clock was set ahead by 490560h0m0s",
	} {
		if got := tooFar(step); got != want {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
	}
}

// A machine that sleeps for a night has a clock that was not set.
func TestSleepIsNoStep(t *testing.T) {
	evening := moment{wall: 1000 * time.Hour, boot: 5 * time.Hour}
	morning := moment{wall: 1008 * time.Hour, boot: 13 * time.Hour}
	if step := morning.since(evening); step != 0 {
		t.Errorf("got a step of %s", step)
	}
	set := moment{wall: 1006 * time.Hour, boot: 13 * time.Hour}
	if step := set.since(evening); step != -2*time.Hour {
		t.Errorf("got a step of %s, want -2h", step)
	}
}

func TestNote(t *testing.T) {
	for want, c := range map[string]Config{
		"":                                   {Built: time.Now().Add(-time.Hour)},
		"the clock is wrong: it shows 2":     {Built: time.Now().Add(time.Hour)},
		"there is no network: the node uses": {Standby: true},
	} {
		if got := New(c).Note(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

var (
	first  = netip.MustParseAddr("192.0.2.10")
	second = netip.MustParseAddr("192.0.2.11")
	// colliding is one that pods have.
	colliding = netip.MustParseAddr("10.42.3.4")
)

// The node follows its machine to another address, and keeps its own while there is none.
// If a start would fail, it reports that, and follows later.
func TestAddress(t *testing.T) {
	inNamespace(t, func(links *netlink.Handle) {
		eth := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
		must(t, links.LinkAdd(eth))
		must(t, links.AddrAdd(eth, plus24(first)))
		asked := make(chan []netip.Addr)
		m := New(Config{Addresses: []netip.Addr{first}, Find: func() ([]netip.Addr, error) {
			found := addresses(t, links, eth)
			asked <- found
			if slices.Contains(found, colliding) {
				return nil, errors.New("cluster-cidr contains it")
			}
			return found, nil
		}})
		// await waits until the node has looked and found these.
		await := func(want ...netip.Addr) {
			for found := range asked {
				if slices.Equal(found, want) {
					return
				}
			}
		}
		go func() {
			await(first)
			must(t, links.AddrDel(eth, plus24(first)))
			await()
			must(t, links.AddrAdd(eth, plus24(colliding)))
			await(colliding)
			must(t, links.AddrDel(eth, plus24(colliding)))
			await()
			must(t, links.AddrAdd(eth, plus24(second)))
			for range asked { // until the test ends
			}
		}()
		defer close(asked)

		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		reported := ""
		m.watchAddresses(ctx, func(what string) { reported = what })
		if want := "the node's address was 192.0.2.10 and is 192.0.2.11"; reported != want {
			t.Errorf("got %q, want %q", reported, want)
		}
		if note := m.Note(); note != "" {
			t.Errorf("it notes %q still", note)
		}
	})
}

// What a node does when a start would choose these addresses.
func TestMoved(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::10")
	inNamespace(t, func(links *netlink.Handle) {
		eth := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
		must(t, links.LinkAdd(eth))
		must(t, links.AddrAdd(eth, plus24(first)))
		for name, c := range map[string]struct {
			is, found []netip.Addr
			standby   bool
			want      bool
		}{
			"nothing new":                       {[]netip.Addr{first}, []netip.Addr{first}, false, false},
			"the default route has moved":       {[]netip.Addr{first}, []netip.Addr{second}, false, false},
			"its address is gone":               {[]netip.Addr{second}, []netip.Addr{first}, false, true},
			"and there is no other":             {[]netip.Addr{second}, nil, false, false},
			"IPv6 has come":                     {[]netip.Addr{first}, []netip.Addr{first, six}, false, true},
			"IPv6 is gone":                      {[]netip.Addr{first, six}, []netip.Addr{first}, false, true},
			"an agent that had IPv6 alone":      {[]netip.Addr{six}, []netip.Addr{first}, false, true},
			"no network yet":                    {[]netip.Addr{first}, nil, true, false},
			"a network, by the standby address": {[]netip.Addr{first}, []netip.Addr{second}, true, true},
		} {
			m := New(Config{Addresses: c.is, Standby: c.standby, Find: func() ([]netip.Addr, error) { return c.found, nil }})
			if to := m.moved(); (len(to) > 0) != c.want || c.want && !slices.Equal(to, c.found) {
				t.Errorf("%s: goes to %s", name, to)
			}
		}
		m := New(Config{Addresses: []netip.Addr{second}, Find: func() ([]netip.Addr, error) { return nil, errors.New("cluster-cidr contains it") }})
		if to := m.moved(); len(to) > 0 || m.Note() != "the node's address 192.0.2.11 is gone, and the node cannot use the new one: cluster-cidr contains it" {
			t.Errorf("goes to %s, notes %q", to, m.Note())
		}
	})
}

func plus24(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}
}

func addresses(t *testing.T, links *netlink.Handle, link netlink.Link) (found []netip.Addr) {
	t.Helper()
	list, err := links.AddrList(link, netlink.FAMILY_V4)
	must(t, err)
	for _, a := range list {
		addr, _ := netip.AddrFromSlice(a.IP)
		found = append(found, addr.Unmap())
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// Stand makes the interface once, gives it the addresses, and takes it away.
func TestStand(t *testing.T) {
	inNamespace(t, func(*netlink.Handle) {
		for _, addrs := range [][]netip.Addr{nil, {first}, {first}, {second}, nil, nil} {
			if err := UseStandby(addrs); err != nil {
				t.Fatalf("%v: %v", addrs, err)
			}
			_, err := netlink.LinkByName(layout.StandbyDevice)
			if missing := errors.As(err, &netlink.LinkNotFoundError{}); missing != (len(addrs) == 0) {
				t.Errorf("%v: %v", addrs, err)
			}
		}
	})
}

// inNamespace runs f in a network namespace that ends with it.
func inNamespace(t *testing.T, f func(*netlink.Handle)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		links, err := netlink.NewHandle()
		if err != nil {
			t.Errorf("netlink: %v", err)
			return
		}
		defer links.Close()
		f(links)
	}()
	<-done
}
