// Package cni is the pod network of a node: a bridge for its pods, rules that forward and
// masquerade their packets, and the configuration with which containerd finds it.
package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/cni/overlay"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Config is the configuration of the pod network.
type Config struct {
	NodeName    string
	NodeIP      netip.Addr
	Client      *kube.Client
	Nodes       *kube.Nodes
	ClusterCIDR []netip.Prefix
	Backend     string // of the overlay, as package overlay names them, or none
	Interface   string // that carries the packets between nodes; "" = the one that has NodeIP
	Runtime     string // unix:// URL of the CRI
	// Ports are those of the bridge's addresses that pods and nodes reach whatever
	// packet filter the machine has, and nobody else.
	Ports []int
	// NFTables carries hostPorts, otherwise iptables does.
	NFTables bool
	KeyFile  string // the node's private key, should the backend need one
	ConfDir  string // where the description is written
	Plugins  string // the directory of the CNI plugins
	// Firewall notices when somebody removes what the network consists of.
	Firewall *firewall.Watcher
	// StateDir holds the addresses given out. It is on a tmpfs: no pod, and
	// so no address, outlives a reboot.
	StateDir string
}

// reconcileEvery is how often the way to other nodes is checked.
const reconcileEvery = 30 * time.Second

// Network is the component.
type Network struct {
	config  Config
	written atomic.Bool
	twin    atomic.Pointer[twin]

	overlayGone chan struct{} // holds one; an interface of the overlay may be
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Network { return &Network{config: c, overlayGone: make(chan struct{}, 1)} }

// Name implements component.Component.
func (*Network) Name() string { return "network" }

// Ready implements component.Component.
func (n *Network) Ready(context.Context) error {
	if !n.written.Load() {
		return errors.New("waiting for the controller manager to assign a pod CIDR to this node")
	}
	return nil
}

// Note implements component.Noter.
func (n *Network) Note() string { return n.twin.Load().note() }

// Run implements component.Component. It leaves the network as it is when it stops: pods
// outlive the process.
func (n *Network) Run(ctx context.Context) error {
	client, err := n.config.Client.Clientset()
	if err != nil {
		return err
	}
	ranges, err := n.podRanges(ctx, client)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if err := prepareKernel(ranges); err != nil {
		return err
	}
	mesh, err := newMesh(n.config, client, ranges, &n.twin)
	if err != nil {
		return err
	}
	rules, err := newRules(ranges, n.config.ClusterCIDR, n.config.Ports, n.config.Backend)
	if err != nil {
		return err
	}
	if err := rules.ensure(); err != nil {
		return err
	}
	if mesh != nil && n.config.Backend == overlay.HostGW {
		mesh.admit = rules.admit
	}
	mtu := mesh.mtu()
	if mtu == 0 {
		mtu = mtuOf(n.config.NodeIP)
	}
	if err := n.describe(ranges, mtu); err != nil {
		return err
	}
	if err := n.leave(ctx, ranges); err != nil {
		slog.Warn("Cannot clean up after other pod addresses", "err", err)
	}
	if err := ensureBridge(ranges, mtu, nil); err != nil {
		return err
	}
	defer n.protect(ctx, rules, ranges, mtu)()
	n.written.Store(true)
	return n.keep(ctx, mesh)
}

// keep maintains the overlay; the watcher of the firewall maintains the rest.
func (n *Network) keep(ctx context.Context, mesh *mesh) error {
	if mesh == nil {
		<-ctx.Done()
		return nil
	}
	defer mesh.overlay.Close()
	leave, err := mesh.follow()
	if err != nil {
		return err
	}
	defer leave()
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			mesh.repair(ctx)
		case <-n.overlayGone:
			mesh.repair(ctx)
		case <-mesh.changed:
			mesh.sync(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// podRanges waits until the node has been given its ranges. They never change
// while the node object lives.
func (n *Network) podRanges(ctx context.Context, client kubernetes.Interface) ([]netip.Prefix, error) {
	hasRange := func(node *v1.Node) bool { return len(node.Spec.PodCIDRs) > 0 }
	node, err := kube.AwaitNode(ctx, client, n.config.NodeName, hasRange)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil
		}
		return nil, fmt.Errorf("wait for the node's pod CIDR: %w", err)
	}
	var ranges []netip.Prefix
	for _, text := range node.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("node %s: spec.podCIDRs: %w", n.config.NodeName, err)
		}
		ranges = append(ranges, p)
	}
	return ranges, nil
}

// keepAddresses makes the directory in which the plugin that gives addresses keeps them,
// and its lock, which it would make for others too (1.9).
func (n *Network) keepAddresses() error {
	dir := n.config.StateDir
	network := filepath.Join(dir, layout.Network)
	for _, d := range []string{dir, network} {
		if err := errors.Join(os.MkdirAll(d, 0o700), os.Chmod(d, 0o700)); err != nil {
			return err
		}
	}
	lock, err := os.OpenFile(filepath.Join(network, "lock"), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(lock.Chmod(0o600), lock.Close())
}

// describe writes the network's description where containerd looks for it.
func (n *Network) describe(ranges []netip.Prefix, mtu int) error {
	if err := n.keepAddresses(); err != nil {
		return fmt.Errorf("create a directory for pod addresses: %w", err)
	}
	content, err := conflist(ranges, mtu, portmapBackend(n.config.NFTables), n.config.StateDir)
	if err != nil {
		return err
	}
	path := filepath.Join(n.config.ConfDir, layout.Conflist)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	if err := os.MkdirAll(n.config.ConfDir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", n.config.ConfDir, err)
	}
	if err := file.Write(path, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
