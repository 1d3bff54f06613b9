// Package kubeproxy runs kube-proxy.
package kubeproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
	kubeproxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	"k8s.io/kubernetes/pkg/proxy/apis/config/scheme"
	"k8s.io/kubernetes/pkg/proxy/ipvs/ipset"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/kube"
)

// Config is the configuration of kube-proxy.
type Config struct {
	NodeName    string
	NodeIP      netip.Addr // the first
	Kubeconfig  string
	ClusterCIDR string // comma separated
	// KeepConntrack leaves the limit of connection tracking alone, which is the
	// machine's, where it may not be written. The timeouts are the network
	// namespace's, and are left as they are if these may not be either.
	KeepConntrack bool
	// NFTables carries Services with nftables: in its own table, updated incrementally,
	// without long chains. Otherwise iptables does.
	NFTables  bool
	ExtraArgs []string
	// Firewall notices when somebody removes rules of kube-proxy's.
	Firewall *firewall.Watcher
}

// Proxy is the component.
type Proxy struct {
	config   Config
	args     []string
	settings *kubeproxyconfig.KubeProxyConfiguration
	figures  figures
	probe    kube.Probe
}

// New parses and checks the arguments; nothing is touched before Run.
func New(c Config) (*Proxy, error) {
	o, fs, err := parse(c)
	if err != nil {
		return nil, err
	}
	settings, err := settle(c, o, fs)
	if err != nil {
		return nil, err
	}
	if err := programs(settings.Mode); err != nil {
		return nil, err
	}
	url, err := healthURL(settings)
	if err != nil {
		return nil, err
	}
	return &Proxy{c, args(c), settings, takeFigures(settings, fs), kube.NewProbe(url)}, nil
}

// Check finds what New would find wrong with the arguments and the file, and leaves
// the process as it is.
func Check(c Config) error {
	o, fs, err := parse(c)
	if err != nil {
		return err
	}
	mode := kubeproxyconfig.ProxyMode(fs.Lookup("proxy-mode").Value.String())
	if o.ConfigFile != "" {
		settings, err := configuration(c, o.ConfigFile)
		if err != nil {
			return err
		}
		mode = settings.Mode
	}
	return programs(mode)
}

// programs finds what a mode runs and lite does not bring along: kube-proxy itself
// looks when everything else is up.
func programs(mode kubeproxyconfig.ProxyMode) error {
	if mode != kubeproxyconfig.ProxyModeIPVS {
		return nil
	}
	if _, err := exec.LookPath(ipset.IPSetCmd); err != nil {
		return errors.New("kube-proxy-arg proxy-mode=ipvs: there is no program ipset in PATH, which IPVS needs; install it (Debian: `apt-get install ipset`), or let lite choose the mode")
	}
	return nil
}

func parse(c Config) (*app.Options, *pflag.FlagSet, error) {
	if err := kube.CheckArgs("kube-proxy", c.ExtraArgs); err != nil {
		return nil, nil, err
	}
	o := app.NewOptions()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	o.AddFlags(fs)
	return o, fs, kube.ParseSet("kube-proxy", fs, args(c))
}

// settle is what comes of the arguments, or of a file of the user's. Feature gates
// have to be set before kube.SettleGates; Complete sets them too.
func settle(c Config, o *app.Options, fs *pflag.FlagSet) (*kubeproxyconfig.KubeProxyConfiguration, error) {
	if o.ConfigFile != "" {
		settings, err := configuration(c, o.ConfigFile)
		if err != nil {
			return nil, err
		}
		if err := takeGates(fs, settings); err != nil {
			return nil, fmt.Errorf("kube-proxy-arg config=%s: featureGates: %w", o.ConfigFile, err)
		}
		return settings, kube.SetGates("kube-proxy", fs)
	}
	if err := kube.SetGates("kube-proxy", fs); err != nil {
		return nil, err
	}
	if err := o.Complete(fs); err != nil {
		return nil, fmt.Errorf("kube-proxy-arg: %w", err)
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("kube-proxy-arg: %w", err)
	}
	settings, err := settingsOf(o)
	if err != nil {
		return nil, fmt.Errorf("kube-proxy-arg: %w", err)
	}
	return settings, nil
}

// settingsOf is what upstream has made of the arguments. Its options can only write that to
// a file (1.37); this one is in memory.
func settingsOf(o *app.Options) (*kubeproxyconfig.KubeProxyConfiguration, error) {
	fd, err := unix.MemfdCreate("kube-proxy", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a file in memory: %w", err)
	}
	defer unix.Close(fd)
	o.WriteConfigTo = fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := o.Run(context.Background()); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(o.WriteConfigTo)
	if err != nil {
		return nil, err
	}
	settings := &kubeproxyconfig.KubeProxyConfiguration{}
	return settings, runtime.DecodeInto(scheme.Codecs.UniversalDecoder(), data, settings)
}

func args(c Config) []string {
	flags := map[string]string{
		"cluster-cidr":      c.ClusterCIDR,
		"hostname-override": c.NodeName,
		"kubeconfig":        c.Kubeconfig,
		"proxy-mode":        mode(c),
	}
	if c.KeepConntrack {
		flags["conntrack-max-per-core"] = "0"
	}
	return kube.Args("kube-proxy", flags, c.ExtraArgs)
}

func mode(c Config) string {
	if c.NFTables {
		return "nftables"
	}
	return "iptables"
}

// Name implements component.Component.
func (*Proxy) Name() string { return "kube-proxy" }

// Run implements component.Component. Upstream's Run does not return when its
// context is done (1.37); it holds nothing that has to be released.
func (p *Proxy) Run(ctx context.Context) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	node, err := p.awaitAddress(ctx, client)
	if err != nil {
		return err
	}
	server, err := p.compose(ctx, client, node)
	if err != nil {
		return err
	}
	go p.figures.serve(ctx)
	failed := make(chan error, 1)
	go func() { failed <- server.Run(ctx) }()
	go p.protect(ctx, server)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// client asks the API server as the node does, with the user's limits.
func (p *Proxy) client() (kubernetes.Interface, error) {
	cfg, err := kube.ClientConfig(p.config.Kubeconfig, "kube-proxy")
	if err != nil {
		return nil, err
	}
	connection := p.settings.ClientConnection
	cfg.AcceptContentTypes, cfg.ContentType = connection.AcceptContentTypes, connection.ContentType
	cfg.QPS, cfg.Burst = connection.QPS, int(connection.Burst)
	return kubernetes.NewForConfig(cfg)
}

// addressWithin is far more than the kubelet needs to report the node's address.
// With a cloud provider of the user's that may need kube-proxy.
const addressWithin = 15 * time.Second

// awaitAddress waits until the Node has its addresses: kube-proxy reads them once, when it
// starts, and would answer NodePorts at the machine's former address (1.37). Without an
// address in time, the node is nil.
func (p *Proxy) awaitAddress(ctx context.Context, client kubernetes.Interface) (*v1.Node, error) {
	waiting, stop := context.WithTimeout(ctx, addressWithin)
	defer stop()
	node, err := kube.AwaitNode(waiting, client, p.config.NodeName, func(n *v1.Node) bool { return isAt(n, p.config.NodeIP) })
	switch {
	case err == nil:
		return node, nil
	case waiting.Err() != nil:
		return nil, nil
	}
	return nil, fmt.Errorf("wait for the node's address: %w", err)
}

func isAt(n *v1.Node, ip netip.Addr) bool {
	return slices.ContainsFunc(n.Status.Addresses, func(a v1.NodeAddress) bool {
		return a.Type == v1.NodeInternalIP && a.Address == ip.String()
	})
}

// Ready implements component.Component.
func (p *Proxy) Ready(ctx context.Context) error { return p.probe.Check(ctx) }

// Settings implements component.Configured.
func (p *Proxy) Settings() (component.Settings, error) {
	versioned, err := p.figures.versioned()
	if err != nil {
		return component.Settings{}, err
	}
	config, err := json.Marshal(versioned)
	return component.Settings{Arguments: p.args, Configuration: config}, err
}
