package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/pflag"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
)

func TestArgsAreSortedAndTheUsersTakeThePlaceOfOurs(t *testing.T) {
	got := Args("kube-thing", map[string]string{"b": "2", "a-b": "1", "c-d": "5", "a": "x=y,z", "empty": ""}, []string{"v=4", "a=mine", "--b=3", "c_d=6"})
	want := []string{"--a-b=1", "--empty=", "--v=4", "--a=mine", "--b=3", "--c_d=6"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Args("kube-thing", nil, nil); got != nil {
		t.Errorf("got %q of nothing", got)
	}
}

// sample is flags of an upstream component in two sets.
type sample struct {
	name string
	list []string
	sets cliflag.NamedFlagSets
}

func newSample() *sample {
	s := &sample{}
	s.sets.FlagSet("one").StringVar(&s.name, "name", "default", "")
	s.sets.FlagSet("two").StringSliceVar(&s.list, "some-list", nil, "")
	_ = s.sets.FlagSet("two").MarkDeprecated("some-list", "use another")
	return s
}

func TestParseReadsEverySetAndTheLastWins(t *testing.T) {
	s := newSample()
	if err := Parse("kube-thing", s.sets, []string{"--name=ours", "--some_list=a", "--name=theirs"}); err != nil {
		t.Fatal(err)
	}
	if s.name != "theirs" || !slices.Equal(s.list, []string{"a"}) {
		t.Errorf("got %+v", s)
	}
}

func TestParseErrorsNameTheUsersFlag(t *testing.T) {
	for _, test := range []struct{ arg, want string }{
		{"--nmae=x", "kube-thing-arg: unknown flag: --nmae; Kubernetes 1.37 does not have it: remove it, or correct it"},
		{"--name", "kube-thing-arg: flag needs an argument: --name"},
		{"name=x", `kube-thing-arg "name=x": must be key=value`},
		{"--", ""},
	} {
		err := Parse("kube-thing", newSample().sets, []string{test.arg})
		if test.want == "" && err == nil {
			continue
		}
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.arg, err, test.want)
		}
	}
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	fs.Int("number", 0, "")
	if err := ParseSet("kubelet", fs, []string{"--number=many"}); err == nil || !strings.HasPrefix(err.Error(), `kubelet-arg: invalid argument "many" for "--number"`) {
		t.Errorf("got %v", err)
	}
}

// Nothing of upstream's flag parsing may reach the terminal.
func TestParseSaysNothing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stderr
	os.Stderr = w
	s := newSample()
	err = errors.Join(Parse("kube-thing", s.sets, []string{"--some-list=a"}), nil)
	os.Stderr = was
	w.Close()
	given, _ := io.ReadAll(r)
	if err != nil || len(given) > 0 {
		t.Errorf("got %v, said %q", err, given)
	}
}

func TestGatesAreSetAndThoseThatAreWrongChangeNothing(t *testing.T) {
	const gate = "LiteTest"
	registry := utilfeature.DefaultMutableFeatureGate
	if err := registry.Add(map[featuregate.Feature]featuregate.FeatureSpec{gate: {PreRelease: featuregate.Alpha}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args, want string
		enabled    bool
	}{
		{"--v=2", "", false},
		{"--feature-gates=LiteTest=true", "", true},
		{"--feature-gates=LiteTest=false,LiteTset=true", "kubelet-arg feature-gates=LiteTest=false,LiteTset=true: unrecognized feature gate: LiteTset; Kubernetes 1.37 does not have it: remove it, or correct it", true},
		{"--v=2", "", true},
		{"--feature-gates=LiteTest=false", "", false},
	} {
		fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
		fs.Int("v", 0, "")
		fs.Var(cliflag.NewMapStringBool(&map[string]bool{}), "feature-gates", "")
		err := ParseSet("kubelet", fs, []string{test.args})
		if err == nil {
			err = SetGates("kubelet", fs)
		}
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%s: got %v, want %q", test.args, err, test.want)
		}
		if err := SettleGates(); err != nil {
			t.Errorf("%s: settle: %v", test.args, err)
		}
		if registry.Enabled(gate) != test.enabled {
			t.Errorf("after %s it is %t", test.args, !test.enabled)
		}
	}
}

func TestFailedChecks(t *testing.T) {
	const status = "500 Internal Server Error"
	for name, test := range map[string]struct{ body, want string }{
		"nothing":   {"", status},
		"no checks": {"leader changed\n", status},
		"all well":  {"[+]ping ok\nreadyz check passed\n", status},
		"one": {"[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n",
			"waiting for poststarthook/rbac/bootstrap-roles"},
		"two":             {"[-]etcd failed: reason withheld\n[+]ping ok\n[-]informer-sync failed: reason withheld", "waiting for etcd, informer-sync"},
		"without reasons": {"[-]etcd", "waiting for etcd"},
	} {
		if got := failedChecks(status, test.body); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestProbe(t *testing.T) {
	for name, test := range map[string]struct {
		code int
		body string
		want string
	}{
		"ready":       {http.StatusOK, "ok", ""},
		"not ready":   {http.StatusInternalServerError, "[-]etcd failed: reason withheld\n", "waiting for etcd"},
		"denied":      {http.StatusUnauthorized, "{}", "401 Unauthorized"},
		"long answer": {http.StatusServiceUnavailable, strings.Repeat("x", 1<<20), "503 Service Unavailable"},
		"moved":       {http.StatusNoContent, "", "204 No Content"},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/readyz" || r.Header.Get("Authorization") != "" {
					t.Errorf("was asked %s %v", r.URL, r.Header)
				}
				w.WriteHeader(test.code)
				_, _ = io.WriteString(w, test.body)
			})
			for _, s := range []*httptest.Server{httptest.NewServer(h), httptest.NewTLSServer(h)} {
				err := NewProbe(s.URL + "/readyz").Check(t.Context())
				if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
					t.Errorf("%s: got %v, want %q", s.URL, err, test.want)
				}
				s.Close()
			}
		})
	}
}

// A user may have told a component of another authority, whose certificates alone it
// accepts, or may have closed it to the anonymous; not both.
func TestProbeWithACertificate(t *testing.T) {
	for name, accepts := range map[string]func(certificates int) bool{
		"accepted":        func(n int) bool { return n > 0 },
		"another's":       func(n int) bool { return n == 0 },
		"neither of them": func(int) bool { return false },
	} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !accepts(len(r.TLS.PeerCertificates)) {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
		pair := s.TLS.Certificates[0]
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, keyFile := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
		for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
			if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := NewProbeAs(s.URL, cert, keyFile).Check(t.Context()); (err == nil) != (name != "neither of them") || err != nil && err.Error() != "401 Unauthorized" {
			t.Errorf("%s: got %v", name, err)
		}
		s.Close()
	}
}

func TestProbeOfWhatDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := NewProbe("http://" + l.Addr().String() + "/readyz")
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if err := p.Check(ctx); err == nil || err.Error() != "no answer from "+l.Addr().String() {
		t.Errorf("hangs: got %v", err)
	}
	l.Close()
	if err := p.Check(t.Context()); err == nil || err.Error() != "not listening yet" {
		t.Errorf("closed: got %v", err)
	}
	if err := NewProbe("http://[::1").Check(t.Context()); err == nil {
		t.Error("no error for what is no URL")
	}
	if p.Client.Timeout <= 0 || p.Client.Timeout > 5*time.Second {
		t.Errorf("a probe may take %s", p.Client.Timeout)
	}
}

func TestClientConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	const content = `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: "https://127.0.0.1:6443"}}]}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := ClientConfig(file, "network")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://127.0.0.1:6443" || cfg.UserAgent != "lite/network" || cfg.QPS < 50 {
		t.Errorf("got %+v", cfg)
	}
	if _, err := ClientConfig(file+"x", "network"); err == nil || !strings.HasPrefix(err.Error(), "read kubeconfig "+file+"x: ") {
		t.Errorf("got %v", err)
	}
}

func node(name string, cidrs ...string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "1"}, Spec: v1.NodeSpec{PodCIDRs: cidrs}}
}

// nodes is a list and watch of the nodes of a fake cluster.
func nodes(t *testing.T, present ...runtime.Object) (cache.ListerWatcher, *fake.Clientset) {
	t.Helper()
	c := fake.NewClientset(present...)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return c.CoreV1().Nodes().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			return c.CoreV1().Nodes().Watch(ctx, o)
		},
	}
	return cache.ToListWatcherWithWatchListSemantics(lw, c), c
}

func hasRange(n *v1.Node) bool { return len(n.Spec.PodCIDRs) > 0 }

func TestAwaitFindsWhatIsThere(t *testing.T) {
	lw, _ := nodes(t, node("a"), node("b", "10.42.0.0/24"))
	got, err := Await(t.Context(), lw, hasRange)
	if err != nil || got.Name != "b" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAwaitSeesWhatChanges(t *testing.T) {
	lw, c := nodes(t, node("a"))
	asked := make(chan string, 10)
	done := func(n *v1.Node) bool {
		asked <- n.Name
		return hasRange(n)
	}
	found := make(chan *v1.Node, 1)
	go func() {
		n, err := Await(t.Context(), lw, done)
		if err != nil {
			t.Error(err)
		}
		found <- n
	}()
	<-asked
	if _, err := c.CoreV1().Nodes().Update(t.Context(), node("a", "10.42.0.0/24"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := <-found; n == nil || n.Spec.PodCIDRs[0] != "10.42.0.0/24" {
		t.Errorf("got %v", n)
	}
}

func TestAwaitIsNotSatisfiedByWhatIsDeleted(t *testing.T) {
	lw, c := nodes(t, node("a"))
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan bool, 10)
	ended := make(chan error, 1)
	var wanted atomic.Bool
	go func() {
		_, err := Await(ctx, lw, func(*v1.Node) bool {
			is := wanted.Load()
			asked <- true
			return is
		})
		ended <- err
	}()
	<-asked
	wanted.Store(true)
	if err := c.CoreV1().Nodes().Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Nodes().Create(ctx, node("b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// b comes after the deletion of a: had that been asked, there would be two.
	<-asked
	if err := <-ended; err != nil || len(asked) > 0 {
		t.Errorf("got %v, %d more questions", err, len(asked))
	}
	cancel()
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	lw, _ := nodes(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := Await(ctx, lw, hasRange); err == nil || n != nil {
		t.Errorf("got %v, %v", n, err)
	}
}

// The control plane's gates are set long after its arguments are parsed: who has
// one that the new version does not know hears at once where it stands.
func TestGatesThatAreGoneAreFoundInTheirArgument(t *testing.T) {
	for arg, gone := range map[string]string{
		"--feature-gates=AllBeta=true":                  "",
		"--feature-gates=kube:AllBeta=true":             "",
		"--feature-gates=other:Whatever=true":           "",
		"--feature-gates=":                              "",
		"--v=2":                                         "",
		"--feature-gates=BtreeWatchCache=true":          "BtreeWatchCache",
		"--feature_gates=kube:BtreeWatchCache=true":     "BtreeWatchCache",
		"--feature-gates=AllBeta=true,GangScheduling=1": "GangScheduling",
	} {
		var sets cliflag.NamedFlagSets
		sets.FlagSet("a").String("feature-gates", "", "")
		sets.FlagSet("a").Int("v", 0, "")
		err := Parse("kube-apiserver", sets, []string{arg})
		if gone == "" && err != nil || gone != "" && (err == nil || !strings.HasPrefix(err.Error(), "kube-apiserver-arg feature-gates=") ||
			!strings.HasSuffix(err.Error(), ": unrecognized feature gate: "+gone+"; "+noneOfThatName)) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
