package battery

import (
	"net/netip"
	"slices"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/addon/dns"
	"lite.io/lite/pkg/addon/storage"
	"lite.io/lite/pkg/agent/kubeproxy"
	"lite.io/lite/pkg/cni"
	"lite.io/lite/pkg/cni/policy"
	"lite.io/lite/pkg/host/resolver"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// nameServer answers from what it knows without other components, and pods use it until the end. Without our pod
// network, it has no bridge to listen on.
func nameServer(n *Node) error {
	dir := n.Config.Layout().Data.Agent().DNS()
	c := dns.Config{NodeName: n.Config.NodeName, Client: n.Client, Dir: dir, Resolvers: resolver.System()}
	if n.Cluster.Disable.Has(addon.CNI) {
		c.Listen, c.Clients = n.Config.NodeIP, n.Cluster.ClusterCIDR
	}
	n.Group.AddLast(dns.New(c))
	return nil
}

func podNetwork(n *Node) error {
	at := n.Config.Layout()
	n.Network = n.Group.Add(cni.New(cni.Config{
		NodeName:    n.Config.NodeName,
		NodeIP:      carrier(n.Config.NodeIP),
		Client:      n.Client,
		Nodes:       n.Nodes,
		ClusterCIDR: n.Cluster.ClusterCIDR,
		Backend:     n.Cluster.Backend,
		Interface:   n.Config.FlannelIface,
		KeyFile:     at.Data.Agent().OverlayKey(),
		Ports:       portsForPods(n.Cluster.Disable),
		NFTables:    n.NFTables,
		Runtime:     n.Runtime,
		ConfDir:     n.ConfDir,
		Plugins:     n.Helpers.CNI(),
		StateDir:    at.Run.CNI(),
		Firewall:    n.Firewall,
	}), n.API, n.Tools)
	return nil
}

// carrier is the address through which nodes reach each other's pods: packets between nodes are carried over
// IPv4, whichever family is the first.
func carrier(ips []netip.Addr) netip.Addr {
	if i := slices.IndexFunc(ips, netip.Addr.Is4); i >= 0 {
		return ips[i]
	}
	return ips[0]
}

// portsForPods is those that pods have to reach on their node.
func portsForPods(disable addon.Disabled) (ports []int) {
	for _, p := range layout.Ports() {
		if p.At == layout.ForPods && !disable.Frees(p.Number) && !slices.Contains(ports, p.Number) {
			ports = append(ports, p.Number)
		}
	}
	return ports
}

func policies(n *Node) error {
	n.Group.Add(policy.New(policy.Config{
		Client: n.Client, Nodes: n.Nodes, ClusterCIDR: n.Cluster.ClusterCIDR, Runtime: n.Runtime, Firewall: n.Firewall,
	}), n.API, n.Tools)
	return nil
}

func noPolicies(n *Node) { n.Group.Add(&policy.Absent{}) }

// serviceProxy waits for the address of its node, and the pod network has found the node.
func serviceProxy(n *Node) error {
	p, err := kubeproxy.New(proxyConfig(n))
	if err != nil {
		return err
	}
	n.Group.Add(p, n.Network, n.Tools)
	return nil
}

func checkProxy(n *Node) error { return kubeproxy.Check(proxyConfig(n)) }

func proxyConfig(n *Node) kubeproxy.Config {
	return kubeproxy.Config{
		NodeName:      n.Config.NodeName,
		NodeIP:        n.Config.NodeIP[0],
		Kubeconfig:    n.Client.Kubeconfig(),
		ClusterCIDR:   kube.Join(n.Cluster.ClusterCIDR),
		KeepConntrack: n.Limited,
		NFTables:      n.NFTables,
		ExtraArgs:     n.Config.KubeProxyArgs,
		Firewall:      n.Firewall,
	}
}

func volumes(n *Node) error {
	n.Group.Add(storage.NewVolumes(storage.VolumesConfig{
		NodeName: n.Config.NodeName, Client: n.Client, Path: n.Config.LocalStoragePath,
	}), n.Network)
	return nil
}
