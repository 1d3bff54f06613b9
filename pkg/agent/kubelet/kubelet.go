// Package kubelet runs the kubelet.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/cadvisor/lib/container/containerd"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	"k8s.io/kubernetes/pkg/kubelet/server"
	"k8s.io/kubernetes/pkg/volume/util/subpath"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Config is the configuration of the kubelet.
type Config struct {
	Dir layout.Kubelet // for files of ours
	// Root is the kubelet's own directory. It is not under our data directory: CSI
	// drivers and device plugins have its path written into them.
	Root     string
	NodeName string
	NodeIP   []netip.Addr
	Labels   []string // key=value
	Taints   []string // key=value:Effect

	ClusterDNS    netip.Addr
	ClusterDomain string

	Kubeconfig string
	CAFile     string
	CertFile   string // serving certificate; "" = the kubelet requests one from the cluster, and renews both of its certificates
	KeyFile    string
	Runtime    string // unix:// URL of the CRI
	ResolvConf string // what pods inherit
	Systemd    bool   // cgroups are made by systemd
	Protect    bool   // the kernel's settings are as they have to be, or the node does not start
	ExtraArgs  []string
}

// Kubelet is the component.
type Kubelet struct {
	server *options.KubeletServer
	args   []string
	// configured is the configuration before upstream changes it.
	configured *kubeletconfig.KubeletConfiguration
	probe      kube.Probe
}

// New parses the arguments; nothing is touched before Run.
func New(c Config) (*Kubelet, error) {
	server, fs, err := parse(c)
	if err != nil {
		return nil, err
	}
	if err := kube.SetGates("kubelet", fs); err != nil {
		return nil, err
	}
	if err := validate(server); err != nil {
		return nil, err
	}
	configured := server.KubeletConfiguration.DeepCopy()
	// Upstream's Run would set them again, while others read them.
	server.FeatureGates = nil
	health := net.JoinHostPort(kube.Near(server.HealthzBindAddress), strconv.Itoa(int(server.HealthzPort)))
	return &Kubelet{server, args(c), configured, kube.NewProbe("http://" + health + "/healthz")}, nil
}

// Check finds what New would find wrong, and leaves the process as it is. Feature
// gates are for New: the registry that knows them is the process's.
func Check(c Config) error {
	server, _, err := parse(c)
	if err != nil {
		return err
	}
	return validate(server)
}

func validate(server *options.KubeletServer) error {
	if err := options.ValidateKubeletFlags(&server.KubeletFlags); err != nil {
		return fmt.Errorf("kubelet-arg: %w", err)
	}
	if err := checkKernel(server.ProtectKernelDefaults, sysctl.New()); err != nil {
		return err
	}
	if server.HealthzPort == 0 {
		return errors.New("kubelet-arg: healthz-port, or healthzPort in its file, is 0; remove it: lite checks the health of the kubelet there")
	}
	if err := validation.ValidateKubeletConfiguration(&server.KubeletConfiguration, utilfeature.DefaultFeatureGate); err != nil {
		return fmt.Errorf("kubelet-arg: %w", err)
	}
	listener := kube.Listener{Suites: server.TLSCipherSuites, MinVersion: server.TLSMinVersion, Curves: server.TLSCurvePreferences}
	if err := listener.Check("kubelet"); err != nil {
		return err
	}
	return validateAmounts(&server.KubeletConfiguration)
}

// tunables is the kernel settings that the kubelet needs, and sets unless configured to
// keep the existing ones (1.37).
var tunables = []struct {
	name  string
	value int
}{
	{sysctl.RootMaxBytes, sysctl.RootMaxBytesSetting},
	{sysctl.RootMaxKeys, sysctl.RootMaxKeysSetting},
	{sysctl.KernelPanic, sysctl.KernelPanicRebootTimeout},
	{sysctl.KernelPanicOnOops, sysctl.KernelPanicOnOopsAlways},
	{sysctl.VMOvercommitMemory, sysctl.VMOvercommitMemoryAlways},
	{sysctl.VMPanicOnOOM, sysctl.VMPanicOnOOMInvokeOOMKiller},
}

// checkKernel finds what a kubelet that protects the kernel's settings would end by,
// naming one after the other.
func checkKernel(protect bool, kernel sysctl.Interface) error {
	if !protect {
		return nil
	}
	var lines, wrong []string
	for _, t := range tunables {
		name := strings.ReplaceAll(t.name, "/", ".")
		lines = append(lines, fmt.Sprintf("%s=%d", name, t.value))
		if value, err := kernel.GetSysctl(t.name); err != nil || value != t.value {
			wrong = append(wrong, name)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("protectKernelDefaults, which --profile cis and kubelet-arg protect-kernel-defaults=true set, requires kernel settings that this machine does not have (%s); "+
		"write %s to /etc/sysctl.d/90-kubelet.conf, one per line, and run sysctl --system", strings.Join(wrong, ", "), strings.Join(lines, ", "))
}

// validateAmounts checks what the kubelet reads only once it runs (1.37), when its error
// names neither the argument nor the value.
func validateAmounts(k *kubeletconfig.KubeletConfiguration) error {
	for _, e := range []struct {
		field string
		hard  map[string]string
		soft  map[string]string
		grace map[string]string
		least map[string]string
	}{
		{field: "eviction-hard", hard: k.EvictionHard},
		{field: "eviction-soft", soft: k.EvictionSoft, grace: k.EvictionSoftGracePeriod},
		{field: "eviction-minimum-reclaim", least: k.EvictionMinimumReclaim},
	} {
		if _, err := eviction.ParseThresholdConfig(nil, e.hard, e.soft, e.grace, e.least); err != nil {
			return fmt.Errorf("kubelet-arg: %s, or its field in the file, is %s: %w; write signal<amount without quotes, for example memory.available<100Mi", e.field, thresholds(e.hard, e.soft, e.least), err)
		}
	}
	for field, amounts := range map[string]map[string]string{"system-reserved": k.SystemReserved, "kube-reserved": k.KubeReserved} {
		for name, amount := range amounts {
			if _, err := resource.ParseQuantity(amount); err != nil {
				return fmt.Errorf("kubelet-arg: %s, or its field in the file, has %s=%s: %w; write an amount without quotes, for example 500m or 1Gi", field, name, amount, err)
			}
			if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage", "pid"}, name) {
				return fmt.Errorf("kubelet-arg: %s, or its field in the file, has %s=%s: only cpu, memory, ephemeral-storage and pid can be reserved", field, name, amount)
			}
		}
	}
	return nil
}

// thresholds is eviction thresholds as users write them.
func thresholds(maps ...map[string]string) string {
	var all []string
	for _, m := range maps {
		for key, value := range m {
			all = append(all, key+"<"+value)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// args is what only flags can set; the rest is in the configuration.
func args(c Config) []string {
	flags := map[string]string{
		"cert-dir":          c.Dir.PKI(),
		"hostname-override": c.NodeName,
		"kubeconfig":        c.Kubeconfig,
		"node-ip":           kube.Join(c.NodeIP),
		"root-dir":          c.Root,
	}
	if len(c.Labels) > 0 {
		flags["node-labels"] = strings.Join(c.Labels, ",")
	}
	return kube.Args("kubelet", flags, c.ExtraArgs)
}

// parse reads the user's files, and then our flags and the user's: many stand for
// a field of the configuration. Adding the flags of a configuration to a set
// overwrites nothing; parsing them does.
func parse(c Config) (*options.KubeletServer, *pflag.FlagSet, error) {
	config, err := internalConfiguration(c)
	if err != nil {
		return nil, nil, err
	}
	filed := config.FeatureGates
	server := &options.KubeletServer{KubeletFlags: *options.NewKubeletFlags(), KubeletConfiguration: *config}
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.SetOutput(io.Discard)
	server.KubeletFlags.AddFlags(fs)
	options.AddKubeletConfigFlags(fs, &server.KubeletConfiguration)
	if err := kube.ParseSet("kubelet", fs, args(c)); err != nil {
		return nil, nil, err
	}
	if err := claim(c, server); err != nil {
		return nil, nil, err
	}
	// A flag replaces the whole map, including gates that it does not name.
	for gate, on := range filed {
		if _, configured := server.FeatureGates[gate]; !configured {
			server.FeatureGates[gate] = on
		}
	}
	return server, fs, nil
}

// claim refuses arguments that would make the kubelet another node than the one that lite
// serves, as in the file: all components became ready then, and no pod started. An argument
// with lite's own value is fine.
func claim(c Config, server *options.KubeletServer) error {
	const (
		verified    = "the API server and others verify this node with the cluster's own authority: logs and exec would not work"
		certificate = "remove the argument: lite creates and renews the certificates of a node"
	)
	renewed := c.CertFile == ""
	for _, o := range []struct {
		flag            string
		same            bool
		problem, remedy string
	}{
		{"hostname-override", server.HostnameOverride == c.NodeName, "certificates and all other components know the node as " + c.NodeName, "set --node-name"},
		{"kubeconfig", server.KubeConfig == c.Kubeconfig, "all components of a node use one kubeconfig", "remove the argument"},
		{"register-node", server.RegisterNode, "there would be no node", "remove the argument"},
		// A server's kubelet has requested one forever, and was refused each time: its
		// authority is beside it. Without one of the cluster's there were no logs of an agent.
		{"rotate-certificates", server.RotateCertificates == renewed, "lite creates and renews the certificates of a node", "remove the argument"},
		{"rotate-server-certificates", server.ServerTLSBootstrap == renewed, "lite creates and renews the certificates of a node", "remove the argument"},
		{"container-runtime-endpoint", server.ContainerRuntimeEndpoint == c.Runtime, "other components use the runtime too", "set --container-runtime-endpoint"},
		{"client-ca-file", server.Authentication.X509.ClientCAFile == c.CAFile, "the API server presents a certificate of the cluster's authority: logs and exec would not work", "let that authority sign, or let clients use tokens"},
		{"tls-cert-file", server.TLSCertFile == c.CertFile, verified, certificate},
		{"tls-private-key-file", server.TLSPrivateKeyFile == c.KeyFile, verified, certificate},
		{"enable-server", server.EnableServer, "logs and exec would not work", "remove the argument"},
		{"address", !loopback(server.Address), "the API server reaches the kubelet at the node's address: logs and exec would not work", "set " + unspecified(c.NodeIP) + ", or remove the argument"},
	} {
		if value, configured := kube.Value(c.ExtraArgs, o.flag); configured && !o.same {
			return fmt.Errorf("kubelet-arg %q: %s; %s", o.flag+"="+value, o.problem, o.remedy)
		}
	}
	return nil
}

func loopback(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.IsLoopback()
}

// Name implements component.Component.
func (*Kubelet) Name() string { return "kubelet" }

// Run implements component.Component. Upstream's Run returns immediately, and its
// goroutines cannot be waited for (1.37): they keep their resources until the process ends,
// which follows.
func (k *Kubelet) Run(ctx context.Context) error {
	if err := share(k.server.RootDirectory); err != nil {
		return err
	}
	gate := utilfeature.DefaultFeatureGate
	deps, err := app.UnsecuredDependencies(ctx, k.server, gate)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	// cAdvisor asks containerd whose a container is, at an address that no argument of the kubelet sets
	// (1.37). Without it, metrics of containers lack their pods.
	*containerd.ArgContainerdEndpoint = strings.TrimPrefix(k.server.ContainerRuntimeEndpoint, "unix://")
	deps.Mounter = newMounter(k.server.ExperimentalMounterPath)
	deps.Subpather = subpath.New(deps.Mounter)
	// Options are applied when who may ask has been settled, and before it serves.
	deps.Options = append(deps.Options, func(*kubelet.Kubelet) {
		if deps.Auth != nil {
			deps.Auth = auth{deps.Auth, series.Kubelet.Narrow(deps.Auth)}
		}
	})
	if err := app.Run(ctx, k.server, deps, gate); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// auth is who may ask the kubelet, with an authenticator of ours before its own.
type auth struct {
	server.AuthInterface
	authenticator authenticator.Request
}

// AuthenticateRequest implements authenticator.Request.
func (a auth) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	return a.authenticator.AuthenticateRequest(r)
}

// Ready implements component.Component.
func (k *Kubelet) Ready(ctx context.Context) error { return k.probe.Check(ctx) }

// Settings implements component.Configured.
func (k *Kubelet) Settings() (component.Settings, error) {
	config, err := versioned(k.configured)
	return component.Settings{Arguments: k.args, Configuration: config}, err
}
