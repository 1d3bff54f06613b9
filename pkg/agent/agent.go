// Package agent puts a node together: the container runtime, the pod network,
// the kubelet and kube-proxy. A server runs the same code.
package agent

import (
	"errors"
	"fmt"
	"net/url"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/addon/battery"
	"lite.io/lite/pkg/agent/apiproxy"
	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/agent/kubelet"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/helpers"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/host/resolver"
	"lite.io/lite/pkg/host/watch"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki/expiry"
	"lite.io/lite/pkg/version"
)

// Config is what a node needs beyond its configuration.
type Config struct {
	Node    *config.Config
	Cluster cluster.Facts
	Host    Host
	Client  *kube.Client // of the node's identity, system:node:<name>
	Nodes   *kube.Nodes
	Server  *kube.Client // of a server: the identity that gives its node the role
	// APINames is what the API server of this node is called, besides its name and addresses.
	APINames []string
	CAFile   string // of the cluster's authority
	// Certificates reports those that expire; every node has it.
	Certificates *expiry.Watch
	// The kubelet's serving certificate; "" = the kubelet requests one from the cluster and
	// renews both of its certificates.
	CertFile string
	KeyFile  string
}

// Remember makes the node keep its name when the machine's changes, and stamps the data
// directory with its role, which is known from then on.
func Remember(c *config.Config) error {
	at := c.Layout().Data
	if err := file.Write(at.NodeName(), []byte(c.NodeName+"\n"), 0o600); err != nil {
		return fmt.Errorf("record the node's name: %w", err)
	}
	if err := file.Write(at.Role(), []byte(string(c.Role)+"\n"), 0o600); err != nil {
		return fmt.Errorf("record the node's role: %w", err)
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

// New puts an agent together: the components of a node, and before them the load balancer
// through which they reach the servers. Nothing changes before Run.
func New(cfg *config.Config, m Membership, host Host, onChange func(component.Status)) (*Agent, error) {
	var seeds []string
	for _, server := range m.Servers {
		u, err := url.Parse(server)
		if err != nil {
			return nil, fmt.Errorf("the server's address %q: %w", server, err)
		}
		seeds = append(seeds, u.Host)
	}
	client := kube.NewClient(m.Kubeconfig(), "node")
	b, err := apiproxy.New(apiproxy.Config{
		Listen: layout.Local(layout.BalancerPort),
		Seed:   seeds,
		File:   cfg.Layout().Data.Agent().Servers(),
		CAFile: m.CAFile(),
		Client: client,
	})
	if err != nil {
		return nil, err
	}
	certs := expiry.New(expiry.Config{
		NodeName: cfg.NodeName, Client: client, Files: m.certificateFiles(cfg), Uses: Uses(m.CAFile(), m.clientCertificate()),
	})
	a := &Agent{Group: &component.Group{OnChange: onChange, Veto: certs.Veto}, Balancer: b, Certificates: certs}
	node := Config{
		Node: cfg, Cluster: m.Facts, Host: host, Client: client, Nodes: kube.NewNodes(client),
		CAFile: m.CAFile(), Certificates: certs,
	}
	if err := Add(a.Group, node, a.Add(b)); err != nil {
		return nil, err
	}
	return a, kube.SettleGates()
}

// Check parses the user's arguments for components of an agent, as New does, without a
// cluster.
func Check(cfg *config.Config, host Host) error {
	_, err := New(cfg, unknownCluster(cfg), host, func(component.Status) {})
	return err
}

// CheckArguments is the part of Check about arguments and the files that they name.
// It leaves the process as it is, so a node can start afterwards.
func CheckArguments(cfg *config.Config, host Host) error {
	m := unknownCluster(cfg)
	c := Config{Node: cfg, Cluster: m.Facts, Host: host, Client: kube.NewClient(m.Kubeconfig(), "node"), CAFile: m.CAFile()}
	return errors.Join(kubelet.Check(kubeletConfig(c)), battery.CheckNode(batteryNode(c)))
}

// unknownCluster is made up in place of what a cluster would send.
func unknownCluster(cfg *config.Config) Membership {
	return Membership{
		Servers: []string{"https://192.0.2.1:" + layout.APIPortText}, Facts: config.StandardFacts(), dir: cfg.Layout().Data.Agent(),
	}
}

// Agent is a node without a control plane. Its group is complete.
type Agent struct {
	*component.Group
	Balancer     *apiproxy.Balancer
	Certificates *expiry.Watch
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
	if c.Cluster.Disable.Has(addon.CNI) {
		confDir = at.Host.CNIConf // where everybody else's network plugin writes
	}

	g.Add(c.Certificates)
	watcher := firewall.New()
	g.Add(watcher)
	g.Add(watch.New(watch.Config{Addresses: n.NodeIP, Standby: n.Standby, Find: c.Host.Addresses, Built: version.Built()}))

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

	b := batteryNode(c)
	b.Group, b.ConfDir, b.Helpers, b.Firewall, b.API, b.Tools, b.Network = g, confDir, helpers, watcher, api, tools, kl
	if err := battery.AddToNode(b); err != nil {
		return err
	}
	g.Add(&readiness{name: n.NodeName, as: c.Client, server: c.Server, names: c.APINames,
		unwanted: c.Cluster.Disable.Marks()}, kl, b.Network)
	return nil
}

// batteryNode is what batteries get, without a group.
func batteryNode(c Config) *battery.Node {
	return &battery.Node{
		Config: c.Node, Cluster: c.Cluster, Client: c.Client, Nodes: c.Nodes, Runtime: Socket(c.Node), NFTables: c.Host.NFTables,
		Limited: c.Host.Limited,
	}
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
		Kubeconfig:    c.Client.Kubeconfig(),
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
