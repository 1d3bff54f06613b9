package containerd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// rewriter stands between containerd and the mirrors whose repositories are
// named otherwise: hosts.toml can say where a mirror is, but not what it calls
// an image. It listens on loopback, only if there is something to rewrite, and
// answers only under a path that nobody can guess: it adds the mirror's
// credentials, which other users of the machine are not to use.
type rewriter struct {
	secret   string
	listener net.Listener
	targets  []*target
}

// target is one mirror of one registry.
type target struct {
	mirror  *url.URL
	rules   []rule
	base    *http.Transport
	auth    authn.Authenticator
	clients sync.Map // repository -> http.RoundTripper that has logged in
}

type rule struct {
	match *regexp.Regexp
	with  string
}

// listen begins to listen if the file names any rewrite; nil otherwise.
func (r *registries) listen() (*rewriter, error) {
	if !slices.ContainsFunc(slices.Collect(maps.Values(r.Mirrors)), func(m mirror) bool { return len(m.Rewrites) > 0 }) {
		return nil, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for image pulls: %w", err)
	}
	return &rewriter{secret: rand.Text(), listener: l}, nil
}

// add makes a mirror reachable and returns the URL to put into hosts.toml.
func (w *rewriter) add(mirror *url.URL, rules []rule, h host) (string, error) {
	config, err := h.tlsConfig()
	if err != nil {
		return "", err
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = config
	w.targets = append(w.targets, &target{mirror: mirror, rules: rules, base: base, auth: h.authenticator()})
	return fmt.Sprintf("http://%s/%s/%d/v2", w.listener.Addr(), w.secret, len(w.targets)-1), nil
}

// serve answers until ctx is done.
func (w *rewriter) serve(ctx context.Context) {
	mux := http.NewServeMux()
	for i, t := range w.targets {
		prefix := fmt.Sprintf("/%s/%d", w.secret, i)
		mux.Handle(prefix+"/", http.StripPrefix(prefix, t.proxy()))
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(w.listener) }()
}

// proxy passes requests for images on to the mirror under their other name.
func (t *target) proxy() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Path = path.Join("/", t.prefix(), t.rewrite(r.In.URL.Path))
			r.Out.URL.RawPath = ""
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = t.mirror.Scheme, t.mirror.Host, t.mirror.Host
		},
		Transport: t,
		ModifyResponse: func(res *http.Response) error {
			// A redirection relative to the mirror would miss it from here.
			if to, err := res.Location(); err == nil {
				res.Header.Set("Location", to.String())
			}
			return nil
		},
	}
}

// imagePath is the part of the distribution API that names a repository.
var imagePath = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|tags|referrers)/`)

// repository is the repository that an API path names.
func repository(apiPath string) string {
	if m := imagePath.FindStringSubmatch(apiPath); m != nil {
		return m[1]
	}
	return ""
}

// rewrite applies the first rule that matches.
func (t *target) rewrite(apiPath string) string {
	repo := repository(apiPath)
	for _, r := range t.rules {
		if repo != "" && r.match.MatchString(repo) {
			return "/v2/" + r.match.ReplaceAllString(repo, r.with) + strings.TrimPrefix(apiPath, "/v2/"+repo)
		}
	}
	return apiPath
}

// RoundTrip asks the mirror, logged in for the repository.
func (t *target) RoundTrip(req *http.Request) (*http.Response, error) {
	repo := repository(strings.TrimPrefix(req.URL.Path, t.prefix()))
	if repo == "" {
		return t.base.RoundTrip(req)
	}
	client, ok := t.clients.Load(repo)
	if !ok {
		made, err := t.login(req.Context(), repo)
		if err != nil {
			return nil, err
		}
		client, _ = t.clients.LoadOrStore(repo, made)
	}
	return client.(http.RoundTripper).RoundTrip(req)
}

func (t *target) login(ctx context.Context, repo string) (http.RoundTripper, error) {
	var options []name.Option
	if t.mirror.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	r, err := name.NewRepository(t.mirror.Host+"/"+repo, options...)
	if err != nil {
		return nil, fmt.Errorf("rewritten image name: %w", err)
	}
	// The ticket that comes back is used long after this request.
	return transport.NewWithContext(context.WithoutCancel(ctx), r.Registry, t.auth, greeter{t}, []string{r.Scope(transport.PullScope)})
}

// prefix is the path below which the mirror has its API.
func (t *target) prefix() string {
	return strings.TrimSuffix(strings.TrimSuffix(t.mirror.Path, "/"), "/v2")
}

// greeter corrects how go-containerregistry (0.21) greets a mirror before it
// logs in: at the root of the host, and without TLS if the address is private
// and TLS fails, where anybody in between could ask for the password.
type greeter struct{ *target }

// RoundTrip implements http.RoundTripper.
func (g greeter) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && g.mirror.Scheme == "https" && req.URL.Host == g.mirror.Host {
		return nil, fmt.Errorf("mirror %s does not speak TLS", g.mirror.Host)
	}
	if req.URL.Host == g.mirror.Host && req.URL.Path == "/v2/" {
		req = req.Clone(req.Context())
		req.URL.Path = g.prefix() + "/v2/"
	}
	return g.base.RoundTrip(req)
}

// compileRules reads the rewrites, in alphabetical order of their patterns.
func compileRules(rewrites map[string]string) (rules []rule, err error) {
	for _, pattern := range slices.Sorted(maps.Keys(rewrites)) {
		match, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("rewrite %q: %w", pattern, err)
		}
		rules = append(rules, rule{match, rewrites[pattern]})
	}
	return rules, nil
}

func (h host) authenticator() authn.Authenticator {
	if h.Auth == nil {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: h.Auth.Username, Password: h.Auth.Password, Auth: h.Auth.Auth, IdentityToken: h.Auth.IdentityToken,
	})
}

func (h host) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{}
	if h.TLS == nil {
		return config, nil
	}
	config.InsecureSkipVerify = h.TLS.InsecureSkipVerify //nolint:gosec // the user asked for it
	if h.TLS.CAFile != "" {
		pem, err := os.ReadFile(h.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate", h.TLS.CAFile)
		}
	}
	if h.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(h.TLS.CertFile, h.TLS.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load cert_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
