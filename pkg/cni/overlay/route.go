package overlay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
)

// hop is where a route leads.
type hop struct {
	link   int
	via    netip.Addr // none if the device needs none
	onlink bool       // via is on no network of the device
	// nowhere: what goes there is refused, instead of taking another way.
	nowhere bool
}

func (h hop) route(dst netip.Prefix) *netlink.Route {
	if h.nowhere {
		return &netlink.Route{Dst: netOf(dst), Protocol: layout.RouteProtocol, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNREACHABLE}
	}
	r := &netlink.Route{
		Dst: netOf(dst), LinkIndex: h.link, Protocol: layout.RouteProtocol,
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Scope: netlink.SCOPE_LINK,
	}
	if h.via.IsValid() {
		r.Gw, r.Scope = h.via.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	if h.onlink {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	return r
}

func hopOf(r netlink.Route) hop {
	if r.Type == unix.RTN_UNREACHABLE {
		return hop{nowhere: true} // the kernel shows it on lo
	}
	return hop{link: r.LinkIndex, via: addrOf(r.Gw), onlink: r.Flags&int(netlink.FLAG_ONLINK) != 0}
}

// setRoutes makes our routes those to the peers.
func (o *Overlay) setRoutes(link int, peers []Peer) error {
	want := o.wantedRoutes(link, peers)
	present, err := ownRoutes(o.kernel)
	if err != nil {
		return err
	}
	var errs []error
	o.routes = map[netip.Prefix]hop{}
	for _, r := range present {
		dst, h := prefixOf(r.Dst), hopOf(r)
		if want[dst] == h {
			o.routes[dst] = h
			continue
		}
		errs = append(errs, removeRoute(o.kernel, r))
	}
	for dst, h := range want {
		if _, ok := o.routes[dst]; ok {
			continue
		}
		if err := o.addRoute(dst, h); err != nil {
			if i := slices.IndexFunc(peers, func(p Peer) bool { return slices.Contains(p.Pods, dst) }); i >= 0 {
				err = fmt.Errorf("node %s: %w", peers[i].Node, err)
			}
			errs = append(errs, err)
			continue
		}
		o.routes[dst] = h
	}
	return errors.Join(errs...)
}

// wantedRoutes leads to each peer's pods. With a backend that encrypts, packets to
// pods that cannot be reached must not leave by the default route, readable.
func (o *Overlay) wantedRoutes(link int, peers []Peer) map[netip.Prefix]hop {
	want := map[netip.Prefix]hop{}
	if o.config.Backend == WireGuard {
		for _, all := range o.config.Cluster {
			want[all] = hop{nowhere: true}
		}
	}
	for _, p := range peers {
		for _, pods := range p.Pods {
			want[pods] = o.backend.hop(link, p, pods)
		}
	}
	return want
}

// addRoute never replaces a route: an existing one would be somebody else's.
func (o *Overlay) addRoute(dst netip.Prefix, h hop) error {
	err := o.kernel.RouteAdd(h.route(dst))
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("another program has a route to %s: remove it with `ip route del %s`", dst, dst)
	}
	if err != nil {
		return fmt.Errorf("add a route to %s: %w", dst, err)
	}
	return nil
}

// checkRoutes reports which route of the last Set is gone.
func (o *Overlay) checkRoutes() error {
	present, err := ownRoutes(o.kernel)
	if err != nil {
		return err
	}
	have := map[netip.Prefix]hop{}
	for _, r := range present {
		have[prefixOf(r.Dst)] = hopOf(r)
	}
	for dst, h := range o.routes {
		if have[dst] != h {
			return fmt.Errorf("the route to the pods in %s is gone", dst)
		}
	}
	return nil
}

func ownRoutes(kernel *netlink.Handle) ([]netlink.Route, error) {
	ours := &netlink.Route{Protocol: layout.RouteProtocol, Table: unix.RT_TABLE_MAIN}
	var all []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := probe.Dump(func() ([]netlink.Route, error) {
			return kernel.RouteListFiltered(family, ours, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			// A kernel without IPv6 lists all families instead.
			if prefixOf(r.Dst).Addr().Is6() == (family == netlink.FAMILY_V6) {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// removeRoute removes the very route that was listed, by its protocol too.
func removeRoute(kernel *netlink.Handle, r netlink.Route) error {
	if err := kernel.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route to %s: %w", prefixOf(r.Dst), err)
	}
	return nil
}
