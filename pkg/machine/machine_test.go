package machine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestTooFar(t *testing.T) {
	for step, want := range map[time.Duration]string{
		0:                         "",
		-30 * time.Second:         "",
		12 * time.Hour:            "", // a board without a clock of its own, after its first answer from a time server
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
		"":                                  {Built: time.Now().Add(-time.Hour)},
		"the clock is wrong, it says 2":     {Built: time.Now().Add(time.Hour)},
		"there is no network: the node has": {Standby: true},
	} {
		if got := New(c).Note(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

var (
	first  = netip.MustParseAddr("192.0.2.10")
	second = netip.MustParseAddr("192.0.2.11")
)

// The node follows its machine to another address, and stays where it is while
// there is none.
func TestAddress(t *testing.T) {
	inNamespace(t, func(links *netlink.Handle) {
		eth := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
		must(t, links.LinkAdd(eth))
		must(t, links.AddrAdd(eth, plus24(first)))
		asked := make(chan []netip.Addr)
		m := New(Config{Addresses: []netip.Addr{first}, Find: func() []netip.Addr {
			found := addresses(t, links, eth)
			asked <- found
			return found
		}})
		go func() {
			must(t, links.AddrDel(eth, plus24(first)))
			if found := <-asked; len(found) > 0 {
				t.Errorf("found %s too early", found)
			}
			must(t, links.AddrAdd(eth, plus24(second)))
			for range asked { // until the test ends
			}
		}()
		defer close(asked)

		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		told := ""
		m.watchAddresses(ctx, func(what string) { told = what })
		if want := "the node's address was 192.0.2.10 and is 192.0.2.11"; told != want {
			t.Errorf("got %q, want %q", told, want)
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
			if err := Stand(addrs); err != nil {
				t.Fatalf("%v: %v", addrs, err)
			}
			_, err := netlink.LinkByName(StandbyLink)
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
