package containerd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// rewriter stands between containerd and the mirrors whose repositories are
// named otherwise: hosts.toml can set where a mirror is, but not what it calls
// an image. It listens on loopback, only if there is something to rewrite, and
// answers only under a path that nobody can guess: it adds the mirror's
// credentials, which other users of the machine are not to use.
type rewriter struct {
	secret   string
	listener net.Listener // nil while there is nothing to rewrite
	server   *http.Server

	// A mirror with the same settings as before is the same target, with the
	// logins that it has: pulls that are under way do not notice.
	mu      sync.Mutex
	listen  string
	targets map[string]*target
	wanted  map[string]bool // since the last call of begin
}

// target is one mirror of one registry.
type target struct {
	mirror  *url.URL
	rules   []rule
	base    *http.Transport
	auth    authn.Authenticator
	clients sync.Map // repository -> http.RoundTripper that has logged in
}

func newRewriter(listen string) *rewriter {
	return &rewriter{listen: listen, secret: rand.Text(), targets: map[string]*target{}, wanted: map[string]bool{}}
}

// begin prepares for the content of another file.
func (w *rewriter) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.wanted)
}

// keep forgets the targets that nobody has asked for since begin.
func (w *rewriter) keep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.targets, func(id string, _ *target) bool { return !w.wanted[id] })
}

// address makes a mirror reachable and returns the URL to put into hosts.toml.
func (w *rewriter) address(e endpoint, rules []rule, h host) (string, error) {
	config, files, err := h.tlsConfig()
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil {
		if w.listener, err = net.Listen("tcp", w.listen); err != nil {
			return "", fmt.Errorf("listen for image pulls: %w", err)
		}
		w.server = &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = w.server.Serve(w.listener) }()
	}
	id := identify(e, rules, h, files)
	w.wanted[id] = true
	if w.targets[id] == nil {
		base := http.DefaultTransport.(*http.Transport).Clone()
		base.TLSClientConfig = config
		w.targets[id] = &target{mirror: e.URL, rules: rules, base: base, auth: h.authenticator()}
	}
	return fmt.Sprintf("http://%s/%s/%s/v2", w.listener.Addr(), w.secret, id), nil
}

// identify returns a different text for each different target.
func identify(e endpoint, rules []rule, h host, files []byte) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q\n", e, files)
	for _, r := range rules {
		fmt.Fprintf(sum, "%q %q\n", r.match, r.with)
	}
	if h.auth != nil {
		fmt.Fprintf(sum, "%q\n", []string{h.auth.username, h.auth.password, h.auth.auth, h.auth.token})
	}
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

// close ends it.
func (w *rewriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		_ = w.listener.Close() // the server knows of it only once it serves
		_ = w.server.Close()
	}
}

// ServeHTTP implements http.Handler.
func (w *rewriter) ServeHTTP(res http.ResponseWriter, req *http.Request) {
	secret, rest, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	id, _, _ := strings.Cut(rest, "/")
	w.mu.Lock()
	t := w.targets[id]
	w.mu.Unlock()
	if t == nil || subtle.ConstantTimeCompare([]byte(secret), []byte(w.secret)) == 0 {
		http.NotFound(res, req)
		return
	}
	http.StripPrefix("/"+secret+"/"+id, t.proxy()).ServeHTTP(res, req)
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

func (h host) authenticator() authn.Authenticator {
	if h.auth == nil {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: h.auth.username, Password: h.auth.password, Auth: h.auth.auth, IdentityToken: h.auth.token,
	})
}

// tlsConfig reads the certificates; files is what was read.
func (h host) tlsConfig() (config *tls.Config, files []byte, err error) {
	config = &tls.Config{}
	if h.tls == nil {
		return config, nil, nil
	}
	config.InsecureSkipVerify = h.tls.insecure //nolint:gosec // the user asked for it
	files = strconv.AppendBool(nil, h.tls.insecure)
	if h.tls.ca != "" {
		pem, err := os.ReadFile(h.tls.ca)
		if err != nil {
			return nil, nil, fmt.Errorf("read ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("ca_file %s does not contain a certificate", h.tls.ca)
		}
		files = append(files, pem...)
	}
	if h.tls.cert != "" {
		pair, err := tls.LoadX509KeyPair(h.tls.cert, h.tls.key)
		if err != nil {
			return nil, nil, fmt.Errorf("load cert_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
		for _, c := range pair.Certificate {
			files = append(files, c...)
		}
	}
	return config, files, nil
}
