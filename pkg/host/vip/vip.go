// Package vip gives this machine an address that moves from server to server: the one that
// leads has it.
//
// The address has a lifetime of a few seconds in the kernel, which is renewed for as long as
// this process works. So a machine whose lite was killed or hangs loses it without anybody's
// help, before another server leads and takes it.
package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A leader that was killed is replaced at least 5 s after its last sign of life; the kernel
// counts whole seconds.
const (
	lifetime = 5 * time.Second
	renewal  = 2 * time.Second
	// announcements repeat at as many renewals, as a frame may be lost.
	announcements = 5
	retry         = time.Second
)

// Address is the component.
type Address struct {
	ip      netip.Addr
	lost    func()
	has     atomic.Bool
	problem atomic.Pointer[error]
}

// New makes the component; nothing is touched before Run. lost ends the connections to the address: it
// is called right before the machine loses it, and afterwards, for those that have come
// meanwhile.
func New(ip netip.Addr, lost func()) *Address { return &Address{ip: ip, lost: lost} }

// Name implements component.Component.
func (*Address) Name() string { return "cluster-vip" }

// Ready implements component.Component.
func (a *Address) Ready(context.Context) error {
	switch problem := a.problem.Load(); {
	case a.has.Load():
		return nil
	case problem != nil:
		return *problem
	}
	return fmt.Errorf("checking that nobody has %s", a.ip)
}

// Note implements component.Noter.
func (a *Address) Note() string { return "this server has " + a.ip.String() }

// Run implements component.Component. An address that is in use is waited for.
func (a *Address) Run(ctx context.Context) error {
	a.problem.Store(nil)
	defer a.has.Store(false)
	var said string
	for ctx.Err() == nil {
		err := a.hold(ctx)
		if ctx.Err() != nil {
			return nil
		}
		a.has.Store(false)
		a.problem.Store(&err)
		if err.Error() != said {
			said = err.Error()
			slog.Warn("This server does not have the address of the cluster", "cluster-vip", a.ip, "err", err)
		}
		sleep(ctx, retry)
	}
	return nil
}

// hold has the address until ctx is done, or something is wrong.
func (a *Address) hold(ctx context.Context) error {
	link, err := a.network()
	if err != nil {
		return err
	}
	n, err := a.neighbors(link)
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.probe(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	defer a.drop(link)
	last := time.Now()
	for round := 0; ; round++ {
		// A process that was frozen may find that another machine has the address by now.
		if time.Since(last) > lifetime {
			return fmt.Errorf("%s was not renewed in time", a.ip)
		}
		last = time.Now()
		if err := a.renew(link); err != nil {
			return err
		}
		if round < announcements {
			if err := n.announce(ctx); err != nil {
				return fmt.Errorf("announce %s on %s: %w", a.ip, link.Attrs().Name, err)
			}
		}
		if round == 0 {
			slog.Info("This server has the address of the cluster", "cluster-vip", a.ip, "interface", link.Attrs().Name)
			a.has.Store(true)
		}
		if !sleep(ctx, renewal) {
			return nil
		}
	}
}

// neighbors finds out who has an address, and tells others who has it now.
type neighbors interface {
	// probe returns an error if somebody else has it.
	probe(ctx context.Context) error
	announce(ctx context.Context) error
	Close() error
}

func (a *Address) neighbors(link netlink.Link) (neighbors, error) {
	if a.ip.Is4() {
		return newARP(a.ip, link)
	}
	return newNDP(a.ip, link)
}

// network is the interface in whose network the address is.
func (a *Address) network() (netlink.Link, error) {
	all, err := netlink.AddrList(nil, family(a.ip))
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	found := 0
	for _, have := range all {
		ip, _ := netip.AddrFromSlice(have.IP)
		switch ones, _ := have.Mask.Size(); {
		case ip.Unmap() == a.ip && !passing(have):
			return nil, fmt.Errorf("%s is an address that this machine was given; remove it from there, so that it can move to another server", a.ip)
		case ip.Unmap() == a.ip, ones == a.ip.BitLen(), !netip.PrefixFrom(ip.Unmap(), ones).Contains(a.ip):
		case found == 0:
			found = have.LinkIndex
		}
	}
	if found == 0 {
		return nil, fmt.Errorf("%s is in no network of this machine; set cluster-vip to an unused address of the network in which the servers are", a.ip)
	}
	link, err := netlink.LinkByIndex(found)
	if err != nil {
		return nil, fmt.Errorf("get the interface for %s: %w", a.ip, err)
	}
	return link, nil
}

// passing reports that an address has an end, as ours have.
func passing(have netlink.Addr) bool {
	return have.ValidLft > 0 && have.ValidLft < math.MaxInt32 && time.Duration(have.ValidLft)*time.Second <= lifetime
}

// renew gives the machine the address, or gives it time. As a deprecated one it serves those who come, and is
// chosen as the source of nothing: in IPv6 it would be, where it is more similar to what is to be reached than the
// machine's own address is. The datastore of the other servers would refuse what comes from there.
func (a *Address) renew(link netlink.Link) error {
	const seconds = int(lifetime / time.Second)
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: a.host(), ValidLft: seconds, PreferedLft: 0}); err != nil {
		return fmt.Errorf("add %s to %s: %w", a.ip, link.Attrs().Name, err)
	}
	return nil
}

func (a *Address) drop(link netlink.Link) {
	a.lost()
	defer a.lost()
	err := netlink.AddrDel(link, &netlink.Addr{IPNet: a.host()})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		slog.Warn("The address of the cluster stays here for some seconds", "cluster-vip", a.ip, "err", err)
	}
}

// host is the address alone: the network is that of the machine's own address.
func (a *Address) host() *net.IPNet {
	return &net.IPNet{IP: a.ip.AsSlice(), Mask: net.CIDRMask(a.ip.BitLen(), a.ip.BitLen())}
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// sleep reports whether d passed before ctx was done.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
