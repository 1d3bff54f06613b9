package kubelet

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

// files writes configurations into a directory; its path ends with a slash.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir() + "/"
	for name, text := range texts {
		if err := os.MkdirAll(filepath.Dir(dir+name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name, []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func with(args ...string) Config {
	c := sample()
	c.ExtraArgs = args
	return c
}

// Defaults are below lite's own, below the file, below the drop-ins by name, below
// flags.
func TestUsersFilesAreMerged(t *testing.T) {
	dir := files(t, map[string]string{
		"main.yaml": "maxPods: 42\nevictionHard: {memory.available: 77Mi}\ncontainerLogMaxSize: 1Mi\nfailSwapOn: true\nstaticPodPath: pods\n",
		"gate.yaml": "memorySwap: {swapBehavior: LimitedSwap}\n" +
			"crashLoopBackOff: {maxContainerRestartPeriod: 30s}\nimageMaximumGCAge: 12h\nshutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\nuserNamespaces: {idsPerPod: 131072}\n",
		"merge.yaml":      "mergeDefaultEvictionSettings: true\nevictionHard: {memory.available: 77Mi}\n",
		"d/20-b.conf":     "maxPods: 44\n",
		"d/10-a.conf":     "maxPods: 43\npodPidsLimit: 1000\n",
		"d/30/c.conf":     "containerLogMaxFiles: 3\n",
		"d/40-other.yaml": "maxPods: 99\n",
		"evict/a.conf":    "evictionHard: {memory.available: 78Mi}\n",
		"kubeadm.yaml":    "cgroupDriver: systemd\ncontainerRuntimeEndpoint: ''\nclusterDNS: [10.96.0.10]\nauthentication: {anonymous: {enabled: false}, x509: {clientCAFile: /pki/ca.crt}}\nlogging: {flushFrequency: 0, verbosity: 0, options: {json: {infoBufferSize: '0'}}}\nrotateCertificates: false\nsyncFrequency: 0s\n",
		"taints.yaml":     "registerWithTaints: [{key: a, effect: NoSchedule}]\nresolvConf: ''\n",
	})
	if err := os.Symlink(dir+"d", dir+"link"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		got  func(*Kubelet) bool
	}{
		"a file": {[]string{"config=" + dir + "main.yaml"}, func(k *Kubelet) bool {
			return k.server.MaxPods == 42 && maps.Equal(k.server.EvictionHard, map[string]string{"memory.available": "77Mi"}) && k.server.ContainerLogMaxSize == "1Mi" &&
				k.server.FailSwapOn && k.server.StaticPodPath == dir+"pods" && k.server.ContainerRuntimeEndpoint == sample().Runtime && k.server.CgroupDriver == "systemd"
		}},
		"what has no flag": {[]string{"config=" + dir + "gate.yaml"}, func(k *Kubelet) bool {
			return k.server.MemorySwap.SwapBehavior == "LimitedSwap" && k.server.CrashLoopBackOff.MaxContainerRestartPeriod.Duration == 30*time.Second &&
				k.server.ImageMaximumGCAge.Duration == 12*time.Hour && k.server.ShutdownGracePeriod.Duration == 30*time.Second && *k.server.UserNamespaces.IDsPerPod == 131072 &&
				k.server.EvictionHard["memory.available"] == "100Mi"
		}},
		"with upstream's thresholds": {[]string{"config=" + dir + "merge.yaml"}, func(k *Kubelet) bool {
			return k.server.EvictionHard["memory.available"] == "77Mi" && k.server.EvictionHard["nodefs.available"] == "10%"
		}},
		"drop-ins": {[]string{"config-dir=" + dir + "d"}, func(k *Kubelet) bool {
			return k.server.MaxPods == 44 && k.server.PodPidsLimit == 1000 && k.server.ContainerLogMaxFiles == 3 && k.server.ContainerLogMaxSize == "10Mi"
		}},
		"a file and drop-ins": {[]string{"config-dir=" + dir + "d", "config=" + dir + "main.yaml"}, func(k *Kubelet) bool {
			return k.server.MaxPods == 44 && k.server.ContainerLogMaxSize == "1Mi"
		}},
		"a threshold in a drop-in": {[]string{"config-dir=" + dir + "evict"}, func(k *Kubelet) bool {
			return k.server.EvictionHard["memory.available"] == "78Mi" && k.server.EvictionHard["nodefs.available"] == "10%"
		}},
		"flags last": {[]string{"config=" + dir + "main.yaml", "config_dir=" + dir + "d", "max-pods=7"}, func(k *Kubelet) bool { return k.server.MaxPods == 7 }},
		"kubeadm's": {[]string{"config=" + dir + "kubeadm.yaml"}, func(k *Kubelet) bool {
			return k.server.ClusterDNS[0] == "10.96.0.10" && k.server.CgroupDriver == "systemd" && k.server.ContainerRuntimeEndpoint == sample().Runtime && k.server.SyncFrequency.Duration == time.Minute
		}},
		"lists": {[]string{"config=" + dir + "taints.yaml"}, func(k *Kubelet) bool {
			return len(k.server.RegisterWithTaints) == 1 && k.server.ResolverConfig == ""
		}},
		"drop-ins behind a link": {[]string{"config-dir=" + dir + "link"}, func(k *Kubelet) bool { return k.server.MaxPods == 44 }},
	} {
		k, err := New(with(test.args...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !test.got(k) {
			t.Errorf("%s: got %+v", name, k.server.KubeletConfiguration)
		}
		if err := Check(with(test.args...)); err != nil {
			t.Errorf("%s: Check: %v", name, err)
		}
	}
}

func TestFeatureGatesOfFilesAndFlags(t *testing.T) {
	const one, two = "CPUManagerPolicyAlphaOptions", "CPUManagerPolicyBetaOptions"
	registry := utilfeature.DefaultMutableFeatureGate
	t.Cleanup(func() {
		_ = registry.ResetFeatureValueToDefault(one)
		_ = registry.ResetFeatureValueToDefault(two)
	})
	dir := files(t, map[string]string{"a.yaml": "featureGates: {" + one + ": true, " + two + ": true}\n"})
	c := with("config="+dir+"a.yaml", "feature-gates="+two+"=false")
	if err := Check(c); err != nil || registry.Enabled(one) {
		t.Errorf("Check: %v, and it set a gate: %t", err, registry.Enabled(one))
	}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if !registry.Enabled(one) || registry.Enabled(two) || k.server.FeatureGates != nil {
		t.Errorf("%t %t, and Run sets %v", registry.Enabled(one), registry.Enabled(two), k.server.FeatureGates)
	}
}

func TestUsersFilesThatAreWrong(t *testing.T) {
	dir := files(t, map[string]string{
		"unknown.yaml": "maxPodz: 1\n", "d/a.conf": "maxPods: 1\n", "d/b.conf": "memorySwap: {swapBehaviour: x}\n", "low.yaml": "maxPods: -1\n",
		"cgroup.yaml": "cgroupDriver: cgroupfs\n", "runtime.yaml": "containerRuntimeEndpoint: unix:///run/crio.sock\n", "ca.yaml": "authentication: {x509: {clientCAFile: /etc/ca.crt}}\n",
		"rotate.yaml": "rotateCertificates: true\n", "port.yaml": "port: 10251\n", "alone.yaml": "registerNode: false\n", "log.yaml": "logging: {verbosity: 4}\n", "json.yaml": "logging: {format: json}\n",
		"health.yaml": "healthzPort: 0\n", "gate.yaml": "featureGates: {Nothing: true}\n", "cert/x.conf": "tlsCertFile: /etc/c.crt\ntlsPrivateKeyFile: /etc/c.key\n",
	})
	for arg, want := range map[string]string{
		"config=" + dir + "unknown.yaml": `kubelet-arg "config=` + dir + `unknown.yaml": strict decoding error: unknown field "maxPodz"; correct the file`,
		"config-dir=" + dir + "d":        `kubelet-arg "config-dir=` + dir + `d/b.conf": strict decoding error: unknown field "memorySwap.swapBehaviour"`,
		"config=" + dir + "low.yaml":     "maxPods",
		"config=" + dir + "cgroup.yaml":  `cgroupDriver: lite decides this field, and cgroupfs is not "systemd"; remove it`,
		"config=" + dir + "runtime.yaml": "containerRuntimeEndpoint: lite decides this field, and unix:///run/crio.sock is not \"unix:///run/lite/containerd/containerd.sock\"; set --container-runtime-endpoint",
		"config=" + dir + "ca.yaml":      "authentication.x509.clientCAFile: lite decides this field",
		"config=" + dir + "rotate.yaml":  "rotateCertificates: lite decides this field",
		"config=" + dir + "port.yaml":    "port: lite decides this field",
		"config=" + dir + "alone.yaml":   "registerNode: lite decides this field",
		"config=" + dir + "log.yaml":     "logging.verbosity: lite decides this field, and 4 is not \"0\"; set --log-level",
		"config=" + dir + "json.yaml":    "logging.format: lite decides this field",
		"config=" + dir + "health.yaml":  "healthzPort",
		"healthz-port=0":                 "healthz-port",
		"config=" + dir + "gate.yaml":    "featureGates: unrecognized feature gate: Nothing",
		"config-dir=" + dir + "cert":     "tlsCertFile: lite decides this field",
		"config=" + dir + "no.yaml":      "no such file",
		"config-dir=" + dir + "low.yaml": `kubelet-arg "config-dir=` + dir + `low.yaml": is not a directory; use a directory that is readable`,
		"config-dir=" + dir + "no":       `kubelet-arg "config-dir=` + dir + `no": `,
	} {
		for name, err := range map[string]error{"New": func() error { _, err := New(with(arg)); return err }(), "Check": Check(with(arg))} {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "kubelet-arg") {
				t.Errorf("%s of %s: got %v, want %s", name, arg, err, want)
			}
		}
	}
	// An agent's kubelet renews its certificates.
	c := with("config=" + dir + "rotate.yaml")
	c.CertFile, c.KeyFile = "", ""
	if err := Check(c); err != nil {
		t.Error(err)
	}
}
