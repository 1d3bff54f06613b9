// Package kube is the one place that touches what Kubernetes keeps in globals,
// and the one that knows how to make its clients.
package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
)

// Join is how upstream's flags take a list.
func Join[T fmt.Stringer](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, ",")
}

// Parse reads args into the flag sets of an upstream component. component is
// the flag by which a user passes arguments on, for the error.
func Parse(component string, sets cliflag.NamedFlagSets, args []string) error {
	fs := pflag.NewFlagSet(component, pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, set := range sets.FlagSets {
		fs.AddFlagSet(set)
	}
	return ParseSet(component, fs, args)
}

// ParseSet is Parse for a component with a single flag set.
func ParseSet(component string, fs *pflag.FlagSet, args []string) error {
	// Deprecation notes of upstream would go to the terminal.
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("%s-arg: %w", component, withRemedy(err))
	}
	if rest := fs.Args(); len(rest) > 0 {
		return fmt.Errorf("%s-arg %q: must be key=value", component, rest[0])
	}
	return checkGates(component, args)
}

// SetGates puts the feature gates among the flags of the kubelet or kube-proxy
// into the registry of the process, which upstream does only when they run
// (1.37). What the control plane is told of the same gate wins.
func SetGates(component string, fs *pflag.FlagSet) error {
	gates := fs.Lookup("feature-gates").Value.String()
	// A registry that was once told of a gate it does not know refuses all that
	// comes after (1.37), so a copy is asked first.
	err := utilfeature.DefaultFeatureGate.DeepCopy().Set(gates)
	if err == nil {
		err = utilfeature.DefaultMutableFeatureGate.Set(gates)
	}
	if err != nil {
		return fmt.Errorf("%s-arg feature-gates=%s: %w", component, gates, err)
	}
	return nil
}

// SettleGates fixes the feature gates and versions of the process. Every
// component of Kubernetes in it shares one registry, which is not safe to write
// once anything runs: call it after all arguments have been parsed and before
// the first component is started.
func SettleGates() error {
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	utilfeature.DefaultMutableFeatureGate.AddMetrics()
	compatibility.DefaultComponentGlobalsRegistry.AddMetrics()
	// Components meet deprecated API fields of their own making; the warnings
	// are for people.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return nil
}

// ClientConfig reads a kubeconfig for a client of ours.
func ClientConfig(kubeconfig, userAgent string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.UserAgent = "lite/" + userAgent
	cfg.QPS, cfg.Burst = 100, 200
	return cfg, nil
}

// Probe is a cheap readiness check over HTTP: it succeeds on status 200 and
// otherwise names the checks that fail, or returns the status.
type Probe struct {
	URL    string
	Client *http.Client
	// plain asks without the certificate; nil if Client has none.
	plain *http.Client
}

// NewProbeAs is NewProbe with a client certificate: a user may have closed health
// to the anonymous. The files are read for each probe, so they may be made later,
// and be renewed. Where the certificate is not accepted, since the user has told the
// component of another authority, it asks once more without.
func NewProbeAs(url, certFile, keyFile string) Probe {
	p := NewProbe(url)
	p.plain = NewProbe(url).Client
	p.Client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &cert, err
	}
	return p
}

// Near is where this machine itself reaches what listens at an address: at loopback, if
// that is any of them or none is said.
func Near(address string) string {
	if ip, err := netip.ParseAddr(address); err != nil || ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return address
}

// NewProbe makes a Probe of a loopback url. The server's certificate is not
// verified, which is acceptable for asking a loopback address whether it is
// well, and for nothing else.
func NewProbe(url string) Probe {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = insecureLoopback()
	t.Proxy = nil
	// One request in a while: no connection is worth keeping.
	t.DisableKeepAlives = true
	return Probe{URL: url, Client: &http.Client{Transport: t, Timeout: 3 * time.Second}}
}

// Check asks once.
func (p Probe) Check(ctx context.Context) error {
	status, err := ask(ctx, p.Client, p.URL)
	if status == http.StatusUnauthorized && p.plain != nil {
		_, err = ask(ctx, p.plain, p.URL)
	}
	return err
}

func ask(ctx context.Context, client *http.Client, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			return 0, fmt.Errorf("no answer from %s", req.URL.Host)
		}
		return 0, errors.New("not listening yet")
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if res.StatusCode == http.StatusOK {
		return res.StatusCode, nil
	}
	return res.StatusCode, errors.New(failedChecks(res.Status, string(body)))
}

// failedChecks picks the names of failing checks out of a healthz answer
// ("[-]poststarthook/rbac failed: reason withheld").
func failedChecks(status, body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ := strings.Cut(rest, " ")
			failed = append(failed, name)
		}
	}
	if len(failed) == 0 {
		return status
	}
	return "waiting for " + strings.Join(failed, ", ")
}
