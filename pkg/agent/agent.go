// Package agent puts a node together: the container runtime, the pod network,
// the kubelet and kube-proxy. A server runs the same code.
package agent

import (
	"path/filepath"
	"slices"

	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/agent/images"
	"lite.io/lite/pkg/agent/kubelet"
	"lite.io/lite/pkg/agent/kubeproxy"
	"lite.io/lite/pkg/bundle"
	"lite.io/lite/pkg/cni"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// StateDir is where a node keeps what a reboot makes worthless.
const StateDir = "/run/lite"

// Config is what a node has to be told beyond what its user said.
type Config struct {
	Node       *config.Config
	Host       Host
	Kubeconfig string  // of the node's identity, system:node:<name>
	PKI        pki.Dir // holds the cluster's authority and the kubelet's serving certificate
}

// Dir is where the parts of a node keep their files.
func Dir(dataDir string) string { return filepath.Join(dataDir, "agent") }

// Socket is the address of the container runtime of a node.
func Socket(c *config.Config) string {
	if c.ContainerRuntimeEndpoint != "" {
		return c.ContainerRuntimeEndpoint
	}
	return "unix://" + containerd.Config{StateDir: filepath.Join(StateDir, "containerd")}.Socket()
}

// Add adds the components of a node to g. api is ready when the API can be
// reached; nil if it can be from the beginning.
func Add(g *component.Group, c Config, api *component.Node) error {
	n := c.Node
	dir := Dir(n.DataDir)
	helpers, err := bundle.At(n.DataDir)
	if err != nil {
		return err
	}
	confDir := filepath.Join(dir, "cni")

	var runtime, sandbox *component.Node
	if n.ContainerRuntimeEndpoint == "" {
		cfg := containerd.Config{
			DataDir:          n.DataDir,
			Dir:              filepath.Join(dir, "containerd"),
			StateDir:         filepath.Join(StateDir, "containerd"),
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
		runtime = g.Add(ctd)
		sandbox = g.Add(images.BuiltIn(cfg.Socket(), helpers.Images()), runtime)
		// Unpacking gigabytes must not keep the API server from starting.
		g.Add(images.Directory(cfg.Socket(), filepath.Join(dir, "images")), runtime, api)
	}

	k, err := kubelet.New(kubelet.Config{
		Dir:           filepath.Join(dir, "kubelet"),
		NodeName:      n.NodeName,
		NodeIP:        n.NodeIP,
		Labels:        n.NodeLabels,
		Taints:        n.NodeTaints,
		ClusterDNS:    n.ClusterDNS,
		ClusterDomain: n.ClusterDomain,
		Kubeconfig:    c.Kubeconfig,
		CAFile:        c.PKI.CA(pki.ClusterCA),
		CertFile:      c.PKI.Cert(pki.Kubelet),
		KeyFile:       c.PKI.Key(pki.Kubelet),
		Runtime:       Socket(n),
		ResolvConf:    resolvConf(),
		Systemd:       c.Host.Systemd,
		ExtraArgs:     n.KubeletArgs,
	})
	if err != nil {
		return err
	}
	kl := g.Add(k, runtime, sandbox, api)

	network := kl
	if !slices.Contains(n.Disable, "cni") {
		network = g.Add(cni.New(cni.Config{
			NodeName:    n.NodeName,
			NodeIP:      n.NodeIP[0],
			Kubeconfig:  c.Kubeconfig,
			ClusterCIDR: n.ClusterCIDR,
			ConfDir:     confDir,
			StateDir:    filepath.Join(StateDir, "cni"),
		}), api)
	}
	if !slices.Contains(n.Disable, "kube-proxy") {
		p, err := kubeproxy.New(kubeproxy.Config{
			NodeName:      n.NodeName,
			Kubeconfig:    c.Kubeconfig,
			ClusterCIDR:   kube.Join(n.ClusterCIDR),
			KeepConntrack: c.Host.Limited,
			ExtraArgs:     n.KubeProxyArgs,
		})
		if err != nil {
			return err
		}
		// It looks for its node once a second until there is one (1.36); the
		// pod network has found it.
		g.Add(p, network)
	}
	g.Add(&readiness{name: n.NodeName, kubeconfig: c.Kubeconfig}, kl, network)
	return nil
}
