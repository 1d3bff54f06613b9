// Package status answers what a node is doing, over a unix socket that only
// root can open.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/host/netfilter"
)

// Node is the answer.
type Node struct {
	Role       string      `json:"role"`
	Name       string      `json:"name"`
	Version    string      `json:"version"`
	PID        int         `json:"pid"`
	Since      time.Time   `json:"since"`
	Ready      bool        `json:"ready"`
	Components []Component `json:"components"`
	// Servers is how an agent reaches the API.
	Servers []Server `json:"servers,omitempty"`
	// Members is those of the datastore, if this is a server and they are several. Quorum says how many may fail.
	Members []Member `json:"members,omitempty"`
	Quorum  string   `json:"quorum,omitempty"`
	// Certificates are those that have ended, or are about to.
	Certificates []Certificate `json:"certificates,omitempty"`
	// Netfilter is which programs write the node's packet filter rules.
	Netfilter *netfilter.Tools `json:"netfilter,omitempty"`
}

// Settings is what a running node goes by.
type Settings struct {
	Role       string `json:"role"`
	Name       string `json:"name"`
	Version    string `json:"version"`
	DataDir    string `json:"dataDir"`
	Kubeconfig string `json:"kubeconfig,omitempty"` // the administrator's, on a server
	// Components is nil until they are made.
	Components map[string]component.Settings `json:"components,omitempty"`
}

// Server is an API server as an agent's load balancer sees it.
type Server struct {
	Address string    `json:"address"` // host:port
	State   string    `json:"state"`
	Since   time.Time `json:"since"` // of the state
	InUse   bool      `json:"inUse"`
	// UsedSince is since when it is in use; zero for the others.
	UsedSince time.Time `json:"usedSince,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// Member is one of those that hold the datastore together, as this server sees it.
type Member struct {
	Name      string  `json:"name"`
	Role      string  `json:"role"` // leader, voter or learner
	Reachable bool    `json:"reachable"`
	Behind    *uint64 `json:"behind,omitempty"` // entries of the log; nil if it is not known
	Reason    string  `json:"reason,omitempty"`
}

// Certificate is one that somebody should see to.
type Certificate struct {
	Path    string    `json:"path"`
	Subject string    `json:"subject"`
	State   string    `json:"state"` // ended, or ends soon
	Until   time.Time `json:"until"`
	Remedy  string    `json:"remedy"`
}

// Component is the state of one part of the node.
type Component struct {
	Name  string          `json:"name"`
	State component.State `json:"state"`
	// Since is when the component entered the state.
	Since time.Time `json:"since"`
	// Took is how long it took to get ready, in seconds.
	Took   float64  `json:"tookSeconds,omitempty"`
	Needs  []string `json:"needs,omitempty"`
	Reason string   `json:"reason,omitempty"`
	// Note is what a ready component tells about itself.
	Note string `json:"note,omitempty"`
}

// Of asks the components of a group and adds the answers to n.
func Of(ctx context.Context, n Node, g *component.Group) Node {
	n.Ready = true
	n.Components = nil
	for _, s := range g.Status(ctx) {
		c := Component{Name: s.Name, State: s.State, Since: s.Since, Took: s.Took.Seconds(), Needs: s.Needs, Note: s.Note}
		if s.Err != nil {
			c.Reason = s.Err.Error()
		}
		n.Ready = n.Ready && s.State == component.Ready
		n.Components = append(n.Components, c)
	}
	return n
}

// Serve answers on the socket at path until ctx is done: GET /status with a
// Node, GET /settings with Settings, GET /readyz with 200 or 503, GET /alive with 200.
// It returns once it listens.
func Serve(ctx context.Context, path string, now func(context.Context) Node, settings func() (Settings, error)) error {
	l, err := listen(path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(now(r.Context()))
	})
	mux.HandleFunc("GET /settings", func(w http.ResponseWriter, _ *http.Request) {
		s, err := settings()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		n := now(r.Context())
		if !n.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		for _, c := range n.Components {
			if c.State != component.Ready {
				fmt.Fprintf(w, "%s: %s: %s\n", c.Name, c.State, c.Reason)
			}
		}
	})
	// Nothing is asked of any component.
	mux.HandleFunc("GET /alive", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() {
		_ = server.Close()
		_ = os.Remove(path)
	})
	go func() { _ = server.Serve(l) }()
	return nil
}

// listen takes the path over from a process that died. Others may pass through the
// directory, so the socket is made behind a closed one and moved when it is closed
// itself: there is no moment at which it is open.
func listen(path string) (net.Listener, error) {
	dir, closed := filepath.Dir(path), path+".new"
	if err := os.MkdirAll(dir, file.Passable); err != nil {
		return nil, err
	}
	// An earlier lite has made it otherwise.
	if err := os.Chmod(dir, file.Passable); err != nil {
		return nil, err
	}
	for _, old := range []func() error{func() error { return os.Remove(path) }, func() error { return os.RemoveAll(closed) }} {
		if err := old(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := os.Mkdir(closed, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(closed)
	at := filepath.Join(closed, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would look where it was made
	if err := errors.Join(os.Chmod(at, 0o600), os.Rename(at, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Get asks the node that answers at path.
func Get(ctx context.Context, path string) (Node, error) {
	var n Node
	res, err := ask(ctx, path, "/status")
	if err != nil {
		return n, explain(path, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&n); err != nil {
		return n, fmt.Errorf("read the status: %w", err)
	}
	return n, nil
}

// GetSettings asks the node that answers at path what it goes by.
func GetSettings(ctx context.Context, path string) (Settings, error) {
	var s Settings
	res, err := ask(ctx, path, "/settings")
	if err != nil {
		return s, explain(path, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return s, errors.New("the running lite is of an earlier version, which does not report its settings; restart it")
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return s, fmt.Errorf("get the settings: %s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("read the settings: %w", err)
	}
	return s, nil
}

// Alive fails if the process that should answer at path does not, however its
// components are doing.
func Alive(ctx context.Context, path string) error {
	res, err := ask(ctx, path, "/alive")
	if err != nil {
		return explain(path, err)
	}
	return res.Body.Close()
}

func ask(ctx context.Context, path, what string) (*http.Response, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lite"+what, nil)
	if err != nil {
		return nil, err
	}
	return c.Do(req)
}

func explain(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: permission denied; run as root", path)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("lite is not running on this machine; start it with `lite server` or `lite agent`")
	}
	return fmt.Errorf("ask %s: %w", path, err)
}
