package kubeproxy

import (
	"os"
	"strings"
	"testing"
	"time"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	kubeproxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
)

const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// withFile is a sample with a file and further arguments.
func withFile(t *testing.T, text string, args ...string) (Config, string) {
	t.Helper()
	path := t.TempDir() + "/kube-proxy.yaml"
	if err := os.WriteFile(path, []byte(head+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sample()
	c.ExtraArgs = append([]string{"config=" + path}, args...)
	return c, path
}

func TestUsersFileIsOnTopOfOurs(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		keep bool
		got  func(*kubeproxyconfig.KubeProxyConfiguration) bool
	}{
		"what it says": {"mode: iptables\nconntrack: {tcpEstablishedTimeout: 1h}\nnodePortAddresses: [10.0.0.0/8]\n", true, func(c *kubeproxyconfig.KubeProxyConfiguration) bool {
			return c.Mode == "iptables" && c.Linux.Conntrack.TCPEstablishedTimeout.Duration == time.Hour && c.NodePortAddresses[0] == "10.0.0.0/8" && *c.Linux.Conntrack.MaxPerCore == 0
		}},
		"what it does not say": {"metricsBindAddress: 0.0.0.0:10249\n", false, func(c *kubeproxyconfig.KubeProxyConfiguration) bool {
			return c.Mode == "nftables" && strings.Join(c.DetectLocal.ClusterCIDRs, ",") == sample().ClusterCIDR && c.ClientConnection.Kubeconfig == sample().Kubeconfig &&
				c.HostnameOverride == "node-a" && c.DetectLocalMode == "ClusterCIDR" && *c.Linux.Conntrack.MaxPerCore > 0 && c.HealthzBindAddress == "0.0.0.0:10256"
		}},
		"kubeadm's": {"bindAddress: 0.0.0.0\nclusterCIDR: ''\nconfigSyncPeriod: 0s\nconntrack: {maxPerCore: null, min: null}\ndetectLocalMode: ''\nhealthzBindAddress: ''\nmode: ''\nclientConnection: {kubeconfig: '', qps: 0}\nlogging: {flushFrequency: 0, verbosity: 0}\n", false,
			func(c *kubeproxyconfig.KubeProxyConfiguration) bool {
				return c.Mode == "nftables" && strings.Join(c.DetectLocal.ClusterCIDRs, ",") == sample().ClusterCIDR && c.HealthzBindAddress == "0.0.0.0:10256"
			}},
	} {
		c, _ := withFile(t, test.text, "v=2")
		c.KeepConntrack = test.keep
		p, err := New(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !test.got(p.settings) {
			t.Errorf("%s: got %+v", name, p.settings)
		}
	}
}

func TestUsersFileThatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"mod: ipvs\n":  `unknown field "mod"`,
		"mode: none\n": "ProxyMode",
		"clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}\n": "clientConnection.kubeconfig: lite decides this field",
		"hostnameOverride: other\n":       "hostnameOverride: lite decides this field",
		"logging: {verbosity: 3}\n":       "logging.verbosity: lite decides this field",
		"featureGates: {Nothing: true}\n": "featureGates: unrecognized feature gate: Nothing",
		"configSyncPeriod: -1s\n":         "ConfigSyncPeriod",
	} {
		c, path := withFile(t, text)
		for name, err := range map[string]error{"New": func() error { _, err := New(c); return err }(), "Check": Check(c)} {
			if err == nil || !strings.HasPrefix(err.Error(), `kube-proxy-arg "config=`+path+`": `) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s: got %v, want %s", name, text, err, want)
			}
		}
	}
	c, path := withFile(t, "mode: iptables\n", "proxy-mode=ipvs")
	if err := Check(c); err == nil || err.Error() != `kube-proxy-arg "proxy-mode=ipvs": has no effect beside config=`+path+`; set it in the file` {
		t.Errorf("got %v", err)
	}
}

func TestFeatureGatesOfTheFile(t *testing.T) {
	const one, two = "NativeHistograms", "KubeProxyNFTablesLocalhostNodePorts"
	registry := utilfeature.DefaultMutableFeatureGate
	t.Cleanup(func() {
		_ = registry.ResetFeatureValueToDefault(one)
		_ = registry.ResetFeatureValueToDefault(two)
	})
	c, _ := withFile(t, "featureGates: {"+one+": true, "+two+": true}\n", "feature-gates="+two+"=false")
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if !registry.Enabled(one) || registry.Enabled(two) || p.settings.FeatureGates != nil {
		t.Errorf("%t %t, and %v are set later", registry.Enabled(one), registry.Enabled(two), p.settings.FeatureGates)
	}
}

func TestWhereKubeProxyIsAsked(t *testing.T) {
	for arg, want := range map[string]string{
		"v=2":                                  "http://127.0.0.1:10256/healthz",
		"healthz-bind-address=192.0.2.1:10999": "http://192.0.2.1:10999/healthz",
		"healthz-bind-address=[::]:10999":      "http://127.0.0.1:10999/healthz",
		"healthz-port=10998":                   "http://127.0.0.1:10256/healthz",
		"healthz-bind-address=":                "http://127.0.0.1:10256/healthz",
		"healthz-bind-address=0.0.0.0:0":       "",
	} {
		c := sample()
		c.ExtraArgs = []string{arg}
		p, err := New(c)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "HealthzBindAddress") {
				t.Errorf("%s: got %v", arg, err)
			}
			continue
		}
		if err != nil || p.probe.URL != want {
			t.Errorf("%s: got %+v, %v, want %s", arg, p, err, want)
		}
	}
}
