// Package agent puts a node together: the container runtime, the pod network,
// the kubelet and kube-proxy. A server runs the same code.
package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"

	"lite.io/lite/pkg/addon/dns"
	"lite.io/lite/pkg/addon/storage"
	"lite.io/lite/pkg/agent/apiproxy"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/agent/kubelet"
	"lite.io/lite/pkg/agent/kubeproxy"
	"lite.io/lite/pkg/cni"
	"lite.io/lite/pkg/cni/policy"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/helpers"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/host/resolver"
	"lite.io/lite/pkg/host/watch"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki/expiry"
	"lite.io/lite/pkg/version"
)

// Config is what a node has to be told beyond what its user said.
type Config struct {
	Node       *config.Config
	Cluster    join.Facts
	Host       Host
	Kubeconfig string // of the node's identity, system:node:<name>
	Server     string // of a server: the kubeconfig by which its node gets its role
	CAFile     string // of the cluster's authority
	// Certificates tells of those that end; it is a part of every node.
	Certificates *expiry.Watch
	// The kubelet's serving certificate; "" = the kubelet asks the cluster for
	// one and renews both of its own.
	CertFile string
	KeyFile  string
}

// RememberName makes the node keep its name when the machine's changes.
func RememberName(c *config.Config) error {
	if err := file.Write(c.Layout().Data.NodeName(), []byte(c.NodeName+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the node's name: %w", err)
	}
	return nil
}

// Socket is the address of the container runtime of a node.
func Socket(c *config.Config) string {
	if c.ContainerRuntimeEndpoint != "" {
		return c.ContainerRuntimeEndpoint
	}
	return "unix://" + c.Layout().Run.Containerd().Socket()
}

// New puts an agent together: the parts of a node, and before them the load
// balancer by which they reach the servers. Nothing is touched before Run.
func New(cfg *config.Config, m Membership, host Host, onChange func(component.Status)) (*Agent, error) {
	var seeds []string
	for _, server := range m.Servers {
		u, err := url.Parse(server)
		if err != nil {
			return nil, fmt.Errorf("the server's address %q: %w", server, err)
		}
		seeds = append(seeds, u.Host)
	}
	b, err := apiproxy.New(apiproxy.Config{
		Listen:     layout.Local(layout.BalancerPort),
		Seed:       seeds,
		File:       cfg.Layout().Data.Agent().Servers(),
		CAFile:     m.CAFile(),
		Kubeconfig: m.Kubeconfig(),
	})
	if err != nil {
		return nil, err
	}
	certs := expiry.New(expiry.Config{
		NodeName: cfg.NodeName, Kubeconfig: m.Kubeconfig(), Files: m.certificateFiles(cfg), Uses: Uses(m.CAFile(), m.clientCertificate()),
	})
	a := &Agent{Group: &component.Group{OnChange: onChange, Veto: certs.Veto}, Balancer: b, Certificates: certs}
	node := Config{Node: cfg, Cluster: m.Facts, Host: host, Kubeconfig: m.Kubeconfig(), CAFile: m.CAFile(), Certificates: certs}
	if err := Add(a.Group, node, a.Add(b)); err != nil {
		return nil, err
	}
	return a, kube.SettleGates()
}

// Check parses what the user says to the parts of an agent, as New does, without
// a cluster.
func Check(cfg *config.Config, host Host) error {
	_, err := New(cfg, unknownCluster(cfg), host, func(component.Status) {})
	return err
}

// CheckArguments is the part of Check about arguments and the files that they name.
// It leaves the process as it is, so a node can start afterwards.
func CheckArguments(cfg *config.Config, host Host) error {
	m := unknownCluster(cfg)
	c := Config{Node: cfg, Cluster: m.Facts, Host: host, Kubeconfig: m.Kubeconfig(), CAFile: m.CAFile()}
	return errors.Join(kubelet.Check(kubeletConfig(c)), kubeproxy.Check(proxyConfig(c)))
}

// unknownCluster makes up what a cluster would tell.
func unknownCluster(cfg *config.Config) Membership {
	network := netip.MustParsePrefix("192.0.2.0/24")
	return Membership{
		Servers: []string{"https://192.0.2.1:" + layout.APIPortText},
		Facts: join.Facts{
			ClusterCIDR: []netip.Prefix{network}, ServiceCIDR: []netip.Prefix{network}, ClusterDNS: network.Addr().Next(),
			ClusterDomain: "cluster.local", Backend: "vxlan",
		},
		dir: cfg.Layout().Data.Agent(),
	}
}

// Agent is a node without a control plane. Its group is complete.
type Agent struct {
	*component.Group
	Balancer     *apiproxy.Balancer
	Certificates *expiry.Watch
}

// carrier is the address by which other nodes' pods are reached: packets between
// nodes are carried over IPv4, whichever family is the first.
func carrier(ips []netip.Addr) netip.Addr {
	if i := slices.IndexFunc(ips, netip.Addr.Is4); i >= 0 {
		return ips[i]
	}
	return ips[0]
}

// Add adds the components of a node to g. api is ready when the API can be
// reached; nil if it can be from the beginning.
func Add(g *component.Group, c Config, api *component.Node) error {
	n := c.Node
	at := n.Layout()
	dir := at.Data.Agent()
	helpers, err := helpers.At(n.DataDir)
	if err != nil {
		return err
	}
	confDir := dir.CNI()
	if slices.Contains(c.Cluster.Disable, "cni") {
		confDir = at.Host.CNIConf // where everybody else's network plugin writes
	}

	g.Add(c.Certificates)
	watcher := firewall.New()
	g.Add(watcher)
	g.Add(watch.New(watch.Config{Addresses: n.NodeIP, Standby: n.Standby, Find: c.Host.Addresses, Built: version.Built()}))

	var ports []int // that pods have to reach on their node
	if !slices.Contains(c.Cluster.Disable, "dns") {
		ports = []int{layout.DNSPort, layout.DNSMetricsPort}
		// It needs nobody to answer what it knows, and pods ask until the end.
		g.AddLast(dns.New(nameServer(c, dir.DNS())))
	}

	tools := g.Add(&unpacker{dataDir: n.DataDir})
	var runtime, sandbox *component.Node
	if n.ContainerRuntimeEndpoint == "" {
		cfg := containerd.Config{
			DataDir:          n.DataDir,
			Dir:              dir.Containerd(),
			StateDir:         at.Run.Containerd(),
			TempDir:          at.Run.Temporary(),
			Helpers:          helpers,
			CNIConfDir:       confDir,
			RegistryFile:     n.PrivateRegistry,
			SystemdCgroup:    c.Host.Systemd,
			RestrictOOMScore: c.Host.Limited,
		}
		ctd, err := containerd.New(cfg)
		if err != nil {
			return err
		}
		runtime = g.Add(ctd, tools)
		sandbox = g.Add(images.BuiltIn(cfg.Socket(), ctd.Contents, helpers.Images()), runtime)
		// Unpacking gigabytes must not keep the API server from starting.
		g.Add(images.Directory(cfg.Socket(), ctd.Contents, dir.Images()), runtime, api)
	}

	k, err := kubelet.New(kubeletConfig(c))
	if err != nil {
		return err
	}
	kl := g.Add(k, runtime, sandbox, api, tools)

	network := kl
	if !slices.Contains(c.Cluster.Disable, "cni") {
		network = g.Add(cni.New(cni.Config{
			NodeName:    n.NodeName,
			NodeIP:      carrier(n.NodeIP),
			Kubeconfig:  c.Kubeconfig,
			ClusterCIDR: c.Cluster.ClusterCIDR,
			Backend:     c.Cluster.Backend,
			Interface:   n.FlannelIface,
			KeyFile:     dir.OverlayKey(),
			Ports:       ports,
			NFTables:    c.Host.NFTables,
			Runtime:     Socket(n),
			ConfDir:     confDir,
			Plugins:     helpers.CNI(),
			StateDir:    at.Run.CNI(),
			Firewall:    watcher,
		}), api, tools)
	}
	// Another network plugin has an engine of its own for policies, or none.
	if slices.Contains(c.Cluster.Disable, "networkpolicy") || slices.Contains(c.Cluster.Disable, "cni") {
		g.Add(&policy.Absent{})
	} else {
		g.Add(policy.New(policy.Config{Kubeconfig: c.Kubeconfig, ClusterCIDR: c.Cluster.ClusterCIDR, Runtime: Socket(n), Firewall: watcher}), api, tools)
	}
	if !slices.Contains(c.Cluster.Disable, "kube-proxy") {
		proxy := proxyConfig(c)
		proxy.Firewall = watcher
		p, err := kubeproxy.New(proxy)
		if err != nil {
			return err
		}
		// It waits for the address of its node, and the pod network has found
		// the node.
		g.Add(p, network, tools)
	}
	r := &readiness{name: n.NodeName, kubeconfig: c.Kubeconfig, server: c.Server}
	if slices.Contains(c.Cluster.Disable, "storage") {
		r.unwanted = append(r.unwanted, layout.StoragePathAnnotation, layout.StorageLabel)
	} else {
		g.Add(storage.NewVolumes(storage.VolumesConfig{NodeName: n.NodeName, Kubeconfig: c.Kubeconfig, Path: n.LocalStoragePath}), network)
	}
	g.Add(r, kl, network)
	return nil
}

func kubeletConfig(c Config) kubelet.Config {
	n, at := c.Node, c.Node.Layout()
	return kubelet.Config{
		Dir:           at.Data.Agent().Kubelet(),
		Root:          at.Host.Kubelet,
		NodeName:      n.NodeName,
		NodeIP:        n.NodeIP,
		Labels:        n.NodeLabels,
		Taints:        n.NodeTaints,
		ClusterDNS:    c.Cluster.ClusterDNS,
		ClusterDomain: c.Cluster.ClusterDomain,
		Kubeconfig:    c.Kubeconfig,
		CAFile:        c.CAFile,
		CertFile:      c.CertFile,
		KeyFile:       c.KeyFile,
		Runtime:       Socket(n),
		ResolvConf:    resolver.System().File(),
		Systemd:       c.Host.Systemd,
		Protect:       n.Profile == config.ProfileCIS,
		ExtraArgs:     n.KubeletArgs,
	}
}

func proxyConfig(c Config) kubeproxy.Config {
	n := c.Node
	return kubeproxy.Config{
		NodeName:      n.NodeName,
		NodeIP:        n.NodeIP[0],
		Kubeconfig:    c.Kubeconfig,
		ClusterCIDR:   kube.Join(c.Cluster.ClusterCIDR),
		KeepConntrack: c.Host.Limited,
		NFTables:      c.Host.NFTables,
		ExtraArgs:     n.KubeProxyArgs,
	}
}

// nameServer is what the node's DNS has to be told. Without our pod network there
// is no bridge of ours to listen on.
func nameServer(c Config, dir string) dns.Config {
	d := dns.Config{NodeName: c.Node.NodeName, Kubeconfig: c.Kubeconfig, Dir: dir, Resolvers: resolver.System()}
	if slices.Contains(c.Cluster.Disable, "cni") {
		d.Listen, d.Clients = c.Node.NodeIP, c.Cluster.ClusterCIDR
	}
	return d
}
