package kubeproxy

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/configz"

	"lite.io/lite/tests/golden"
)

func sample() Config {
	return Config{NodeName: "node-a", Kubeconfig: "/var/lib/lite/agent/kubelet.conf", ClusterCIDR: "10.42.0.0/16,fd42::/56", NFTables: true}
}

func full() Config {
	c := sample()
	c.KeepConntrack = true
	c.ExtraArgs = []string{"proxy-mode=iptables", "v=2"}
	return c
}

func TestArgs(t *testing.T) {
	golden.Check(t, "args", strings.Join(args(sample()), "\n")+"\n")
	golden.Check(t, "args-full", strings.Join(args(full()), "\n")+"\n")
}

func TestWithoutNftablesIptablesCarriesServices(t *testing.T) {
	c := sample()
	c.NFTables = false
	if got := strings.Join(args(c), " "); !strings.Contains(got, "--proxy-mode=iptables") {
		t.Errorf("got %s", got)
	}
}

func TestUpstreamAcceptsWhatWeSay(t *testing.T) {
	for name, c := range map[string]Config{"sample": sample(), "full": full()} {
		p, err := New(c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Name() != "kube-proxy" {
			t.Errorf("got %s", p.Name())
		}
	}
}

func TestUsersProxyModeWins(t *testing.T) {
	if got := strings.Join(args(full()), " "); !strings.Contains(got, "--proxy-mode=iptables") || strings.Contains(got, "nftables") {
		t.Errorf("got %s", got)
	}
}

func TestArgumentsThatAreWrongNameTheFlag(t *testing.T) {
	for arg, want := range map[string][]string{
		"proxy-mod=x":                {"kube-proxy-arg: unknown flag: --proxy-mod"},
		"proxy-mode=foo":             {"kube-proxy-arg: ", "ProxyMode", `"foo"`, "iptables, ipvs, nftables"},
		"iptables-sync-period=0s":    {"kube-proxy-arg: ", "SyncPeriod"},
		"config=/no/such/file":       {`kube-proxy-arg "config=/no/such/file": `, "no such file"},
		"feature-gates=Nothing=true": {"kube-proxy-arg feature-gates=Nothing=true: unrecognized feature gate: Nothing"},
	} {
		c := sample()
		c.ExtraArgs = []string{arg}
		_, err := New(c)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %s", arg, err, part)
			}
		}
	}
	for _, mode := range []string{"iptables", "nftables"} {
		c := sample()
		c.ExtraArgs = []string{"proxy-mode=" + mode}
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// A mode whose program is missing is refused before anything runs, wherever the user has
// set it.
func TestIPVSWithoutItsProgram(t *testing.T) {
	inFile, _ := withFile(t, "mode: ipvs\n")
	byFlag, byFlags := sample(), sample()
	byFlag.ExtraArgs = []string{"proxy-mode=ipvs"}
	byFlags.ExtraArgs = []string{"proxy-mode=nftables", "proxy_mode=ipvs", "ipvs-scheduler=wrr"}
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for _, there := range []bool{false, true} {
		if there {
			if err := os.WriteFile(filepath.Join(bin, "ipset"), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for name, c := range map[string]Config{"by a flag": byFlag, "by flags": byFlags, "in a file": inFile} {
			_, err := New(c)
			for how, err := range map[string]error{"start": err, "check": Check(c)} {
				if there && err != nil || !there && (err == nil || !strings.Contains(err.Error(), "install it")) {
					t.Errorf("%s, %s, ipset is there: %t: got %v", name, how, there, err)
				}
			}
		}
	}
}

// Once other components run, nobody may write to the registry of gates.
func TestFeatureGatesAreSetBeforeAnythingRuns(t *testing.T) {
	const gate = "NativeHistograms"
	registry := utilfeature.DefaultMutableFeatureGate
	t.Cleanup(func() { _ = registry.ResetFeatureValueToDefault(gate) })
	c := sample()
	c.ExtraArgs = []string{"feature-gates=" + gate + "=true"}
	if _, err := New(c); err != nil || !registry.Enabled(gate) {
		t.Errorf("%s is %t, %v", gate, registry.Enabled(gate), err)
	}
}

// Everybody gets kube-proxy's metrics, at the address that the user sets.
func TestFigures(t *testing.T) {
	for arg, want := range map[string]string{
		"v=1":                                   "127.0.0.1:10249",
		"metrics-bind-address=0.0.0.0":          "0.0.0.0:10249",
		"metrics-bind-address=192.0.2.1:9249":   "192.0.2.1:9249",
		"metrics-bind-address=[2001:db8::1]:80": "[2001:db8::1]:80",
	} {
		c := sample()
		c.ExtraArgs = []string{arg}
		p, err := New(c)
		if err != nil || p.figures.address != want {
			t.Errorf("%s: %q, %v, want %s", arg, p.figures.address, err, want)
		}
	}
	p, err := New(sample())
	if err != nil {
		t.Fatal(err)
	}
	other, err := configz.New("kubeletconfig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { configz.Delete("kubeletconfig") })
	if err := other.Set(&v1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/proxyMode": "nftables", "/metrics": "go_goroutines", "/configz": `"metricsBindAddress":"127.0.0.1:10249"`, "/flagz": "hostname-override",
		"/statusz": "kube-proxy",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept", "*/*")
		p.figures.handler().ServeHTTP(w, r)
		if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, want) || strings.Contains(body, "kubeletconfig") {
			t.Errorf("%s: %d, %s, want %s and nothing of the kubelet", path, w.Code, body, want)
		}
	}
}
