package kubelet

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"sigs.k8s.io/yaml"

	"lite.io/lite/tests/golden"
)

func sample() Config {
	return Config{
		Dir:           "/var/lib/lite/agent/kubelet",
		Root:          "/var/lib/kubelet",
		NodeName:      "node-a",
		NodeIP:        []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		ClusterDNS:    netip.MustParseAddr("10.43.0.10"),
		ClusterDomain: "cluster.local",
		Kubeconfig:    "/var/lib/lite/agent/kubelet.conf",
		CAFile:        "/pki/ca.crt",
		CertFile:      "/pki/kubelet.crt",
		KeyFile:       "/pki/kubelet.key",
		Runtime:       "unix:///run/lite/containerd/containerd.sock",
		ResolvConf:    "/etc/resolv.conf",
		Systemd:       true,
	}
}

func full() Config {
	c := sample()
	c.NodeIP = append(c.NodeIP, netip.MustParseAddr("2001:db8::10"))
	c.Labels = []string{"b=2", "a=1"}
	c.Taints = []string{"a=b:NoSchedule", "c:NoExecute"}
	c.ClusterDNS = netip.Addr{}
	c.Systemd = false
	c.ExtraArgs = []string{"max-pods=200", "node-ip=192.0.2.11", "v=2"}
	return c
}

func TestConfiguration(t *testing.T) {
	for name, c := range map[string]Config{"config": sample(), "config-full": full()} {
		k, err := configuration(c)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, name, string(text))
	}
}

func TestArgs(t *testing.T) {
	for name, c := range map[string]Config{"args": sample(), "args-full": full()} {
		golden.Check(t, name, strings.Join(args(c), "\n")+"\n")
	}
}

func TestUpstreamAcceptsWhatWeSay(t *testing.T) {
	for name, c := range map[string]Config{"sample": sample(), "full": full()} {
		k, err := New(c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if k.Name() != "kubelet" || k.server.KubeConfig != c.Kubeconfig || k.server.RootDirectory != "/var/lib/kubelet" || k.server.HostnameOverride != "node-a" {
			t.Errorf("%s: got %+v", name, k.server.KubeletFlags)
		}
	}
}

func TestDefaultsOfUpstreamStay(t *testing.T) {
	k, err := New(sample())
	if err != nil {
		t.Fatal(err)
	}
	c := k.server.KubeletConfiguration
	if c.MaxPods != 110 || c.ReadOnlyPort != 0 || c.EvictionHard["memory.available"] != "100Mi" || c.Port != 10250 {
		t.Errorf("got %+v", c)
	}
	if c.Authentication.Anonymous.Enabled || !c.Authentication.Webhook.Enabled || c.Authorization.Mode != "Webhook" || c.Authentication.X509.ClientCAFile != "/pki/ca.crt" {
		t.Errorf("others than the API server are let in: %+v %+v", c.Authentication, c.Authorization)
	}
	if c.FailSwapOn || c.CgroupDriver != "systemd" {
		t.Errorf("got %+v", c)
	}
}

// Many flags of the kubelet stand for a field of its configuration; users set them without
// knowing which.
func TestUsersArgumentsWinOverTheConfiguration(t *testing.T) {
	for _, test := range []struct {
		args []string
		got  func(*Kubelet) bool
	}{
		{[]string{"max-pods=200"}, func(k *Kubelet) bool { return k.server.MaxPods == 200 }},
		{[]string{"cluster-domain=example.test"}, func(k *Kubelet) bool { return k.server.ClusterDomain == "example.test" }},
		{[]string{"cluster-dns=10.43.0.99"}, func(k *Kubelet) bool { return len(k.server.ClusterDNS) == 1 && k.server.ClusterDNS[0] == "10.43.0.99" }},
		{[]string{"cgroup-driver=cgroupfs"}, func(k *Kubelet) bool { return k.server.CgroupDriver == "cgroupfs" }},
		{[]string{"eviction-hard=memory.available<1Gi"}, func(k *Kubelet) bool {
			return len(k.server.EvictionHard) == 1 && k.server.EvictionHard["memory.available"] == "1Gi"
		}},
		{[]string{"register-with-taints=x=y:NoSchedule"}, func(k *Kubelet) bool {
			return len(k.server.RegisterWithTaints) == 1 && k.server.RegisterWithTaints[0].Key == "x"
		}},
		{[]string{"hostname-override=" + sample().NodeName, "register-node=true"}, func(k *Kubelet) bool { return k.server.RegisterNode }}, // as it is
		{[]string{"tls-cert-file=" + sample().CertFile, "client-ca-file=" + sample().CAFile, "port=10251", "address=192.0.2.10", "rotate-certificates=false"}, func(k *Kubelet) bool { return k.server.Address == "192.0.2.10" }},
		{[]string{"root-dir=/data/kubelet"}, func(k *Kubelet) bool { return k.server.RootDirectory == "/data/kubelet" }},
		{[]string{"resolv-conf=/etc/other"}, func(k *Kubelet) bool { return k.server.ResolverConfig == "/etc/other" }},
		{[]string{"max-pods=1", "max-pods=2"}, func(k *Kubelet) bool { return k.server.MaxPods == 2 }},
		{[]string{"fail-swap-on=true"}, func(k *Kubelet) bool { return k.server.FailSwapOn }},
		{[]string{"authorization-mode=AlwaysAllow"}, func(k *Kubelet) bool { return k.server.Authorization.Mode == "AlwaysAllow" }},
	} {
		c := sample()
		c.Taints = []string{"a=b:NoSchedule"}
		c.ExtraArgs = test.args
		k, err := New(c)
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		if !test.got(k) {
			t.Errorf("%q has no effect: %+v", test.args, k.server.KubeletConfiguration)
		}
	}
}

func TestArgumentsThatAreWrongNameTheFlag(t *testing.T) {
	for arg, want := range map[string]string{
		"max-podz=1":                 "kubelet-arg: unknown flag: --max-podz",
		"max-pods=many":              `kubelet-arg: invalid argument "many" for "--max-pods" flag`,
		"max-pods=-1":                "kubelet-arg: ",
		"node-labels=a b=c":          "kubelet-arg: ",
		"cpu-cfs-quota-period=0":     "kubelet-arg: ",
		"feature-gates=Nothing=true": "kubelet-arg feature-gates=Nothing=true: unrecognized feature gate: Nothing",
		// All parts got ready, and no pod started.
		"hostname-override=other":                          `kubelet-arg "hostname-override=other": certificates and all other components know the node as ` + sample().NodeName + "; set --node-name",
		"register-node=false":                              `kubelet-arg "register-node=false": there would be no node; remove the argument`,
		"kubeconfig=/etc/other":                            `kubelet-arg "kubeconfig=/etc/other": all components of a node use one kubeconfig`,
		"container-runtime-endpoint=unix:///run/crio.sock": `kubelet-arg "container-runtime-endpoint=unix:///run/crio.sock": other components use the runtime too; set --container-runtime-endpoint`,
		// The kubelet ended the whole process by these (rke2#7316).
		"tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": `kubelet-arg "tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", or its field in the file: http2: `,
		"tls-cipher-suites=ECDHE-ECDSA-AES128-GCM-SHA256":           `kubelet-arg "tls-cipher-suites=ECDHE-ECDSA-AES128-GCM-SHA256", or its field in the file: Cipher suite `,
		// Guides to the CIS benchmark recommend it; a server's kubelet requested a certificate
		// forever.
		"rotate-certificates=true":        `kubelet-arg "rotate-certificates=true": lite creates and renews the certificates of a node; remove the argument`,
		"rotate-server-certificates=true": `kubelet-arg "rotate-server-certificates=true": lite creates and renews`,
		// There were no logs and no exec.
		"tls-cert-file=/etc/other.crt":        `kubelet-arg "tls-cert-file=/etc/other.crt": the API server and others verify this node with the cluster's own authority: logs and exec would not work; remove the argument`,
		"tls-private-key-file=/etc/other.key": `kubelet-arg "tls-private-key-file=/etc/other.key": the API server`,
		"client-ca-file=/etc/other.crt":       `kubelet-arg "client-ca-file=/etc/other.crt": the API server presents a certificate of the cluster's authority`,
		"client-ca-file=":                     `kubelet-arg "client-ca-file=": `,
		"enable-server=false":                 `kubelet-arg "enable-server=false": logs and exec would not work; remove the argument`,
		"address=127.0.0.1":                   `kubelet-arg "address=127.0.0.1": the API server reaches the kubelet at the node's address`,
		"address=::1":                         `kubelet-arg "address=::1": `,
		// As it is typed where a shell would take the quotes away (microk8s#4450).
		`eviction-hard="memory.available<500Mi"`:      `kubelet-arg: eviction-hard, or its field in the file, is "memory.available<500Mi"`,
		`eviction-hard=memory.available<"500Mi"`:      `kubelet-arg: eviction-hard, or its field in the file, is memory.available<"500Mi": `,
		"eviction-soft=memory.available<1Gi":          "kubelet-arg: eviction-soft, or its field in the file, is memory.available<1Gi: ",
		"eviction-minimum-reclaim=nodefs.available=x": "kubelet-arg: eviction-minimum-reclaim, or its field in the file, is nodefs.available<x: ",
		"system-reserved=memory=1 GB":                 "kubelet-arg: system-reserved, or its field in the file, has memory=1 GB: ",
		"kube-reserved=disk=1Gi":                      "kubelet-arg: kube-reserved, or its field in the file, has disk=1Gi: only cpu",
	} {
		c := sample()
		c.ExtraArgs = []string{arg}
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", arg, err, want)
		}
	}
}

// An agent's kubelet has its certificates from the cluster, and renews them.
func TestAnAgentsCertificates(t *testing.T) {
	for arg, refused := range map[string]bool{
		"rotate-server-certificates=false": true, "rotate-certificates=false": true, "tls-cert-file=/etc/other.crt": true,
		"rotate-server-certificates=true": false, "rotate-certificates=true": false,
	} {
		c := sample()
		c.CertFile, c.KeyFile, c.ExtraArgs = "", "", []string{arg}
		if _, err := New(c); (err != nil) != refused || err != nil && !strings.Contains(err.Error(), `kubelet-arg "`+arg+`": `) {
			t.Errorf("%s: got %v", arg, err)
		}
	}
}

// Once other components run, nobody may write to the registry of gates.
func TestFeatureGatesAreSetBeforeAnythingRuns(t *testing.T) {
	const gate = "CPUManagerPolicyAlphaOptions"
	registry := utilfeature.DefaultMutableFeatureGate
	t.Cleanup(func() { _ = registry.ResetFeatureValueToDefault(gate) })
	c := sample()
	c.ExtraArgs = []string{"feature-gates=" + gate + "=true"}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if !registry.Enabled(gate) || k.server.FeatureGates != nil {
		t.Errorf("%s is %t, and Run sets %v", gate, registry.Enabled(gate), k.server.FeatureGates)
	}
}

func TestParseTaints(t *testing.T) {
	got, err := parseTaints([]string{"a=b:NoSchedule", "c:NoExecute", "d=:PreferNoSchedule", "example.test/e=f:NoExecute"})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, taint := range got {
		texts = append(texts, taint.Key+"|"+taint.Value+"|"+string(taint.Effect))
	}
	if got, want := strings.Join(texts, " "), "a|b|NoSchedule c||NoExecute d||PreferNoSchedule example.test/e|f|NoExecute"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := parseTaints([]string{"a=b"}); err == nil || !strings.Contains(err.Error(), `node-taint "a=b"`) {
		t.Errorf("got %v", err)
	}
	c := sample()
	c.Taints = []string{"a"}
	if _, err := New(c); err == nil {
		t.Error("a taint without effect is accepted")
	}
}

// Without the file no pod starts, and nothing else reports that.
func TestNote(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	c := sample()
	c.ResolvConf = file
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if note := k.Note(); !strings.Contains(note, "no pod starts") || !strings.Contains(note, file) {
		t.Errorf("without %s the note is %q", file, note)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if note := k.Note(); note != "" {
		t.Errorf("with it the note is %q", note)
	}
	if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
		t.Fatal(err)
	}
	if note := k.Note(); !strings.Contains(note, "no pod starts") || !strings.Contains(note, "is not a regular file") {
		t.Errorf("with a directory in its place the note is %q", note)
	}
	c.ExtraArgs = []string{"resolv-conf="}
	if k, err = New(c); err != nil {
		t.Fatal(err)
	}
	if note := k.Note(); note != "" {
		t.Errorf("with none the note is %q", note)
	}
}

// kernel is settings by their names.
type kernel map[string]int

func (k kernel) GetSysctl(name string) (int, error) {
	value, ok := k[name]
	if !ok {
		return 0, os.ErrNotExist
	}
	return value, nil
}

func (kernel) SetSysctl(string, int) error { return errors.New("nothing is to be changed") }

func TestAProtectedKernelIsLookedAtBeforeTheStart(t *testing.T) {
	right := kernel{}
	for _, s := range tunables {
		right[s.name] = s.value
	}
	wrong := maps.Clone(right)
	wrong["vm/overcommit_memory"], wrong["kernel/panic"] = 0, 0
	old := maps.Clone(right)
	delete(old, "kernel/keys/root_maxkeys")
	for name, test := range map[string]struct {
		protect bool
		kernel  kernel
		want    []string
	}{
		"as it has to be":    {true, right, nil},
		"not protected":      {false, wrong, nil},
		"two are wrong":      {true, wrong, []string{"(kernel.panic, vm.overcommit_memory)", "kernel.panic=10", "vm.overcommit_memory=1", "kernel.keys.root_maxkeys=1000000", "/etc/sysctl.d/"}},
		"one is not there":   {true, old, []string{"(kernel.keys.root_maxkeys)"}},
		"nothing to be seen": {true, kernel{}, []string{"kernel.keys.root_maxbytes", "vm.panic_on_oom"}},
	} {
		err := checkKernel(test.protect, test.kernel)
		if (err != nil) != (test.want != nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
}
