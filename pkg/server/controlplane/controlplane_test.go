package controlplane

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"sigs.k8s.io/yaml"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/tests/golden"
)

// sample is a control plane of one IPv4 server as it is by default.
func sample(change ...func(*config.Config, *cluster.Facts)) Config {
	n := &config.Config{
		NodeName:         "node-a",
		NodeIP:           []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		BindAddress:      netip.IPv4Unspecified(),
		AdvertiseAddress: netip.MustParseAddr("192.0.2.10"),
		HTTPSListenPort:  6443,
		AuditLogPath:     layout.Default().Host.AuditLog,
	}
	f := config.StandardFacts()
	for _, c := range change {
		c(n, &f)
	}
	dir := pki.Dir("/var/lib/lite/server/pki")
	return Config{Node: n, Cluster: f, Dir: "/var/lib/lite/server", PKI: dir, Datastore: datastore.Endpoint{
		URLs: []string{"https://127.0.0.1:2379"}, CAFile: dir.CA(pki.EtcdCA), CertFile: dir.Cert(pki.APIServerEtcdClient), KeyFile: dir.Key(pki.APIServerEtcdClient),
	}}
}

func withUserArgs(n *config.Config, _ *cluster.Facts) {
	n.APIServerArgs = []string{"profiling=true", "v=2", "event-ttl=2h"}
	n.SchedulerArgs = []string{"profiling=true", "v=2"}
	n.ControllerManagerArgs = []string{"profiling=true", "v=2", "node-monitor-grace-period=1m"}
}

func withoutAudit(n *config.Config, _ *cluster.Facts) { n.AuditLogPath = "" }

func withCIS(n *config.Config, f *cluster.Facts) {
	n.Profile, f.Profile = config.ProfileCIS, config.ProfileCIS
}

func withDualStack(n *config.Config, f *cluster.Facts) {
	f.ClusterCIDR = append(f.ClusterCIDR, netip.MustParsePrefix("fd42::/56"))
	f.ServiceCIDR = append(f.ServiceCIDR, netip.MustParsePrefix("fd43::/112"))
}

func withIPv6(n *config.Config, f *cluster.Facts) {
	n.NodeIP = []netip.Addr{netip.MustParseAddr("2001:db8::10")}
	n.BindAddress, n.AdvertiseAddress = n.NodeIP[0], n.NodeIP[0]
	f.ClusterCIDR = []netip.Prefix{netip.MustParsePrefix("fd42::/56")}
	f.ServiceCIDR = []netip.Prefix{netip.MustParsePrefix("fd43::/112")}
}

var samples = map[string]Config{
	"default":   sample(),
	"user-args": sample(withUserArgs),
	"no audit":  sample(withoutAudit),
	"cis":       sample(withCIS),
	"dualstack": sample(withDualStack),
	"ipv6":      sample(withIPv6),
}

// argsOf is the arguments of each component.
var argsOf = map[string]func(Config) []string{
	"kube-apiserver": apiServerArgs, "kube-scheduler": schedulerArgs, "kube-controller-manager": controllerManagerArgs,
}

func TestArgs(t *testing.T) {
	for component, args := range argsOf {
		base := args(samples["default"])
		golden.Check(t, component, strings.Join(base, "\n")+"\n")
		var b strings.Builder
		for _, name := range []string{"user-args", "no audit", "cis", "dualstack", "ipv6"} {
			b.WriteString("# " + name + "\n" + diff(base, args(samples[name])))
		}
		golden.Check(t, component+"-differs", b.String())
	}
}

// diff is the lines that were taken out and put in.
func diff(before, after []string) string {
	var b strings.Builder
	without := func(mark string, lines, other []string) {
		for _, line := range lines {
			if !strings.Contains("\n"+strings.Join(other, "\n")+"\n", "\n"+line+"\n") {
				b.WriteString(mark + line + "\n")
			}
		}
	}
	without("-", before, after)
	without("+", after, before)
	return b.String()
}

func TestUsersArgumentsComeLastAndWin(t *testing.T) {
	c := samples["user-args"]
	for name, args := range argsOf {
		text := strings.Join(args(c), " ")
		if strings.LastIndex(text, "--profiling=true") < strings.Index(text, "--profiling=false") {
			t.Errorf("%s: %s", name, text)
		}
	}
	a, err := NewAPIServer(c)
	if err != nil {
		t.Fatal(err)
	}
	if !a.options.Features.EnableProfiling || a.options.EventTTL != 2*time.Hour {
		t.Errorf("the API server has %+v", a.options.Features)
	}
	m, err := NewControllerManager(c)
	if err != nil {
		t.Fatal(err)
	}
	if m.options.NodeLifecycleController.NodeMonitorGracePeriod.Duration != time.Minute {
		t.Errorf("the controller-manager has %+v", m.options.NodeLifecycleController)
	}
}

// A user replaces a list as well as a single value.
func TestUsersListsReplaceOurs(t *testing.T) {
	a, err := NewAPIServer(sample(func(n *config.Config, _ *cluster.Facts) {
		n.APIServerArgs = []string{"authorization-mode=RBAC", "kubelet-preferred-address-types=Hostname"}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := a.options.Authorization.Modes; len(got) != 1 || got[0] != "RBAC" {
		t.Errorf("authorization-mode: got %q", got)
	}
	if got := a.options.KubeletConfig.PreferredAddressTypes; len(got) != 1 || got[0] != "Hostname" {
		t.Errorf("kubelet-preferred-address-types: got %q", got)
	}
}

// prepared is a sample whose files have been made.
func prepared(t *testing.T, change ...func(*config.Config, *cluster.Facts)) Config {
	t.Helper()
	return withFiles(t, sample(change...))
}

func withFiles(t *testing.T, c Config) Config {
	t.Helper()
	c.Dir = layout.Data(t.TempDir()).Server()
	c.PKI = pki.Dir(c.Dir.PKI())
	c.Datastore.CAFile, c.Datastore.CertFile, c.Datastore.KeyFile = c.PKI.CA(pki.EtcdCA), c.PKI.Cert(pki.APIServerEtcdClient), c.PKI.Key(pki.APIServerEtcdClient)
	identity := pki.Node{Name: c.Node.NodeName, IPs: c.Node.NodeIP, ServiceIPs: []netip.Addr{FirstAddress(c.Cluster.ServiceCIDR[0])}, ClusterDomain: c.Cluster.ClusterDomain}
	if _, err := pki.Ensure(c.PKI, identity, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	return c
}

// accepted is the API server whose options upstream accepts. Complete and Validate are
// what it does with them before it begins to work; all that the arguments name must be
// there.
func accepted(t *testing.T, c Config) *APIServer {
	t.Helper()
	a, err := NewAPIServer(c)
	if err != nil {
		t.Fatal(err)
	}
	completed, err := a.options.Complete(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range completed.Validate() {
		t.Errorf("apiserver: %v", err)
	}
	return a
}

func TestUpstreamAcceptsWhatWeSay(t *testing.T) {
	klog.SetLogger(logr.Discard())
	defer klog.ClearLogger()
	for name, c := range samples {
		t.Run(name, func(t *testing.T) {
			c := withFiles(t, c)
			a := accepted(t, c)
			s, err := NewScheduler(c)
			if err != nil {
				t.Fatal(err)
			}
			if s.options.ComponentConfig, err = latest.Default(); err != nil {
				t.Fatal(err)
			}
			for _, err := range s.options.Validate() {
				t.Errorf("scheduler: %v", err)
			}
			m, err := NewControllerManager(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.options.Validate(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()); err != nil {
				t.Errorf("controller-manager: %v", err)
			}
			if a.Name() != "apiserver" || s.Name() != "scheduler" || m.Name() != "controller-manager" {
				t.Error("a component has another name than users know")
			}
		})
	}
}

func TestArgumentThatIsWrongNamesTheUsersFlag(t *testing.T) {
	for _, test := range []struct{ arg, want string }{
		{"no-such-flag=1", "unknown flag: --no-such-flag"},
		{"v=loud", `invalid argument "loud" for "-v, --v" flag`},
	} {
		c := sample(func(n *config.Config, _ *cluster.Facts) {
			n.APIServerArgs, n.SchedulerArgs, n.ControllerManagerArgs = []string{test.arg}, []string{test.arg}, []string{test.arg}
		})
		for name, make := range map[string]func(Config) error{
			"kube-apiserver-arg":          func(c Config) error { _, err := NewAPIServer(c); return err },
			"kube-scheduler-arg":          func(c Config) error { _, err := NewScheduler(c); return err },
			"kube-controller-manager-arg": func(c Config) error { _, err := NewControllerManager(c); return err },
		} {
			if err := make(c); err == nil || !strings.HasPrefix(err.Error(), name+": "+test.want) {
				t.Errorf("got %v, want %s: %s", err, name, test.want)
			}
		}
	}
}

// What upstream would refuse when it runs is refused before anything runs.
func TestWhatUpstreamRefusesLaterIsRefusedAtOnce(t *testing.T) {
	for _, test := range []struct{ component, arg, want string }{
		{"kube-controller-manager", "controllers=*,-service-lb-controller", `"service-lb-controller" is not in the list of known controllers`},
		{"kube-controller-manager", "controllers=deploymint-controller", `"deploymint-controller" is not in the list of known controllers`},
		{"kube-controller-manager", "cidr-allocator-type=CloudAllocator", "CloudAllocator is not available"},
		{"kube-controller-manager", "show-hidden-metrics-for-version=1.2", "1.2"},
		{"kube-scheduler", "show-hidden-metrics-for-version=1.2", "1.2"},
		{"kube-scheduler", "secure-port=70000", "--secure-port 70000"},
		{"kube-controller-manager", "controllers=*,-nodeipam", ""}, // an older name
		{"kube-controller-manager", "controllers=*,-ttl-after-finished-controller", ""},
	} {
		c := sample(func(n *config.Config, _ *cluster.Facts) {
			if test.component == "kube-scheduler" {
				n.SchedulerArgs = []string{test.arg}
			} else {
				n.ControllerManagerArgs = []string{test.arg}
			}
		})
		_, errScheduler := NewScheduler(c)
		_, errManager := NewControllerManager(c)
		err := errors.Join(errScheduler, errManager)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.arg, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), test.component+"-arg: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.arg, err, test.want)
		}
	}
}

// What runs in the API server's own process has nothing compressed for it.
func TestOwnClientsAskForNothingCompressed(t *testing.T) {
	c := prepared(t)
	for _, leaf := range []string{pki.Admin, pki.Lite, pki.ControllerManager, pki.Scheduler, pki.Metrics} {
		cfg, err := kube.ClientConfig(c.Dir.Kubeconfig(leaf), "test")
		if err != nil {
			t.Fatal(err)
		}
		if !cfg.DisableCompression {
			t.Errorf("%s takes compressed answers", leaf)
		}
	}
}

func TestLocalURL(t *testing.T) {
	for want, c := range map[string]Config{
		"https://127.0.0.1:6443":      samples["default"],
		"https://[2001:db8::10]:6443": samples["ipv6"],
		"https://192.0.2.10:8443": sample(func(n *config.Config, _ *cluster.Facts) {
			n.BindAddress, n.HTTPSListenPort = n.NodeIP[0], 8443
		}),
	} {
		if got := c.LocalURL(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestFirstAddress(t *testing.T) {
	for prefix, want := range map[string]string{"10.43.0.0/16": "10.43.0.1", "10.43.7.9/16": "10.43.0.1", "fd43::/112": "fd43::1"} {
		if got := FirstAddress(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("%s: got %s, want %s", prefix, got, want)
		}
	}
}

func TestFilesAreForRootAlone(t *testing.T) {
	c := prepared(t)
	for _, path := range []string{
		c.Dir.Encryption(), c.auditPolicyFile(), c.Dir.Admission(),
		c.Dir.Kubeconfig(pki.Admin), c.Dir.Kubeconfig(pki.Scheduler), c.Dir.Kubeconfig(pki.ControllerManager),
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %o in a directory of %o", path, info.Mode().Perm(), dir.Mode().Perm())
		}
	}
}

func TestEncryptionKeyIsMadeOnceAndNeverRewritten(t *testing.T) {
	c := prepared(t)
	first, err := os.ReadFile(c.Dir.Encryption())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(c.Dir.Encryption()); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the file was rewritten: %v", err)
	}
	// A file that a user has changed, or broken, is theirs.
	if err := os.WriteFile(c.Dir.Encryption(), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(c.Dir.Encryption()); string(data) != "mine" {
		t.Errorf("got %s", data)
	}
	other, err := os.ReadFile(prepared(t).Dir.Encryption())
	if err != nil || bytes.Equal(first, other) {
		t.Errorf("two clusters have the same key: %v", err)
	}
}

func TestEncryptionKeyIs32Bytes(t *testing.T) {
	c := prepared(t)
	data, err := os.ReadFile(c.Dir.Encryption())
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Resources []struct {
			Resources []string
			Providers []struct {
				Secretbox *struct {
					Keys []struct{ Name, Secret string }
				}
			}
		}
	}
	if err := yaml.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Resources) != 1 || e.Resources[0].Providers[0].Secretbox == nil {
		t.Fatalf("got %s", data)
	}
	key, err := base64.StdEncoding.DecodeString(e.Resources[0].Providers[0].Secretbox.Keys[0].Secret)
	if err != nil || len(key) != 32 {
		t.Errorf("the key has %d bytes, %v", len(key), err)
	}
}

func TestUpstreamEncryptsSecretsAndReadsOldOnes(t *testing.T) {
	c := prepared(t)
	e, err := encryptionconfig.LoadEncryptionConfig(t.Context(), c.Dir.Encryption(), false, "test")
	if err != nil {
		t.Fatal(err)
	}
	transformer, ok := e.Transformers[schema.GroupResource{Resource: "secrets"}]
	if !ok || len(e.Transformers) != 1 {
		t.Fatalf("encrypts %v", e.Transformers)
	}
	where := value.DefaultContext("/registry/secrets/default/a")
	stored, err := transformer.TransformToStorage(t.Context(), []byte("hunter2"), where)
	if err != nil || !bytes.HasPrefix(stored, []byte("k8s:enc:secretbox:v1:key1:")) || bytes.Contains(stored, []byte("hunter2")) {
		t.Errorf("stored as %q, %v", stored, err)
	}
	for _, data := range [][]byte{stored, []byte("hunter2")} {
		if got, _, err := transformer.TransformFromStorage(t.Context(), data, where); err != nil || string(got) != "hunter2" {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

// A new key in place of a lost one would make every Secret unreadable.
func TestALostEncryptionKeyIsNotReplaced(t *testing.T) {
	c := prepared(t)
	if err := os.Remove(c.Dir.Encryption()); err != nil {
		t.Fatal(err)
	}
	c.Used = true
	if err := c.WriteFiles(); err == nil || !strings.Contains(err.Error(), c.Dir.Encryption()) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(c.Dir.Encryption()); err == nil {
		t.Error("there is a new key")
	}
}

// elsewhere is upstream's resolver.
type elsewhere struct{}

func (elsewhere) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	return &url.URL{Scheme: "https", Host: fmt.Sprintf("%s.%s:%d", name, namespace, port)}, nil
}

func TestResolver(t *testing.T) {
	r := resolver{elsewhere{}, map[string]string{"kube-system/metrics-server": "127.0.0.1:10349"}}
	for _, test := range []struct{ namespace, name, want string }{
		{"kube-system", "metrics-server", "https://127.0.0.1:10349"},
		{"other", "metrics-server", "https://metrics-server.other:443"},
		{"kube-system", "other", "https://other.kube-system:443"},
	} {
		if u, err := r.ResolveEndpoint(test.namespace, test.name, 443); err != nil || u.String() != test.want {
			t.Errorf("%s/%s: %v, %v, want %s", test.namespace, test.name, u, err, test.want)
		}
	}
}

// A name that no label may have keeps the API server's lease from being written; and API servers that do not ask each
// other do not write where they could be asked.
func TestIdentityArgs(t *testing.T) {
	peers := []string{"peer-ca-file=/ca.crt"}
	for _, test := range []struct {
		host string
		user []string
		want string
	}{
		{host: "node-a", want: "--feature-gates=UnknownVersionInteroperabilityProxy=false"},
		{host: "Node_A.example.com", want: "--feature-gates=UnknownVersionInteroperabilityProxy=false"},
		{host: strings.Repeat("a", 63), user: []string{"v=2"}, want: "--feature-gates=UnknownVersionInteroperabilityProxy=false"},
		{host: "node-a", user: peers},
		{host: strings.Repeat("a", 64), user: peers, want: "--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"},
		{host: "a!", want: "--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"},
		{host: "-a", want: "--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"},
		{host: "knödel", want: "--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"},
	} {
		if args := strings.Join(identityArgs(test.host, test.user), " "); args != test.want {
			t.Errorf("%s, %q: %q", test.host, test.user, args)
		}
	}
}
