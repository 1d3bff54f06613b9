package kubeproxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/events"
	utilsysctl "k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
	"k8s.io/kubernetes/pkg/proxy"
	kubeproxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	"k8s.io/kubernetes/pkg/proxy/apis/config/scheme"
	"k8s.io/kubernetes/pkg/proxy/config"
	"k8s.io/kubernetes/pkg/proxy/conntrack"
	"k8s.io/kubernetes/pkg/proxy/healthcheck"
	"k8s.io/kubernetes/pkg/proxy/iptables"
	"k8s.io/kubernetes/pkg/proxy/ipvs"
	"k8s.io/kubernetes/pkg/proxy/ipvs/ipset"
	ipvsutil "k8s.io/kubernetes/pkg/proxy/ipvs/util"
	"k8s.io/kubernetes/pkg/proxy/metaproxier"
	"k8s.io/kubernetes/pkg/proxy/nftables"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
	utiliptables "k8s.io/kubernetes/pkg/util/iptables"
	utilnode "k8s.io/kubernetes/pkg/util/node"

	"lite.io/lite/pkg/host/probe"
)

// families are those of addresses, in the order in which rules are written.
var families = []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}

// compose puts upstream's server together as upstream's own command does, except for its
// NodeManager, which ends the process, and so the datastore with it, when the Node is
// deleted or gets another address (1.37). pkg/host/watch watches the machine's address, and
// a deleted Node is not a reason to stop.
func (p *Proxy) compose(ctx context.Context, client kubernetes.Interface, node *v1.Node) (*app.ProxyServer, error) {
	cleanUp(ctx, p.settings.Mode)
	if err := conntrack.SetSysctls(ctx, &p.settings.Linux.Conntrack); err != nil && !p.config.KeepConntrack {
		return nil, fmt.Errorf("set the limits of connection tracking: %w", err)
	} else if err != nil {
		slog.InfoContext(ctx, "Cannot set timeouts of connection tracking", "err", err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	s := &app.ProxyServer{
		Config:      p.settings,
		Client:      client,
		Broadcaster: broadcaster,
		Recorder:    broadcaster.NewRecorder(scheme.Scheme, "kube-proxy"),
		NodeRef:     &v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: p.config.NodeName},
		NodeName:    p.config.NodeName,
	}
	s.PrimaryIPFamily, s.NodeIPs = addresses(node, p.settings.BindAddress)
	p.settings.NodePortAddresses = nodePortAddresses(p.settings.NodePortAddresses, s.NodeIPs)

	factory := informers.NewSharedInformerFactoryWithOptions(client, p.settings.ConfigSyncPeriod.Duration,
		informers.WithTransform(withoutManagers),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", p.config.NodeName).String()
		}))
	nodes := factory.Core().V1().Nodes()
	s.HealthzServer = healthcheck.NewProxyHealthServer(p.settings.HealthzBindAddress, 2*p.settings.SyncPeriod.Duration,
		self{nodes.Lister(), p.config.NodeName})
	var podCIDRs []string
	if node != nil {
		podCIDRs = node.Spec.PodCIDRs
	}
	proxier, err := newProxier(ctx, s, localDetectors(p.settings, podCIDRs))
	if err != nil {
		return nil, err
	}
	s.Proxier = &writer{Provider: proxier}
	// Zones, for traffic that has to stay in one.
	topology := config.NewNodeTopologyConfig(ctx, nodes, p.settings.ConfigSyncPeriod.Duration)
	topology.RegisterEventHandler(s.Proxier)
	factory.Start(ctx.Done())
	return s, nil
}

// self is the node as kube-proxy's health server asks for it: a balancer outside
// the cluster learns from it that the node is about to go.
type self struct {
	nodes corelisters.NodeLister
	name  string
}

func (s self) Node() *v1.Node {
	node, err := s.nodes.Get(s.name)
	if err != nil {
		return nil
	}
	return node
}

// withoutManagers drops what takes the most room in a Node and is not read.
func withoutManagers(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// cleanUp removes the rules that kube-proxy has made in another mode. What fails is
// logged by upstream and keeps nothing from working.
func cleanUp(ctx context.Context, mode kubeproxyconfig.ProxyMode) {
	if mode == kubeproxyconfig.ProxyModeNFTables {
		iptables.CleanupLeftovers(ctx)
		ipvs.CleanupLeftovers(ctx)
		return
	}
	nftables.CleanupLeftovers(ctx)
}

// addresses is the node's first IP family, and its address in each, which is loopback where
// it has none.
func addresses(node *v1.Node, bind string) (v1.IPFamily, map[v1.IPFamily]net.IP) {
	ips := map[v1.IPFamily]net.IP{v1.IPv4Protocol: net.IPv4(127, 0, 0, 1), v1.IPv6Protocol: net.IPv6loopback}
	primary := v1.IPv4Protocol
	if node != nil {
		own, _ := utilnode.GetNodeHostIPs(node) // none is no error here
		for i, ip := range own {
			ips[proxyutil.GetIPFamilyFromIP(ip)] = ip
			if i == 0 {
				primary = proxyutil.GetIPFamilyFromIP(ip)
			}
		}
	}
	if ip := net.ParseIP(bind); ip != nil && !ip.IsUnspecified() {
		primary = proxyutil.GetIPFamilyFromIP(ip)
		ips[primary] = ip
	}
	return primary, ips
}

// nodePortAddresses expands the words for ranges.
func nodePortAddresses(ranges []string, ips map[v1.IPFamily]net.IP) []string {
	var out []string
	for _, r := range ranges {
		switch r {
		case kubeproxyconfig.NodePortAddressesPrimary:
			for _, f := range families {
				if ip := ips[f]; !ip.IsLoopback() {
					out = append(out, ip.String()+map[v1.IPFamily]string{v1.IPv4Protocol: "/32", v1.IPv6Protocol: "/128"}[f])
				}
			}
		case kubeproxyconfig.NodePortAddressesLocalhost:
			out = append(out, "127.0.0.0/8", "::1/128")
		case kubeproxyconfig.NodePortAddressesAll:
			out = append(out, proxyutil.IPv4ZeroCIDR, proxyutil.IPv6ZeroCIDR)
		default:
			out = append(out, r)
		}
	}
	return out
}

// localDetectors recognize, per family, traffic of this node's pods.
func localDetectors(settings *kubeproxyconfig.KubeProxyConfiguration, podCIDRs []string) map[v1.IPFamily]proxyutil.LocalTrafficDetector {
	local := map[v1.IPFamily]proxyutil.LocalTrafficDetector{}
	for _, f := range families {
		local[f] = proxyutil.NewNoOpLocalDetector()
		switch settings.DetectLocalMode {
		case kubeproxyconfig.LocalModeBridgeInterface:
			local[f] = proxyutil.NewDetectLocalByBridgeInterface(settings.DetectLocal.BridgeInterface)
		case kubeproxyconfig.LocalModeInterfaceNamePrefix:
			local[f] = proxyutil.NewDetectLocalByInterfaceNamePrefix(settings.DetectLocal.InterfaceNamePrefix)
		}
	}
	ranges := settings.DetectLocal.ClusterCIDRs
	switch settings.DetectLocalMode {
	case kubeproxyconfig.LocalModeNodeCIDR:
		ranges = podCIDRs
	case kubeproxyconfig.LocalModeClusterCIDR:
	default:
		return local
	}
	for f, cidrs := range proxyutil.MapCIDRsByIPFamily(ranges) {
		local[f] = proxyutil.NewDetectLocalByCIDR(cidrs[0].String())
	}
	return local
}

// newProxier is one for each family that the machine has.
func newProxier(ctx context.Context, s *app.ProxyServer, local map[v1.IPFamily]proxyutil.LocalTrafficDetector) (proxy.Provider, error) {
	made := map[v1.IPFamily]proxy.Provider{}
	for _, f := range families {
		if supported(s.Config.Mode, f) {
			var err error
			if made[f], err = newOf(ctx, s, f, local[f]); err != nil {
				return nil, fmt.Errorf("%s for %s: %w", s.Config.Mode, f, err)
			}
		}
	}
	switch {
	case made[s.PrimaryIPFamily] == nil:
		return nil, fmt.Errorf("kube-proxy has no %s for %s, the family of the node's address: the machine's programs or its kernel do not support it", s.Config.Mode, s.PrimaryIPFamily)
	case len(made) == 1:
		return made[s.PrimaryIPFamily], nil
	}
	return metaproxier.NewMetaProxier(made[v1.IPv4Protocol], made[v1.IPv6Protocol]), nil
}

// newOf is that of one family. The types that upstream returns differ.
func newOf(ctx context.Context, s *app.ProxyServer, f v1.IPFamily, local proxyutil.LocalTrafficDetector) (proxy.Provider, error) {
	switch s.Config.Mode {
	case kubeproxyconfig.ProxyModeIPTables:
		return iptables.NewProxier(ctx, s.Config, f, utiliptables.New(protocol(f)), utilsysctl.New(), local, s.NodeName, s.NodeIPs[f],
			s.Recorder, s.HealthzServer, false)
	case kubeproxyconfig.ProxyModeIPVS:
		services, sets := ipvsutil.New(), ipset.New()
		if err := ipvs.CanUseIPVSProxier(ctx, services, sets, s.Config.IPVS.Scheduler); err != nil {
			return nil, err
		}
		return ipvs.NewProxier(ctx, s.Config, f, utiliptables.New(protocol(f)), services, sets, utilsysctl.New(), local, s.NodeName,
			s.NodeIPs[f], s.Recorder, s.HealthzServer, false)
	}
	return nftables.NewProxier(ctx, s.Config, f, local, s.NodeName, s.NodeIPs[f], s.Recorder, s.HealthzServer, false)
}

// supported is whether the machine carries Services of a family.
func supported(mode kubeproxyconfig.ProxyMode, f v1.IPFamily) bool {
	if f == v1.IPv6Protocol {
		if !probe.HasIPv6() {
			return false
		}
		if off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil && strings.TrimSpace(string(off)) == "1" {
			return false
		}
	}
	// nft knows both.
	return mode == kubeproxyconfig.ProxyModeNFTables || utiliptables.New(protocol(f)).Present() == nil
}

func protocol(f v1.IPFamily) utiliptables.Protocol {
	if f == v1.IPv6Protocol {
		return utiliptables.ProtocolIPv6
	}
	return utiliptables.ProtocolIPv4
}
