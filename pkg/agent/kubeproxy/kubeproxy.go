// Package kubeproxy runs kube-proxy.
package kubeproxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kube-proxy/app"

	"lite.io/lite/pkg/kube"
)

// Config is what kube-proxy has to be told.
type Config struct {
	NodeName    string
	NodeIP      netip.Addr // the first
	Kubeconfig  string
	ClusterCIDR string // comma separated
	// KeepConntrack leaves the machine's connection tracking limits alone,
	// where they may not be written.
	KeepConntrack bool
	// NFTables carries Services by nftables: one table of its own, updated
	// incrementally, and no scanning of long chains. Otherwise iptables does.
	NFTables  bool
	ExtraArgs []string
}

// Proxy is the component.
type Proxy struct {
	config  Config
	options *app.Options
	probe   kube.Probe
}

// New parses and checks the arguments; nothing is touched before Run.
func New(c Config) (*Proxy, error) {
	o := app.NewOptions()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	o.AddFlags(fs)
	if err := kube.ParseSet("kube-proxy", fs, args(c)); err != nil {
		return nil, err
	}
	if err := kube.SetGates("kube-proxy", fs); err != nil {
		return nil, err
	}
	// Complete sets the feature gates too, those of a configuration file of the
	// user's among them: they have to be there before kube.SettleGates.
	if err := o.Complete(fs); err != nil {
		return nil, fmt.Errorf("kube-proxy-arg: %w", err)
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("kube-proxy-arg: %w", err)
	}
	return &Proxy{c, o, kube.NewProbe("http://127.0.0.1:10256/healthz")}, nil
}

func args(c Config) []string {
	mode := "iptables"
	if c.NFTables {
		mode = "nftables"
	}
	flags := map[string]string{
		"cluster-cidr":      c.ClusterCIDR,
		"hostname-override": c.NodeName,
		"kubeconfig":        c.Kubeconfig,
		"proxy-mode":        mode,
	}
	if c.KeepConntrack {
		flags["conntrack-max-per-core"] = "0"
		flags["conntrack-tcp-timeout-close-wait"] = "0s"
		flags["conntrack-tcp-timeout-established"] = "0s"
	}
	return kube.Args(flags, c.ExtraArgs)
}

// Name implements component.Component.
func (*Proxy) Name() string { return "kube-proxy" }

// Run implements component.Component. Upstream's Run does not return when its
// context is done (1.36); it holds nothing that has to be released.
func (p *Proxy) Run(ctx context.Context) error {
	if err := p.awaitAddress(ctx); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- p.options.Run(ctx) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// addressWithin is far more than the kubelet needs to report the node's address.
// With a cloud provider of the user's that may need kube-proxy.
const addressWithin = 15 * time.Second

// awaitAddress waits until the node says where it is: kube-proxy reads that once,
// when it starts, and would answer NodePorts at the address that the machine had
// before (1.36).
func (p *Proxy) awaitAddress(ctx context.Context) error {
	cfg, err := kube.ClientConfig(p.config.Kubeconfig, "kube-proxy")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	waiting, stop := context.WithTimeout(ctx, addressWithin)
	defer stop()
	_, err = kube.AwaitNode(waiting, client, p.config.NodeName, func(n *v1.Node) bool { return isAt(n, p.config.NodeIP) })
	if err != nil && waiting.Err() == nil {
		return fmt.Errorf("wait for the node's address: %w", err)
	}
	return nil
}

func isAt(n *v1.Node, ip netip.Addr) bool {
	return slices.ContainsFunc(n.Status.Addresses, func(a v1.NodeAddress) bool {
		return a.Type == v1.NodeInternalIP && a.Address == ip.String()
	})
}

// Ready implements component.Component.
func (p *Proxy) Ready(ctx context.Context) error { return p.probe.Check(ctx) }
