package kubeproxy

import (
	"encoding/json"
	"errors"
	"maps"
	"net"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	cliflag "k8s.io/component-base/cli/flag"
	kubeproxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	"k8s.io/kubernetes/pkg/proxy/apis/config/scheme"
	"k8s.io/kubernetes/pkg/proxy/apis/config/validation"

	"lite.io/lite/pkg/kube"
)

// configuration is a user's file on top of what lite otherwise sets with flags: with a
// file, upstream ignores flags.
func configuration(c Config, path string) (*kubeproxyconfig.KubeProxyConfiguration, error) {
	f, err := kube.ReadConfigFile("kube-proxy", "config", path, scheme.Codecs.UniversalDeserializer(), "KubeProxyConfiguration")
	if err != nil {
		return nil, err
	}
	if err := f.Claim([]kube.Owned{
		{Field: "clientConnection.kubeconfig", Value: c.Kubeconfig, Remedy: "remove it"},
		{Field: "hostnameOverride", Value: c.NodeName, Remedy: "remove it, or set --node-name"},
		{Field: "logging.format", Value: "text", Remedy: "set --log-format"},
		{Field: "logging.verbosity", Value: 0, Remedy: "set --log-level"},
	}); err != nil {
		return nil, err
	}
	f.Prune()
	ours, err := json.Marshal(asFile(c))
	if err != nil {
		return nil, err
	}
	merged, err := f.Over(ours)
	if err != nil {
		return nil, err
	}
	settings := &kubeproxyconfig.KubeProxyConfiguration{}
	if err := runtime.DecodeInto(scheme.Codecs.UniversalDecoder(), merged, settings); err != nil {
		return nil, f.Wrong(err)
	}
	if settings.DetectLocalMode == "" {
		settings.DetectLocalMode = kubeproxyconfig.LocalModeClusterCIDR // as upstream completes it
	}
	return settings, f.Wrong(validation.Validate(settings).ToAggregate())
}

// asFile is the settings of args as in a file.
func asFile(c Config) map[string]any {
	fields := map[string]any{
		"clientConnection": map[string]any{"kubeconfig": c.Kubeconfig},
		"clusterCIDR":      c.ClusterCIDR,
		"hostnameOverride": c.NodeName,
		"mode":             mode(c),
	}
	if c.KeepConntrack {
		fields["conntrack"] = map[string]any{"maxPerCore": 0}
	}
	return fields
}

// takeGates makes the flags have the feature gates of a file, but for those that
// they name themselves, and leaves none to be set when others run.
func takeGates(fs *pflag.FlagSet, settings *kubeproxyconfig.KubeProxyConfiguration) error {
	gates := map[string]bool{}
	maps.Copy(gates, settings.FeatureGates)
	settings.FeatureGates = nil
	configured := map[string]bool{}
	flag := fs.Lookup("feature-gates").Value
	if err := cliflag.NewMapStringBool(&configured).Set(flag.String()); err != nil {
		return err
	}
	maps.Copy(gates, configured)
	if len(gates) == 0 {
		return nil
	}
	return flag.Set(cliflag.NewMapStringBool(&gates).String())
}

// healthURL is where kube-proxy serves its health check, wherever a user has put it.
func healthURL(settings *kubeproxyconfig.KubeProxyConfiguration) (string, error) {
	host, port, err := net.SplitHostPort(settings.HealthzBindAddress)
	if err != nil || port == "0" {
		return "", errors.New("kube-proxy-arg: the address of the health check has no port; remove it, or add a port: lite checks the health of kube-proxy there")
	}
	return "http://" + net.JoinHostPort(kube.Near(host), port) + "/healthz", nil
}
