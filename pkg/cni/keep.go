package cni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/layout"
)

// protect has the watcher look after what the pod network consists of, until the
// function that it returns is called.
func (n *Network) protect(ctx context.Context, rules *rules, ranges []netip.Prefix, mtu int) (leave func()) {
	cached := libcni.NewCNIConfig(nil, nil) // where the container runtime keeps it
	b := &bridge{cached: cached, ranges: ranges, mtu: mtu}
	b.remember()
	h := &hostPorts{cached: cached, plugins: n.config.Plugins, nftables: n.config.NFTables, rules: rules}
	older := len(netfilter.OlderTables(false))+len(netfilter.OlderTables(true)) > 0
	rules.watcher = n.config.Firewall
	kernel := &settings{all: kernel(ranges), local: h.any}
	kernel.notify(ctx, n.config.Firewall)
	var all []func()
	for _, part := range []firewall.Part{
		{Missing: rules.missing, Restore: rules.restore, Older: older},
		// The order matters: hostPorts need the bridge.
		{Missing: b.missing, Restore: func(ctx context.Context) error { return errors.Join(b.restore(), h.readmit(ctx)) }},
		{Missing: h.missing, Restore: h.restore, Older: older && !n.config.NFTables},
		{Missing: n.overlayLost, Restore: func(context.Context) error { return nil }},
		{Missing: kernel.missing, Restore: kernel.restore},
		firewall.Awake("filter", "nat", "mangle", portmapTable),
	} {
		all = append(all, n.config.Firewall.Keep(part))
	}
	return func() {
		for _, leave := range all {
			leave()
		}
	}
}

// overlayLost lets keep repair the way to other nodes, which reports that itself.
func (n *Network) overlayLost(_ context.Context, lost firewall.Lost) ([]string, error) {
	device := func(name string) bool { return strings.HasPrefix(name, layout.DevicePrefix) }
	way := func(w firewall.Way) bool { return w.Protocol == layout.RouteProtocol || device(nameOf(w.Link)) }
	if slices.ContainsFunc(lost.Links, device) || slices.ContainsFunc(lost.Ways, way) {
		select {
		case n.overlayGone <- struct{}{}:
		default:
		}
	}
	return nil, nil
}

// nameOf is what an interface is called, "" if there is none.
func nameOf(index int) string {
	link, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return link.Name
}

// missing names the chains of the pod network, and the kubelet's, that have lost something.
func (r *rules) missing(_ context.Context, lost firewall.Lost) (gone []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost.Older = r.findOlder(lost) || lost.Older
	var errs []error
	for i := range r.families {
		f := &r.families[i]
		f.adopt(lost)
		for _, c := range f.chains {
			if !lost.Older && !lost.From(firewall.Table{Family: f.name, Name: c.table}, c.name, c.parent) {
				continue
			}
			missing, err := c.missing(f.tool)
			errs = append(errs, err)
			text := fmt.Sprintf("chain %s of %s %s", c.name, f.name, c.table)
			if f.older {
				text += " of the older interface"
			}
			if missing && !slices.Contains(gone, text) {
				gone = append(gone, text)
			}
		}
	}
	return gone, errors.Join(errs...)
}

// adopt makes the kubelet's chain one to look after, once it is seen that it was there.
func (f *family) adopt(lost firewall.Lost) {
	adopted := slices.ContainsFunc(f.chains, func(c chain) bool { return c.name == guardChain })
	was := slices.ContainsFunc(lost.Changes, func(c firewall.Change) bool {
		return c.Family == f.name && c.Name == "filter" && slices.Contains(c.Chains, guardChain)
	})
	if !adopted && f.name == "ip" && !f.older && (was || f.has(guardChain)) {
		f.chains = append(guard(), f.chains...)
	}
}

func (f *family) has(chain string) bool {
	exists, err := f.tool.ChainExists("filter", chain)
	return err == nil && exists
}

func (r *rules) restore(context.Context) error { return r.ensure() }

// bridge is what the pods of this node are on.
type bridge struct {
	cached  *libcni.CNIConfig
	ranges  []netip.Prefix
	mtu     int
	address net.HardwareAddr // which pods have learned
	index   int
	off     []attachment // pods that are not on it; what missing has found last
}

// remember is what has to be the same when it is made again.
func (b *bridge) remember() {
	if link, err := netlink.LinkByName(layout.Bridge); err == nil {
		b.address, b.index = link.Attrs().HardwareAddr, link.Attrs().Index
	}
}

func (b *bridge) missing(_ context.Context, lost firewall.Lost) (gone []string, err error) {
	if len(lost.Links) == 0 && !lost.Way(b.index) {
		return nil, nil
	}
	link, err := netlink.LinkByName(layout.Bridge)
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 {
		gone = append(gone, "interface "+layout.Bridge)
	} else {
		gone = append(gone, b.missingRoutes(link)...)
	}
	pods, err := attachments(b.cached)
	b.off = nil
	for _, pod := range pods {
		port, err := netlink.LinkByName(pod.port)
		if pod.port == "" || err != nil {
			continue // it is being removed
		}
		if link == nil || port.Attrs().MasterIndex != link.Attrs().Index || port.Attrs().Flags&net.FlagUp == 0 {
			b.off = append(b.off, pod)
			gone = append(gone, "pod "+pod.pod+" on "+layout.Bridge)
		}
	}
	return gone, err
}

// missingRoutes names addresses of the bridge, and routes to its pods, that are gone.
func (b *bridge) missingRoutes(link netlink.Link) (gone []string) {
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil
	}
	for _, own := range addressesOf(b.ranges, link.Attrs().HardwareAddr) {
		if !slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IPNet.String() == own.String() }) {
			gone = append(gone, fmt.Sprintf("address %s of %s", own, layout.Bridge))
		}
	}
	if len(gone) > 0 {
		return gone // and their routes
	}
	for _, r := range b.ranges {
		route := routeTo(r, link)
		if found, err := netlink.RouteListFiltered(route.Family, route, netlink.RT_FILTER_DST|netlink.RT_FILTER_OIF); err == nil &&
			len(found) == 0 {
			gone = append(gone, fmt.Sprintf("the route to %s by %s", r.Masked(), layout.Bridge))
		}
	}
	return gone
}

// restore recreates the bridge and attaches the pods, as the plugin did.
func (b *bridge) restore() error {
	if err := b.rename(); err != nil {
		return err
	}
	if err := ensureBridge(b.ranges, b.mtu, b.address); err != nil {
		return err
	}
	link, err := netlink.LinkByName(layout.Bridge)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", layout.Bridge, err)
	}
	b.index = link.Attrs().Index
	var errs []error
	for _, r := range b.ranges {
		// The kernel makes it with the address, and only then.
		if err := netlink.RouteReplace(routeTo(r, link)); err != nil {
			errs = append(errs, fmt.Errorf("route %s through %s: %w", r.Masked(), layout.Bridge, err))
		}
	}
	for _, pod := range b.off {
		port, err := netlink.LinkByName(pod.port)
		if err != nil {
			continue // it has been removed
		}
		err = netlink.LinkSetMasterByIndex(port, link.Attrs().Index)
		if err == nil {
			err = netlink.LinkSetUp(port)
		}
		if err == nil {
			err = netlink.LinkSetHairpin(port, true)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("attach pod %s to %s: %w", pod.pod, layout.Bridge, err))
		}
	}
	return errors.Join(errs...)
}

// rename gives the bridge its name again. Another one with the same addresses would lead
// nowhere beside it.
func (b *bridge) rename() error {
	link, err := netlink.LinkByIndex(b.index)
	if err != nil || link.Type() != "bridge" || link.Attrs().Name == layout.Bridge {
		return nil // it is gone, or there
	}
	if other, err := netlink.LinkByName(layout.Bridge); err == nil && other.Type() == "bridge" {
		// Created by the plugin for a pod meanwhile.
		if err := netlink.LinkDel(other); err != nil {
			return fmt.Errorf("remove a second %s: %w", layout.Bridge, err)
		}
	}
	if err := errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, layout.Bridge)); err != nil {
		return fmt.Errorf("rename interface %s back to %s: %w", link.Attrs().Name, layout.Bridge, err)
	}
	return nil
}

// hostPorts are the rules that lead ports of the node to its pods. The CNI plugin portmap
// creates them for each pod, and recreates them here.
type hostPorts struct {
	cached   *libcni.CNIConfig
	plugins  string
	nftables bool
	rules    *rules       // whose iptables the plugin uses, without nftables
	lost     []attachment // pods without theirs; what missing has found last
	again    []attachment // pods whose rules were made again here
}

// portmapTable is the plugin's, with nftables; its chains but those with a rule
// for each pod.
const portmapTable = layout.PortmapTable

var portmapBase = []string{"hostports_all", "prerouting", "output"}

func (h *hostPorts) missing(ctx context.Context, lost firewall.Lost) (gone []string, err error) {
	h.retract(ctx)
	h.lost = nil
	if !h.concerns(lost) {
		return nil, nil
	}
	pods, err := attachments(h.cached)
	pods = slices.DeleteFunc(pods, func(a attachment) bool { return a.plugin == nil })
	if len(pods) == 0 {
		return nil, err
	}
	// The plugin's check covers a pod's own rules, not the jumps to them. If all of them
	// are gone, somebody has removed them, not a pod that ended.
	within := time.Duration(0)
	if h.basis() {
		pods = slices.DeleteFunc(pods, func(a attachment) bool { return a.run(ctx, h.plugins, "CHECK") == nil })
		within = removal
	}
	h.lost = stay(ctx, pods, within)
	for _, pod := range h.lost {
		gone = append(gone, "hostPorts of pod "+pod.pod)
	}
	return gone, err
}

// any reports whether a pod has a hostPort.
func (h *hostPorts) any() bool {
	pods, _ := attachments(h.cached)
	return slices.ContainsFunc(pods, func(a attachment) bool { return a.plugin != nil })
}

// concerns reports whether rules of hostPorts may be among what was lost. Those that the
// plugin takes out itself when a pod goes are among it as well.
func (h *hostPorts) concerns(lost firewall.Lost) bool {
	if lost.Unknown || lost.Older && !h.nftables {
		return true
	}
	return slices.ContainsFunc(lost.Changes, func(c firewall.Change) bool {
		if h.nftables {
			return c.Name == portmapTable && (c.Dropped || !c.Adds)
		}
		return c.Name == "nat" && (c.Dropped || slices.ContainsFunc(c.Chains, func(name string) bool {
			return strings.HasPrefix(name, layout.CNIChains) || slices.Contains([]string{"PREROUTING", "OUTPUT", "POSTROUTING"}, name)
		}))
	})
}

// basis reports whether the jumps to the rules of pods exist.
func (h *hostPorts) basis() bool {
	if !h.nftables {
		for _, f := range h.rules.families {
			if !slices.ContainsFunc(f.chains, func(c chain) bool { return c.table == "nat" }) {
				continue // not the iptables that the plugin uses
			}
			if !h.leads(f.tool, "PREROUTING", layout.PortmapDNAT) || !h.leads(f.tool, "OUTPUT", layout.PortmapDNAT) || !h.leads(f.tool, "POSTROUTING", layout.PortmapMASQ) {
				return false
			}
		}
		return true
	}
	tables := 0
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		rules, err := netfilter.Rules(family, portmapTable)
		if err != nil || len(rules) == 0 {
			continue // pods have addresses of one family, or their rules are gone too
		}
		tables++
		if slices.ContainsFunc(portmapBase, func(chain string) bool { return rules[chain] == 0 }) {
			return false
		}
	}
	return tables > 0
}

func (*hostPorts) leads(tool *iptables.IPTables, from, to string) bool {
	rules, err := tool.List("nat", from)
	return err == nil && slices.ContainsFunc(rules, func(r string) bool { return strings.HasSuffix(r, "-j "+to) })
}

// restore makes the rules of pods again. What is left of them goes first: with
// nftables the plugin would add to it.
func (h *hostPorts) restore(ctx context.Context) error {
	var errs []error
	for _, pod := range h.lost {
		err := pod.run(ctx, h.plugins, "DEL")
		if err == nil {
			err = pod.run(ctx, h.plugins, "ADD")
			h.again = append(h.again, pod)
		}
		if err != nil && !pod.gone() {
			errs = append(errs, fmt.Errorf("restore the hostPorts of pod %s: %w", pod.pod, err))
		}
	}
	return errors.Join(errs...)
}

// readmit makes all rules again, for a bridge that is new: the plugin sets what lets
// packets for loopback addresses pass there.
func (h *hostPorts) readmit(ctx context.Context) error {
	pods, err := attachments(h.cached)
	if err != nil {
		return err
	}
	h.lost = slices.DeleteFunc(pods, func(a attachment) bool { return a.plugin == nil })
	return h.restore(ctx)
}

// retract takes rules out that were made again for pods which were removed at the
// same time: nobody else would.
func (h *hostPorts) retract(ctx context.Context) {
	for _, pod := range h.again {
		if pod.gone() {
			_ = pod.run(ctx, h.plugins, "DEL") // the plugin fails only where no rules can be made either
		}
	}
	h.again = nil
}
