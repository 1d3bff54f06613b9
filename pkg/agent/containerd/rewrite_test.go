package containerd

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	hosts "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sirupsen/logrus"

	"lite.io/lite/pkg/layout"
)

const user, password = "user", `p"a:s\s`

// layer is a layer of an image as its manifest names it.
type layer struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// upstreamRegistry is a registry that holds one image, and remembers what it
// was asked with which credentials.
type upstreamRegistry struct {
	*httptest.Server
	content http.Handler
	layer   layer

	mu    sync.Mutex
	paths []string
}

// holding starts a registry with the image repo:v1, behind guard.
func holding(t *testing.T, repo string, start func(http.Handler) *httptest.Server, guard func(*upstreamRegistry, http.Handler) http.Handler) *upstreamRegistry {
	t.Helper()
	u := &upstreamRegistry{content: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	fill := httptest.NewServer(u.content)
	defer fill.Close()
	image, err := random.Image(1<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(fill.URL, "http://") + "/" + repo + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := layers[0].Size()
	if err != nil {
		t.Fatal(err)
	}
	u.layer = layer{"application/vnd.docker.image.rootfs.diff.tar.gzip", digest.String(), size}
	u.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.paths = append(u.paths, r.URL.Path)
		u.mu.Unlock()
		if guard != nil {
			guard(u, u.content).ServeHTTP(w, r)
			return
		}
		u.content.ServeHTTP(w, r)
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstreamRegistry) asked(path string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.paths {
		if p == path {
			return true
		}
	}
	return false
}

// basic lets in who knows the password.
func basic(_ *upstreamRegistry, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer gives a ticket for one repository to who knows the password.
func bearer(repo string) func(*upstreamRegistry, http.Handler) http.Handler {
	return func(up *upstreamRegistry, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			scope := "repository:" + repo + ":pull"
			switch {
			case r.URL.Path == "/token":
				if u, p, _ := r.BasicAuth(); u != user || p != password || r.URL.Query().Get("scope") != scope {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				fmt.Fprint(w, `{"token":"ticket"}`)
			case r.Header.Get("Authorization") != "Bearer ticket":
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope=%q`, up.URL, scope))
				w.WriteHeader(http.StatusUnauthorized)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// serving begins to answer as containerd's component does, and returns the
// directory of hosts.toml files.
func serving(t *testing.T, r *registries) (dir string, w *rewriter) {
	t.Helper()
	quietly(t)
	w = newRewriter(layout.Local(0))
	t.Cleanup(w.close)
	dir = t.TempDir()
	if err := r.write(dir, w); err != nil {
		t.Fatal(err)
	}
	return dir, w
}

// quietly keeps what the proxy logs away from the test's output.
func quietly(t *testing.T) {
	t.Helper()
	was, out, flags, theirs := slog.Default(), log.Writer(), log.Flags(), logrus.StandardLogger().Out
	slog.SetDefault(slog.New(slog.DiscardHandler))
	logrus.SetOutput(io.Discard)
	t.Cleanup(func() {
		logrus.SetOutput(theirs)
		slog.SetDefault(was)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
}

// pull fetches the manifest and a layer of an image the way containerd does.
func pull(t *testing.T, dir, image string, l layer) error {
	t.Helper()
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: hosts.ConfigureHosts(t.Context(), hosts.HostOptions{HostDir: hosts.HostDirFromRoot(dir)}),
	})
	resolved, d, err := resolver.Resolve(t.Context(), image)
	if err != nil {
		return err
	}
	fetcher, err := resolver.Fetcher(t.Context(), resolved)
	if err != nil {
		return err
	}
	read := func(r io.ReadCloser, err error) error {
		if err != nil {
			return err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err == nil && len(data) == 0 {
			err = errors.New("nothing came")
		}
		return err
	}
	if err := read(fetcher.Fetch(t.Context(), d)); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return err
	}
	if err := read(fetcher.Fetch(t.Context(), d)); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	return nil
}

func TestRewrittenImageIsPulledFromTheMirror(t *testing.T) {
	const yaml = `
mirrors:
  '127.0.0.1:1':
    endpoint: ['%s']
    rewrite: {'^app/(.*)$': 'proxy/$1'}
configs:
  '%s': {auth: {username: user, password: 'p"a:s\s'}}
`
	plain := httptest.NewServer
	for name, guard := range map[string]func(*upstreamRegistry, http.Handler) http.Handler{
		"open to all": nil,
		"basic":       basic,
		"bearer":      bearer("proxy/web"),
		"redirects to itself": func(_ *upstreamRegistry, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if rest, ok := strings.CutPrefix(r.URL.Path, "/storage"); ok {
					r.URL.Path = rest
					next.ServeHTTP(w, r)
				} else if strings.Contains(r.URL.Path, "/blobs/") {
					http.Redirect(w, r, "/storage"+r.URL.Path, http.StatusTemporaryRedirect)
				} else {
					next.ServeHTTP(w, r)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := holding(t, "proxy/web", plain, guard)
			host := strings.TrimPrefix(u.URL, "http://")
			dir, _ := serving(t, parsed(t, fmt.Sprintf(yaml, u.URL, host)))
			for range 2 {
				if err := pull(t, dir, "127.0.0.1:1/app/web:v1", u.layer); err != nil {
					t.Fatalf("%v; the mirror was asked %q", err, u.paths)
				}
			}
			if !u.asked("/v2/proxy/web/manifests/v1") || u.asked("/v2/app/web/manifests/v1") {
				t.Errorf("the mirror was asked %q", u.paths)
			}
		})
	}
}

func TestRewriterVerifiesTheMirror(t *testing.T) {
	u := holding(t, "proxy/web", httptest.NewTLSServer, nil)
	host := strings.TrimPrefix(u.URL, "https://")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: u.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		tls string
		ok  bool
	}{
		"unknown authority": {"{}", false},
		"its authority":     {"{ca_file: " + ca + "}", true},
		"not verified":      {"{insecure_skip_verify: true}", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := serving(t, parsed(t, fmt.Sprintf("mirrors: {'127.0.0.1:1': {endpoint: ['%s'], rewrite: {^app/: proxy/}}}\nconfigs: {'%s': {tls: %s}}", u.URL, host, test.tls)))
			err := pull(t, dir, "127.0.0.1:1/app/web:v1", u.layer)
			if (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRewriterErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(file, []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	for tls, want := range map[string]string{
		"{ca_file: /none.pem}":                              "read ca_file: ",
		"{ca_file: " + file + "}":                           "does not contain a certificate",
		"{cert_file: " + file + ", key_file: " + file + "}": "load cert_file: ",
	} {
		r := parsed(t, "mirrors: {a.test: {endpoint: [m.test], rewrite: {a: b}}}\nconfigs: {m.test: {tls: "+tls+"}}")
		w := newRewriter(layout.Local(0))
		if err := r.write(t.TempDir(), w); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `endpoint "https://m.test"`) {
			t.Errorf("%s: got %v, want %s", tls, err, want)
		}
		w.close()
	}
}

// Another user of the machine must not pull with the mirror's password.
func TestRewriterAnswersOnlyWhoKnowsThePath(t *testing.T) {
	u := holding(t, "proxy/web", httptest.NewServer, basic)
	host := strings.TrimPrefix(u.URL, "http://")
	_, w := serving(t, parsed(t, fmt.Sprintf("mirrors: {a.test: {endpoint: ['%s'], rewrite: {^app/: proxy/}}}\nconfigs: {'%s': {auth: {username: user, password: 'p\"a:s\\s'}}}", u.URL, host)))
	get := func(path string) int {
		t.Helper()
		res, err := http.Get("http://" + w.listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	const manifest = "/v2/app/web/manifests/v1"
	id := slices.Collect(maps.Keys(w.targets))[0]
	for _, path := range []string{"/", manifest, "/" + id + manifest, "/guess/" + id + manifest, "/" + w.secret + manifest, "/" + w.secret + "/1" + manifest, "/" + w.secret[:10] + "/" + id + manifest} {
		if got := get(path); got != http.StatusNotFound {
			t.Errorf("%s: got %d", path, got)
		}
	}
	if got := get("/" + w.secret + "/" + id + manifest); got != http.StatusOK {
		t.Errorf("containerd itself gets %d", got)
	}
	if len(w.secret) < 26 {
		t.Errorf("the secret %q can be guessed", w.secret)
	}
}

func TestMirrorBelowAPath(t *testing.T) {
	below := func(root bool) func(*upstreamRegistry, http.Handler) http.Handler {
		return func(_ *upstreamRegistry, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if rest, ok := strings.CutPrefix(r.URL.Path, "/mirror"); ok {
					r.URL.Path = rest
					next.ServeHTTP(w, r)
				} else if root {
					next.ServeHTTP(w, r)
				} else {
					http.NotFound(w, r)
				}
			})
		}
	}
	for name, root := range map[string]bool{"and a registry at the root": true, "alone": false} {
		for _, suffix := range []string{"/mirror", "/mirror/", "/mirror/v2", "/mirror/v2/"} {
			t.Run(name+" "+suffix, func(t *testing.T) {
				u := holding(t, "proxy/web", httptest.NewServer, below(root))
				dir, _ := serving(t, parsed(t, fmt.Sprintf("mirrors: {'127.0.0.1:1': {endpoint: ['%s%s'], rewrite: {^app/: proxy/}}}", u.URL, suffix)))
				if err := pull(t, dir, "127.0.0.1:1/app/web:v1", u.layer); err != nil {
					t.Errorf("%v; the mirror was asked %q", err, u.paths)
				}
			})
		}
	}
}

func TestRewrite(t *testing.T) {
	for name, test := range map[string]struct {
		rules map[string]string
		path  string
		want  string
	}{
		"manifest":             {map[string]string{"^a/(.*)": "b/$1"}, "/v2/a/x/y/manifests/v1", "/v2/b/x/y/manifests/v1"},
		"blob":                 {map[string]string{"^a/(.*)": "b/$1"}, "/v2/a/x/blobs/sha256:00", "/v2/b/x/blobs/sha256:00"},
		"referrers":            {map[string]string{"^a/": "b/"}, "/v2/a/x/referrers/sha256:00", "/v2/b/x/referrers/sha256:00"},
		"no match":             {map[string]string{"^b/": "c/"}, "/v2/a/x/manifests/v1", "/v2/a/x/manifests/v1"},
		"not an image":         {map[string]string{".*": "c"}, "/v2/", "/v2/"},
		"catalogue":            {map[string]string{".*": "c"}, "/v2/_catalog", "/v2/_catalog"},
		"first of two":         {map[string]string{"^a/": "1/", "^a/x": "2"}, "/v2/a/x/manifests/v1", "/v2/1/x/manifests/v1"},
		"only one is applied":  {map[string]string{"^a": "b", "^b": "c"}, "/v2/a/x/manifests/v1", "/v2/b/x/manifests/v1"},
		"all":                  {map[string]string{"(.*)": "proxy/$1"}, "/v2/library/web/manifests/v1", "/v2/proxy/library/web/manifests/v1"},
		"word in the name":     {map[string]string{"^a/": "b/"}, "/v2/a/manifests/x/manifests/v1", "/v2/b/manifests/x/manifests/v1"},
		"repository like a v2": {map[string]string{"^v2/": "b/"}, "/v2/v2/x/manifests/v1", "/v2/b/x/manifests/v1"},
	} {
		t.Run(name, func(t *testing.T) {
			var rules []rule
			for _, pattern := range slices.Sorted(maps.Keys(test.rules)) {
				rules = append(rules, rule{regexp.MustCompile(pattern), test.rules[pattern]})
			}
			if got := (&target{mirror: &url.URL{}, rules: rules}).rewrite(test.path); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestRewriterEnds(t *testing.T) {
	_, w := serving(t, parsed(t, "mirrors: {a.test: {endpoint: [m.test], rewrite: {a: b}}}"))
	w.close()
	if c, err := net.Dial("tcp", w.listener.Addr().String()); err == nil {
		c.Close()
		t.Error("it listens on")
	}
}

func TestRewriterListensOnlyIfThereIsSomethingToRewrite(t *testing.T) {
	if _, w := serving(t, parsed(t, "mirrors: {a.test: {endpoint: [m.test]}}")); w.listener != nil {
		t.Error("it listens")
	}
}

// A pull that is under way goes on where its mirror is as before, logged in as it is;
// it ends where the mirror or its password is another.
func TestRewriterKeepsTheMirrorsThatStay(t *testing.T) {
	const stays = "mirrors: {a.test: {endpoint: [m.test], rewrite: {a: b}}, "
	before := parsed(t, stays+"b.test: {endpoint: [n.test], rewrite: {a: b}}}\nconfigs: {n.test: {auth: {username: u, password: p}}}")
	after := parsed(t, stays+"b.test: {endpoint: [n.test], rewrite: {a: b}}}\nconfigs: {n.test: {auth: {username: u, password: q}}}")
	dir, w := serving(t, before)
	was := maps.Clone(w.targets)
	w.begin()
	if err := after.write(dir, w); err != nil {
		t.Fatal(err)
	}
	if len(w.targets) != 3 {
		t.Errorf("while the files are written there are %d", len(w.targets))
	}
	w.keep()
	stayed := 0
	for id, target := range w.targets {
		if was[id] == target {
			stayed++
		}
	}
	if len(w.targets) != 2 || stayed != 1 {
		t.Errorf("of %v are left %v", was, w.targets)
	}
}
