// Package kubelet runs the kubelet.
package kubelet

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	internal "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	"k8s.io/kubernetes/pkg/volume/util/subpath"

	"lite.io/lite/pkg/kube"
)

// Config is what the kubelet has to be told.
type Config struct {
	Dir      string // for files of ours; the kubelet's own root is RootDir
	NodeName string
	NodeIP   []netip.Addr
	Labels   []string // key=value
	Taints   []string // key=value:Effect

	ClusterDNS    netip.Addr
	ClusterDomain string

	Kubeconfig string
	CAFile     string
	CertFile   string // serving certificate; "" = the kubelet asks the cluster for one, and renews both of its own
	KeyFile    string
	Runtime    string // unix:// URL of the CRI
	ResolvConf string // what pods inherit
	Systemd    bool   // cgroups are made by systemd
	ExtraArgs  []string
}

// RootDir is not under our data directory: CSI drivers and device plugins
// have this path written into them.
const RootDir = "/var/lib/kubelet"

// Kubelet is the component.
type Kubelet struct {
	server *options.KubeletServer
	probe  kube.Probe
}

// New parses the arguments; nothing is touched before Run.
func New(c Config) (*Kubelet, error) {
	flags := options.NewKubeletFlags()
	config, err := internalConfiguration(c)
	if err != nil {
		return nil, err
	}
	if err := parse(flags, config, args(c)); err != nil {
		return nil, err
	}
	if err := options.ValidateKubeletFlags(flags); err != nil {
		return nil, fmt.Errorf("kubelet-arg: %w", err)
	}
	if err := validation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("kubelet-arg: %w", err)
	}
	server := &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}
	return &Kubelet{server, kube.NewProbe("http://127.0.0.1:10248/healthz")}, nil
}

// CertDir is where the kubelet keeps certificates that the cluster signed for it.
func (c Config) CertDir() string { return filepath.Join(c.Dir, "pki") }

// args is what can be said by flags alone; the rest is in configuration.
func args(c Config) []string {
	flags := map[string]string{
		"cert-dir":          c.CertDir(),
		"hostname-override": c.NodeName,
		"kubeconfig":        c.Kubeconfig,
		"node-ip":           kube.Join(c.NodeIP),
		"root-dir":          RootDir,
	}
	if len(c.Labels) > 0 {
		flags["node-labels"] = strings.Join(c.Labels, ",")
	}
	return kube.Args(flags, c.ExtraArgs)
}

// internalConfiguration completes our configuration with upstream's defaults.
func internalConfiguration(c Config) (*internal.KubeletConfiguration, error) {
	versioned, err := configuration(c)
	if err != nil {
		return nil, err
	}
	s, _, err := scheme.NewSchemeAndCodecs()
	if err != nil {
		return nil, err
	}
	s.Default(versioned)
	config := &internal.KubeletConfiguration{}
	if err := s.Convert(versioned, config, nil); err != nil {
		return nil, fmt.Errorf("convert the kubelet's configuration: %w", err)
	}
	if config.EvictionHard == nil {
		config.EvictionHard = eviction.DefaultEvictionHard
	}
	return config, nil
}

// parse reads args into flags, for the many flags that stand for a field of the
// configuration into config, and feature gates into the registry of the process.
// Adding the flags of config to a set overwrites nothing; parsing them does.
func parse(flags *options.KubeletFlags, config *internal.KubeletConfiguration, args []string) error {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.SetOutput(io.Discard)
	flags.AddFlags(fs)
	options.AddKubeletConfigFlags(fs, config)
	if err := kube.ParseSet("kubelet", fs, args); err != nil {
		return err
	}
	if err := kube.SetGates("kubelet", fs); err != nil {
		return err
	}
	// Upstream's Run would set them once more, while others look at them.
	config.FeatureGates = nil
	return nil
}

// Name implements component.Component.
func (*Kubelet) Name() string { return "kubelet" }

// Run implements component.Component. Upstream's Run returns at once and its
// goroutines cannot be waited for (1.37): what they hold, they hold until the
// process ends, which follows.
func (k *Kubelet) Run(ctx context.Context) error {
	gate := utilfeature.DefaultFeatureGate
	deps, err := app.UnsecuredDependencies(ctx, k.server, gate)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	deps.Mounter = newMounter(k.server.ExperimentalMounterPath)
	deps.Subpather = subpath.New(deps.Mounter)
	if err := app.Run(ctx, k.server, deps, gate); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Ready implements component.Component.
func (k *Kubelet) Ready(ctx context.Context) error { return k.probe.Check(ctx) }
