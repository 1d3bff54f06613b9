package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/resolver"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// addresses finds networks of the machine that pods or services would hide.
func addresses(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	if err := e.Networks(e.goesBy()); err != nil {
		return wrong(err)
	}
	if results := e.detoured(); len(results) > 0 {
		return results
	}
	return pass(fmt.Sprintf("the node has %v; no network of the machine overlaps pods %v or services %v", e.Config.NodeIP, e.Facts.ClusterCIDR, e.Facts.ServiceCIDR))
}

// goesBy is the configuration with the cluster's ranges, which an agent's own configuration
// does not have.
func (e *Env) goesBy() *config.Config {
	if e.Config.Role == config.Server {
		return e.Config
	}
	return e.Config.With(e.Facts)
}

// Detour is a route of a table that a rule has the kernel ask before the main one,
// as VPNs and policy routing make them.
type Detour struct {
	Prefix    netip.Prefix
	Interface string // "" = nowhere
	Table     int
	Priority  int // of the rule
}

// detours lists those of rules that are for all packets. It leaves out default routes of such tables: they only
// lead what no other route leads, or their maker's rules make exceptions.
func detours() ([]Detour, error) {
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the routing rules: %w", err)
	}
	first := map[int]int{} // the priority by which a table is asked
	for _, r := range rules {
		all := r.Src == nil && r.Dst == nil && r.Mark == 0 && r.IifName == "" && r.OifName == "" && !r.Invert
		if was, ok := first[r.Table]; all && r.Priority < mainPriority && (!ok || r.Priority < was) {
			first[r.Table] = r.Priority
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the routes: %w", err)
	}
	var all []Detour
	for _, r := range routes {
		priority, asked := first[r.Table]
		if !asked || r.Table == unix.RT_TABLE_LOCAL || r.Table == unix.RT_TABLE_MAIN || r.Dst == nil || r.Type == unix.RTN_THROW {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		d := Detour{Prefix: netip.PrefixFrom(addr.Unmap(), bits), Table: r.Table, Priority: priority}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			d.Interface = link.Attrs().Name
		}
		all = append(all, d)
	}
	return all, nil
}

// mainPriority is that of the rule for the main table.
const mainPriority = 32766

// detoured finds those that take packets of pods or Services away.
func (e *Env) detoured() []Result {
	all, err := e.Detours()
	if err != nil {
		return skip(err.Error())
	}
	var results []Result
	for _, p := range slices.Concat(e.Facts.ClusterCIDR, e.Facts.ServiceCIDR) {
		for _, d := range all {
			if d.Prefix.Bits() <= 1 || !d.Prefix.Overlaps(p) {
				continue
			}
			to := "nowhere"
			if d.Interface != "" {
				to = "to " + d.Interface
			}
			results = append(results, warn(fmt.Sprintf("the routing table %d, which rule %d uses before all others, routes %s %s: that is in %s, the range of pods or Services", d.Table, d.Priority, d.Prefix, to, p),
				"remove the route from the VPN or the policy that creates it, or choose other ranges before the first start (--cluster-cidr, --service-cidr)")...)
			break
		}
	}
	return results
}

// ports reports who has ports that the node needs.
func ports(_ context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	listeners, err := e.listeners()
	if err != nil {
		return skip(err.Error())
	}
	var results []Result
	wanted := e.Config.Ports(e.Facts.Backend, e.Facts.Disable)
	held := 0
	for _, p := range wanted {
		for _, l := range listeners {
			if !l.conflicts(p) {
				continue
			}
			switch {
			case l.kernel() && p.Protocol == "udp" && e.ownTunnel():
				held++ // the tunnel is the kernel's, and lite's
			case l.pid != 0 && l.pid == e.Running.PID, l.pid == 0 && e.Running.PID != 0 && l.uid == 0:
				held++
			default:
				results = append(results, fail(fmt.Sprintf("%d/%s, where %s has to listen, is in use by %s", p.Number, p.Protocol, p.Who, l.holder(e.UID == 0)),
					"stop it"+orChoose(p))...)
			}
			break
		}
	}
	if len(results) == 0 && e.Running.PID == 0 {
		// What else a start would find, such as an address that is not there.
		if err := e.Ports(e.Config); err != nil {
			return wrong(err)
		}
	}
	if len(results) > 0 {
		return results
	}
	if held > 0 {
		return pass(fmt.Sprintf("lite itself uses %d (pid %d), the others are free", held, e.Running.PID))
	}
	return pass(fmt.Sprintf("all %d are free", len(wanted)))
}

// orChoose names the option where the port is one.
func orChoose(p config.Port) string {
	switch {
	case p.Who == "the API server":
		return ", or choose another --https-listen-port or --bind-address"
	case p.Protocol == "udp":
		return ", or choose another --flannel-backend"
	case p.Who == "the metrics API":
		return ", or use --disable metrics"
	}
	return ""
}

// ownTunnel is whether the device of the pod network exists, which then has its port.
func (e *Env) ownTunnel() bool {
	return e.exists("/sys/class/net/"+layout.VXLANDevice) || e.exists("/sys/class/net/"+layout.WireGuardDevice)
}

// resolvers is where name servers stand, and the file that pods inherit as people know it.
func (e *Env) resolvers() (resolver.Files, string) {
	usual := resolver.System()
	files := resolver.Files{Usual: e.path(usual.Usual), BehindResolved: e.path(usual.BehindResolved)}
	return files, "/" + strings.TrimPrefix(strings.TrimPrefix(files.File(), e.Root), "/")
}

// inherited finds what keeps the kubelet from reading the file that pods inherit.
func inherited(_ context.Context, e *Env) []Result {
	if e.Config != nil {
		if _, given := kube.Value(e.Config.KubeletArgs, "resolv-conf"); given {
			return nil
		}
	}
	files, file := e.resolvers()
	if number := files.Unfinished(); number > 0 {
		return fail(fmt.Sprintf("line %d of %s is `nameserver` without an address: the kubelet would not start any pod", number, file), "complete or remove the line")
	}
	return nil
}

// nameServers checks which servers pods and the cluster's DNS ask.
func nameServers(ctx context.Context, e *Env) []Result {
	if found := inherited(ctx, e); found != nil {
		return found
	}
	usual := resolver.System()
	files, file := e.resolvers()
	if files.File() == "" {
		if info, err := os.Stat(files.Usual); err == nil && !info.Mode().IsRegular() {
			return warn(usual.Usual+" is not a regular file: no name outside the cluster resolves, and images cannot be pulled", "create a file there, with a line `nameserver <address>`")
		}
		return warn("there is no "+usual.Usual+": no name outside the cluster resolves, and images cannot be pulled", "create one, with a line `nameserver <address>`")
	}
	servers := files.Servers()
	back := slices.ContainsFunc(servers, func(a netip.Addr) bool { return a == e.Facts.ClusterDNS })
	loopback := slices.ContainsFunc(servers, netip.Addr.IsLoopback)
	switch {
	case len(servers) == 0:
		return warn(file+" contains only the stub of systemd-resolved, which has no servers: names outside the cluster do not resolve in pods",
			"configure a server for systemd-resolved (DNS=<address> in /etc/systemd/resolved.conf), or put one into "+usual.Usual)
	case back:
		return fail(fmt.Sprintf("%s contains the cluster's own DNS (%s): queries would loop", file, e.Facts.ClusterDNS), "use the name servers of your network there instead")
	case loopback:
		return warn(fmt.Sprintf("%s contains a loopback address (%s), which is the pod itself inside a pod: pods with dnsPolicy Default cannot resolve names, others reach it through lite", file, join4(servers)),
			"use the name servers of your network in "+file+", or another file with --kubelet-arg resolv-conf=<file>")
	case len(servers) > 3:
		return warn(fmt.Sprintf("%s contains %d servers; pods get the first 3 of them", file, len(servers)), "use 3 at most")
	}
	return pass(fmt.Sprintf("%s, of %s", join4(servers), file))
}

// join4 lists addresses.
func join4(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// reachServer tries what an agent would.
func reachServer(ctx context.Context, e *Env) []Result {
	if e.Config == nil {
		return noConfig()
	}
	if e.Running.Node != nil && e.Running.Node.Ready {
		return pass("this node is in its cluster")
	}
	addresses, err := e.serverAddresses()
	if err != nil {
		return refused(err)
	}
	if len(addresses) == 0 {
		return skip("no server is configured; pass --server, or a --token that contains its address")
	}
	var errs []error
	for _, a := range addresses {
		began := time.Now()
		if err := e.Dial(ctx, a); err != nil {
			errs = append(errs, err)
			continue
		}
		return pass(fmt.Sprintf("%s answers within %s", a, millis(time.Since(began))))
	}
	port := layout.APIPortText
	if _, p, err := net.SplitHostPort(addresses[0]); err == nil {
		port = p
	}
	return fail(fmt.Sprintf("cannot reach any server: %v", errors.Join(errs...)),
		"start `lite server` there, open its port "+port+"/tcp (`lite check` there shows how), or correct --server")
}

// serverAddresses is host:port of the servers that an agent is configured with, or knows.
func (e *Env) serverAddresses() ([]string, error) {
	var urls []string
	c := e.Config
	if c.ServerURL != "" {
		urls = append(urls, c.ServerURL)
	} else if c.Token != "" || c.TokenFile != "" {
		t, err := join.Read(c.Token, c.TokenFile)
		if err != nil && !denied(err) {
			return nil, err
		}
		if t.Server != "" {
			return []string{t.Server}, nil
		}
	}
	if len(urls) == 0 {
		var m agent.Membership
		if data, err := e.read(c.Layout().Data.Agent().Cluster()); err == nil {
			_ = json.Unmarshal(data, &m) // what is damaged names none
		}
		urls = m.Servers
	}
	var all []string
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", s, err)
		}
		all = append(all, u.Host)
	}
	return all, nil
}
