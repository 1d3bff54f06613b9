package status

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/component"
)

// socket is a path that is short enough for a socket's address.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lite")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "lite", "lite.sock")
}

// serve answers with n until the test ends.
func serve(t *testing.T, n Node) (path string) {
	t.Helper()
	path = socket(t)
	if err := Serve(t.Context(), path, func(context.Context) Node { return n }, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// get asks the socket like any HTTP client.
func get(t *testing.T, path, method, url string) (code int, body string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://lite"+url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

var (
	since   = time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	healthy = Node{
		Role: "server", Name: "node-a", Version: "v0.1.0", PID: 42, Since: since, Ready: true,
		Components: []Component{{Name: "etcd", State: component.Ready, Since: since, Took: 0.25}, {Name: "apiserver", State: component.Ready, Since: since, Needs: []string{"etcd"}}},
	}
	sick = Node{
		Role: "server", Name: "node-a", Since: since,
		Components: []Component{{Name: "etcd", State: component.Ready, Since: since}, {Name: "apiserver", State: component.Starting, Since: since, Reason: "not listening yet"}},
	}
)

func TestGetReturnsWhatTheNodeSays(t *testing.T) {
	for _, n := range []Node{healthy, sick} {
		got, err := Get(t.Context(), serve(t, n))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, n) {
			t.Errorf("got %+v, want %+v", got, n)
		}
	}
}

func TestStatusIsStableJSON(t *testing.T) {
	path := serve(t, healthy)
	code, body := get(t, path, http.MethodGet, "/status")
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK {
		t.Fatalf("got %d %s, %v", code, body, err)
	}
	want := map[string]any{
		"role": "server", "name": "node-a", "version": "v0.1.0", "pid": 42.0, "since": "2026-05-01T12:00:00Z", "ready": true,
		"components": []any{
			map[string]any{"name": "etcd", "state": "ready", "since": "2026-05-01T12:00:00Z", "tookSeconds": 0.25},
			map[string]any{"name": "apiserver", "state": "ready", "since": "2026-05-01T12:00:00Z", "needs": []any{"etcd"}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %s", body)
	}
}

func TestReadyzIs200Or503WithTheReasons(t *testing.T) {
	if code, body := get(t, serve(t, healthy), http.MethodGet, "/readyz"); code != http.StatusOK || body != "" {
		t.Errorf("ready: got %d %q", code, body)
	}
	code, body := get(t, serve(t, sick), http.MethodGet, "/readyz")
	if code != http.StatusServiceUnavailable || body != "apiserver: starting: not listening yet\n" {
		t.Errorf("not ready: got %d %q", code, body)
	}
}

func TestSocketOnlyAnswersQuestions(t *testing.T) {
	path := serve(t, healthy)
	if code, _ := get(t, path, http.MethodPost, "/status"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", code)
	}
	if code, _ := get(t, path, http.MethodGet, "/"); code != http.StatusNotFound {
		t.Errorf("/: got %d", code)
	}
}

// Containers with users of their own pass through the directory, so the socket has to
// be closed itself.
func TestSocketIsForRootAlone(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := socket(t)
	if err := os.Mkdir(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), path, func(context.Context) Node { return healthy }, nil); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if dir.Mode().Perm() != 0o711 {
		t.Errorf("the directory has mode %o", dir.Mode().Perm())
	}
	if s, err := os.Stat(path); err != nil || s.Mode().Type() != os.ModeSocket || s.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", s.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside it are %v, %v", left, err)
	}
}

func TestServeTakesTheSocketOfADeadProcessOver(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := Get(t.Context(), path); err == nil {
		t.Fatal("a dead socket answers")
	}
	if err := Serve(t.Context(), path, func(context.Context) Node { return healthy }, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := Get(t.Context(), path); err != nil || n.Name != "node-a" {
		t.Errorf("got %+v, %v", n, err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	path := socket(t)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	asked := make(chan struct{})
	if err := Serve(ctx, path, func(ctx context.Context) Node {
		close(asked)
		<-ctx.Done()
		close(stopped)
		return healthy
	}, nil); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := Get(t.Context(), path)
		answer <- err
	}()
	<-asked
	cancel()
	<-stopped
	if err := <-answer; err == nil {
		t.Error("a request outlived the server")
	}
}

func TestServeSaysWhyItCannotListen(t *testing.T) {
	path := socket(t)
	if err := os.MkdirAll(filepath.Join(path, "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := Serve(t.Context(), path, nil, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "listen on "+path+": ") {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), filepath.Join(file, "lite.sock"), nil, nil); err == nil {
		t.Error("listens below a file")
	}
}

func TestGetSaysWhatToDo(t *testing.T) {
	const start = "lite is not running on this machine; start it with `lite server` or `lite agent`"
	t.Run("no socket", func(t *testing.T) {
		if _, err := Get(t.Context(), socket(t)); err == nil || err.Error() != start {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		path := socket(t)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if _, err := Get(t.Context(), path); err == nil || err.Error() != start {
			t.Errorf("got %v", err)
		}
	})
	t.Run("permission denied", func(t *testing.T) {
		err := explain("/x", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)})
		if err.Error() != "/x: permission denied; run as root" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("anything else", func(t *testing.T) {
		if err := explain("/x", errors.New("odd")); err.Error() != "ask /x: odd" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an answer that is none", func(t *testing.T) {
		path := socket(t)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close() })
		if _, err := Get(t.Context(), path); err == nil || !strings.HasPrefix(err.Error(), "read the status: ") {
			t.Errorf("got %v", err)
		}
	})
}

// part is a component that is as ready as it is told.
type part struct {
	name  string
	ready func() error
}

func (p part) Name() string                { return p.name }
func (p part) Ready(context.Context) error { return p.ready() }
func (p part) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func TestOfAsksEveryComponent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := error(nil)
		g := &component.Group{}
		db := g.Add(part{"etcd", func() error { return broken }})
		g.Add(part{"apiserver", func() error { return errors.New("waiting for rbac") }}, db)

		before := Of(t.Context(), Node{Name: "node-a", Components: []Component{{Name: "stale"}}}, g)
		if before.Ready || len(before.Components) != 2 || before.Components[0].State != component.Waiting {
			t.Errorf("before the start: got %+v", before)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		time.Sleep(time.Minute)
		n := Of(ctx, Node{Name: "node-a"}, g)
		if n.Ready || n.Name != "node-a" || n.Components[0].State != component.Ready || n.Components[1].State != component.Starting ||
			n.Components[1].Reason != "waiting for rbac" || !reflect.DeepEqual(n.Components[1].Needs, []string{"etcd"}) {
			t.Errorf("while starting: got %+v", n)
		}
		broken = errors.New("alarm NOSPACE")
		if n := Of(ctx, Node{}, g); n.Components[0].State != component.Failed || n.Components[0].Reason != "alarm NOSPACE" {
			t.Errorf("after the failure: got %+v", n)
		}
		cancel()
		<-ended
	})
}

func TestSettingsAreToldAsTheyAre(t *testing.T) {
	want := Settings{
		Role: "server", Name: "node-a", DataDir: "/var/lib/lite", Kubeconfig: "/etc/lite/kubeconfig.yaml",
		Components: map[string]component.Settings{
			"etcd":    {Arguments: []string{"--client-cert-auth=true"}},
			"kubelet": {Arguments: []string{"--v=2"}, Configuration: json.RawMessage(`{"readOnlyPort":0}`)},
		},
	}
	for _, c := range []struct {
		name     string
		settings func() (Settings, error)
		err      string
	}{
		{"told", func() (Settings, error) { return want, nil }, ""},
		{"broken", func() (Settings, error) { return Settings{}, errors.New("settings of kubelet: no codec") }, "500 Internal Server Error: settings of kubelet: no codec"},
	} {
		path := socket(t)
		if err := Serve(t.Context(), path, nil, c.settings); err != nil {
			t.Fatal(err)
		}
		got, err := GetSettings(t.Context(), path)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
		case err != nil || !reflect.DeepEqual(got, want):
			t.Errorf("%s: got %+v, %v", c.name, got, err)
		}
	}
	if _, err := GetSettings(t.Context(), socket(t)); err == nil || !strings.Contains(err.Error(), "lite is not running") {
		t.Errorf("nobody answers: %v", err)
	}
}
