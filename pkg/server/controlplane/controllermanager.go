package controlplane

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/configz"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
)

// ControllerManager is the component kube-controller-manager.
type ControllerManager struct {
	options *options.KubeControllerManagerOptions
	args    []string
	api     kube.Probe
	probe   kube.Probe
}

// NewControllerManager parses the arguments; nothing is touched before Run.
func NewControllerManager(c Config) (*ControllerManager, error) {
	o, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	flags := o.Flags(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	o.ParsedFlags = &flags
	if err := kube.CheckArgs("kube-controller-manager", c.Node.ControllerManagerArgs); err != nil {
		return nil, err
	}
	args := controllerManagerArgs(c)
	if err := kube.Parse("kube-controller-manager", flags, args); err != nil {
		return nil, err
	}
	if err := validateControllerManager(*o); err != nil {
		return nil, fmt.Errorf("kube-controller-manager-arg: %w", err)
	}
	url, err := healthURL("kube-controller-manager", o.SecureServing, "/healthz")
	if err != nil {
		return nil, err
	}
	return &ControllerManager{o, args, c.probe(c.LocalURL() + "/healthz"), c.probe(url)}, nil
}

// validateControllerManager is what upstream would say when it runs. The registry of the
// process is left out: to validate it settles the feature gates, of which the node may not
// have told all yet (1.37).
func validateControllerManager(o options.KubeControllerManagerOptions) error {
	o.ComponentGlobalsRegistry = compatibility.NewComponentGlobalsRegistry()
	return o.Validate(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
}

func controllerManagerArgs(c Config) []string {
	kubeconfig := c.Dir.Kubeconfig(pki.ControllerManager)
	args := map[string]string{
		"allocate-node-cidrs":        "true",
		"authentication-kubeconfig":  kubeconfig,
		"authentication-skip-lookup": "true",
		"authorization-kubeconfig":   kubeconfig,
		"bind-address":               "127.0.0.1",
		"client-ca-file":             c.PKI.CA(pki.ClusterCA),
		"cluster-cidr":               kube.Join(c.Cluster.ClusterCIDR),
		"cluster-signing-cert-file":  c.PKI.CA(pki.ClusterCA),
		"cluster-signing-key-file":   c.PKI.CAKey(pki.ClusterCA),
		// lite approves the nodes' certificates itself, and removes tokens that
		// have expired so that it can say so to whoever still uses one.
		"controllers": "*,bootstrapsigner,-csrapproving",
		// The default is outside everything that is ours.
		"flex-volume-plugin-dir": c.Dir.FlexVolumes(),
		// Each controller takes a token at its first start: at the default of
		// 20 a second they would keep the first pod waiting for 5 s (1.37).
		"kube-api-burst": "600",
		"kube-api-qps":   "300",
		"kubeconfig":     kubeconfig,
		// Its own election ends the process when it loses; ours does not.
		"leader-elect":                     "false",
		"profiling":                        "false",
		"root-ca-file":                     c.PKI.CA(pki.ClusterCA),
		"service-account-private-key-file": c.PKI.ServiceAccountKey(),
		"service-cluster-ip-range":         kube.Join(c.Cluster.ServiceCIDR),
		// Each has its containers and logs on a node until then; the default is 12500.
		"terminated-pod-gc-threshold":     "1000",
		"tls-cert-file":                   c.PKI.Cert(pki.ControllerManager),
		"tls-cipher-suites":               strings.Join(kube.CipherSuites(), ","),
		"tls-min-version":                 kube.MinTLSVersion,
		"tls-private-key-file":            c.PKI.Key(pki.ControllerManager),
		"use-service-account-credentials": "true",
	}
	const cert, key = "cluster-signing-cert-file", "cluster-signing-key-file"
	_, certGiven := kube.Value(c.Node.ControllerManagerArgs, cert)
	if !certGiven && kube.Yields("kube-controller-manager", cert, c.Node.ControllerManagerArgs) {
		// Some signers have got authorities of their own: the others keep ours.
		for _, signer := range []string{"kubelet-serving", "kubelet-client", "kube-apiserver-client", "legacy-unknown"} {
			own := "cluster-signing-" + signer
			_, certGiven := kube.Value(c.Node.ControllerManagerArgs, own+"-cert-file")
			_, keyGiven := kube.Value(c.Node.ControllerManagerArgs, own+"-key-file")
			if !certGiven && !keyGiven {
				args[own+"-cert-file"], args[own+"-key-file"] = args[cert], args[key]
			}
		}
	}
	return kube.Args("kube-controller-manager", args, c.Node.ControllerManagerArgs)
}

// Name implements component.Component.
func (*ControllerManager) Name() string { return "controller-manager" }

// Run implements component.Component.
func (m *ControllerManager) Run(ctx context.Context) error {
	// Upstream gives the API server 10 s to be wholly well and then ends (1.37);
	// on a machine that is slow that is not enough.
	for m.api.Check(ctx) != nil {
		if !kube.Sleep(ctx, 50*time.Millisecond) {
			return nil
		}
	}
	defer configz.Delete(app.ConfigzName)
	m.options.SecureServing.Listener = nil // of the last term
	cfg, err := m.options.Config(ctx, app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	if err != nil {
		return err
	}
	// Upstream does not wait until it has closed it (1.37).
	defer cfg.SecureServing.Listener.Close()
	cfg.Authentication.Authenticator = series.ControllerManager.Narrow(cfg.Authentication.Authenticator)
	return untilDone(ctx, app.Run(ctx, cfg.Complete()))
}

// Settings implements component.Configured.
func (m *ControllerManager) Settings() (component.Settings, error) {
	return component.Settings{Arguments: m.args}, nil
}

// Ready implements component.Component.
func (m *ControllerManager) Ready(ctx context.Context) error { return m.probe.Check(ctx) }
