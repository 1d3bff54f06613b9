package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	utilversion "k8s.io/apimachinery/pkg/util/version"

	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// Stable is the default channel.
const Stable = "stable"

// BaseURLVariable is the variable with which install.sh gets the address of releases.
const BaseURLVariable = "INSTALL_LITE_BASE_URL"

const (
	// stallTimeout is how long a download may stand still.
	stallTimeout = 30 * time.Second
	// attempts is how often a download is resumed.
	attempts = 5
	// retryAfter is the pause before the second attempt; it grows.
	retryAfter = time.Second
	// smallFile bounds what is read of a file that should be short.
	smallFile = 1 << 20
)

// published is a release that a file server has.
type published struct {
	version string
	client  *http.Client
	trust   trust
	dir     string // its URL
}

// find finds the requested release: a version, or the current one of a channel.
func find(ctx context.Context, o Options, t trust, env []string) (*published, error) {
	base := strings.TrimSuffix(o.BaseURL, "/")
	if base == "" {
		base = strings.TrimSuffix(os.Getenv(BaseURLVariable), "/")
	}
	if base == "" {
		base = strings.TrimSuffix(version.BaseURL(), "/")
	}
	if base == "" {
		return nil, fmt.Errorf("this build does not know where releases are; set --base-url or %s, or pass a file with --artifact", BaseURLVariable)
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("--base-url %q: must be an address such as https://host/path", base)
	}
	anyhow := o.AllowHTTP || t.key != nil // what is signed may come as it likes
	if !anyhow && !isPrivate(u) {
		return nil, fmt.Errorf("--base-url %s: it is not encrypted, so anybody on the way could change what runs as root here; use an https address, verify signatures with --public-key, or pass --allow-http", u.Redacted())
	}
	client, err := newClient(env, anyhow)
	if err != nil {
		return nil, err
	}
	r := &published{version: o.Version, trust: t, client: client}
	if r.version == "" {
		address := base + "/channels/" + o.Channel
		text, err := r.get(ctx, address)
		if err != nil {
			return nil, fmt.Errorf("get the version of the channel %s: %w", o.Channel, err)
		}
		r.version = strings.TrimSpace(string(text))
		if _, err := utilversion.ParseSemantic(r.version); err != nil {
			return nil, fmt.Errorf("get the version of the channel %s: %s returned %q, which is not a version", o.Channel, u.Redacted(), firstLine(r.version))
		}
	}
	if _, err := utilversion.ParseSemantic(r.version); err != nil {
		return nil, fmt.Errorf("--to %q: must be a version such as v1.2.3", r.version)
	}
	r.dir = base + "/" + r.version + "/"
	return r, nil
}

// newClient uses the proxies of this process, otherwise those of lite, otherwise those of
// the service.
func newClient(env []string, anyhow bool) (*http.Client, error) {
	settings := map[string]string{}
	// A shell of root's does not have the proxies of the service.
	file, err := os.ReadFile(layout.Default().Config.Environment())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the proxies: %w", err)
	}
	for _, source := range [][]string{strings.Split(string(file), "\n"), env, os.Environ()} {
		for _, line := range source {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if value = strings.Trim(value, `"'`); value != "" {
				settings[strings.ToUpper(name)] = value
			}
		}
	}
	proxies := httpproxy.Config{HTTPProxy: settings["HTTP_PROXY"], HTTPSProxy: settings["HTTPS_PROXY"], NoProxy: settings["NO_PROXY"]}
	proxy := proxies.ProxyFunc()
	return &http.Client{CheckRedirect: follow(anyhow), Transport: &http.Transport{
		Proxy:                 func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		ResponseHeaderTimeout: stallTimeout,
		TLSHandshakeTimeout:   stallTimeout,
		DisableCompression:    true, // what is compressed is so in the file
		ForceAttemptHTTP2:     true,
	}}, nil
}

// isPrivate reports whether nobody between here and there can change what comes.
func isPrivate(u *url.URL) bool {
	host := u.Hostname()
	return u.Scheme == "https" || host == "localhost" || net.ParseIP(host).IsLoopback()
}

// follow follows no server to where others can change what comes, unless that was
// so from the beginning.
func follow(anyhow bool) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, before []*http.Request) error {
		if len(before) >= 10 {
			return errors.New("the server redirected ten times")
		}
		downgrade := before[len(before)-1].URL.Scheme == "https" && next.URL.Scheme != "https"
		if downgrade || !anyhow && !isPrivate(next.URL) {
			return fmt.Errorf("the server redirects to %s, which is not encrypted; use another --base-url", next.URL.Redacted())
		}
		return nil
	}
}

// get reads a short file.
func (r *published) get(ctx context.Context, address string) ([]byte, error) {
	var text []byte
	err := r.try(ctx, address, "", 0, func(res *http.Response) error {
		var err error
		text, err = io.ReadAll(io.LimitReader(res.Body, smallFile))
		return err
	})
	return text, err
}

// missing is an answer that the next attempt would get too.
type missing struct{ address, status string }

func (m missing) Error() string {
	return fmt.Sprintf("%s: the server returned %s", m.address, m.status)
}

// try makes one request. An etag together with from asks for the rest of a file.
func (r *published) try(ctx context.Context, address, etag string, from int64, use func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if from > 0 && etag != "" {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		req.Header.Set("If-Range", etag)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusPartialContent:
		return use(res)
	case res.StatusCode/100 == 4:
		return missing{req.URL.Redacted(), res.Status}
	}
	return fmt.Errorf("%s: the server returned %s", req.URL.Redacted(), res.Status)
}

// stage downloads the program of a release, verifies it with SHA256SUMS and unpacks it.
func (r *published) stage(ctx context.Context, download, to string, report func(string)) error {
	name := release.Packed(runtime.GOARCH)
	list, err := r.sums(ctx)
	if err != nil {
		return err
	}
	if list[name] == "" {
		return fmt.Errorf("lite %s: %s has no %s; it is not released for this architecture", r.version, release.SumsFile, name)
	}
	f, err := os.OpenFile(download, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("download lite: %w", err)
	}
	defer os.Remove(download)
	defer f.Close()
	if err := r.download(ctx, r.dir+name, f, report); err != nil {
		return fmt.Errorf("download lite %s: %w", r.version, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("download lite: %w", err)
	}
	hash, err := stageFile(f, to)
	if err != nil {
		return fmt.Errorf("unpack lite %s: %w", r.version, err)
	}
	return list.Check(name, hash)
}

// sums is the checksums of the release, signed if they have to be.
func (r *published) sums(ctx context.Context) (release.Sums, error) {
	text, err := r.get(ctx, r.dir+release.SumsFile)
	if err != nil {
		return nil, fmt.Errorf("download the checksums of lite %s: %w", r.version, err)
	}
	var signature []byte
	if r.trust.key != nil {
		signature, err = r.get(ctx, r.dir+release.SignatureFile)
		if errors.As(err, new(missing)) {
			err = r.trust.unsigned()
		}
		if err != nil {
			return nil, fmt.Errorf("download the signature of lite %s: %w", r.version, err)
		}
	}
	list, err := r.trust.verify(text, signature)
	if err != nil {
		return nil, fmt.Errorf("lite %s: %w", r.version, err)
	}
	return list, nil
}

// download gets a file, and resumes when the connection breaks.
func (r *published) download(ctx context.Context, address string, f *os.File, report func(string)) error {
	var have int64
	var etag string
	pause := retryAfter
	for attempt := 1; ; attempt++ {
		attempting, cancel := context.WithCancelCause(ctx)
		stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("no data for %s", stallTimeout)) })
		err := r.try(attempting, address, etag, have, func(res *http.Response) error {
			if res.StatusCode == http.StatusOK {
				have = 0
				if err := f.Truncate(0); err != nil {
					return err
				}
			}
			if _, err := f.Seek(have, io.SeekStart); err != nil {
				return err
			}
			etag = strong(res.Header.Get("ETag"), res.Header.Get("Last-Modified"))
			p := &progress{total: have + res.ContentLength, have: &have, report: report, alive: func() { stall.Reset(stallTimeout) }}
			_, err := io.Copy(io.MultiWriter(f, p), res.Body)
			return err
		})
		if cause := context.Cause(attempting); err != nil && cause != nil && ctx.Err() == nil {
			err = cause
		}
		stall.Stop()
		cancel(nil)
		if err == nil {
			return nil
		}
		var full *fs.PathError
		if m := (missing{}); ctx.Err() != nil || errors.As(err, &m) || errors.As(err, &full) || attempt == attempts {
			return err
		}
		report(fmt.Sprintf("The download stopped (%v); resuming in %s", err, pause))
		if !kube.Sleep(ctx, pause) {
			return ctx.Err()
		}
		pause *= 2
	}
}

// strong is what a server must still have for the rest of a file to be asked
// for; a weak tag does not promise the same bytes.
func strong(etag, modified string) string {
	if etag == "" {
		return modified
	}
	if strings.HasPrefix(etag, "W/") {
		return ""
	}
	return etag
}

// progress counts bytes, and reports every now and then.
type progress struct {
	total    int64
	have     *int64
	reported time.Time
	report   func(string)
	alive    func()
}

// reportEvery is how often a download reports its progress.
const reportEvery = 5 * time.Second

func (p *progress) Write(data []byte) (int, error) {
	p.alive()
	*p.have += int64(len(data))
	if now := time.Now(); p.total > 0 && now.Sub(p.reported) > reportEvery {
		p.reported = now
		p.report(fmt.Sprintf("Downloaded %d of %d MiB", *p.have>>20, p.total>>20))
	}
	return len(data), nil
}
