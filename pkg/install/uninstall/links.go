package uninstall

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// vethName is the name that the CNI plugin bridge gives to the node's end of a pair.
var vethName = regexp.MustCompile(`^veth[0-9a-f]{8}$`)

// shaperName is the name that the CNI plugin bandwidth (1.9) gives to the device that
// limits what a container sends.
func shaperName(network, container string) string {
	const length = 15 // of an interface's name
	return fmt.Sprintf("bwp%x", sha512.Sum512([]byte(network+container)))[:length]
}

// removeLinks removes the interfaces of the pod network. The pods' own went with
// their network namespaces, or go in a moment.
func (w *work) removeLinks() {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		w.Fail(fmt.Errorf("list network interfaces: %w", err))
		return
	}
	bridge := 0
	for _, l := range links {
		// Other distributions use the same name.
		if l.Attrs().Name == w.Bridge && l.Type() == "bridge" && w.hadRun {
			bridge = l.Attrs().Index
		}
	}
	shapers := map[string]bool{}
	for id := range w.seen.ids {
		shapers[shaperName(w.Network, id)] = true
	}
	var ours []netlink.Link
	for _, l := range links {
		a := l.Attrs()
		switch {
		case bridge != 0 && l.Type() == "veth" && a.MasterIndex == bridge && vethName.MatchString(a.Name),
			l.Type() == "ifb" && shapers[a.Name],
			w.ourTunnel(l):
			ours = append(ours, l)
		case bridge != 0 && a.MasterIndex == bridge:
			w.Leave("interface %s, which was a port of %s and does not belong to a pod", a.Name, w.Bridge)
		}
	}
	for _, l := range links {
		if bridge != 0 && l.Attrs().Index == bridge {
			ours = append(ours, l)
		}
	}
	if len(ours) > 0 {
		w.Step("Removing %d network interfaces", len(ours))
	}
	for _, l := range ours {
		err := netlink.LinkDel(l)
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			w.Fail(fmt.Errorf("remove network interface %s: %w", l.Attrs().Name, err))
		}
	}
	w.awaitGone(ours)
}

// awaitGone waits for interfaces that the kernel is removing.
func (w *work) awaitGone(links []netlink.Link) {
	deadline := time.Now().Add(killTimeout)
	for _, l := range links {
		for {
			now, err := netlink.LinkByIndex(l.Attrs().Index)
			if err != nil || now.Attrs().Name != l.Attrs().Name {
				break
			}
			if time.Now().After(deadline) {
				w.Fail(fmt.Errorf("network interface %s is still there", l.Attrs().Name))
				break
			}
			time.Sleep(pollEvery)
		}
	}
}

func (w *work) ourTunnel(l netlink.Link) bool { return slices.Contains(w.Tunnels, l.Attrs().Name) }

// removeRoutes removes those that carry our protocol number.
func (w *work) removeRoutes() {
	ours := &netlink.Route{Protocol: netlink.RouteProtocol(w.Protocol), Table: unix.RT_TABLE_UNSPEC}
	removed := 0
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, ours, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !strings.Contains(err.Error(), "not supported") {
			w.Fail(fmt.Errorf("list routes: %w", err))
			continue
		}
		for _, r := range routes {
			if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				w.Fail(fmt.Errorf("remove the route to %s: %w", r.Dst, err))
				continue
			}
			removed++
		}
	}
	if removed > 0 {
		w.Step("Removed %d routes to pods of other nodes", removed)
	}
}
