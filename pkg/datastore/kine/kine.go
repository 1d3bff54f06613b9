// Package kine runs a datastore that does not speak etcd's protocol: SQLite in the process, or a server of PostgreSQL,
// MySQL or MariaDB somewhere else. kine translates, and the API server reaches it by a socket.
//
// Of kine only drivers and its server are used: its own entry point links all drivers, and stores on S3.
package kine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/k3s-io/kine/pkg/server"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/datastore/shared"
)

// Config is what a store has to be told.
type Config struct {
	Kind     string // of cluster.Facts
	Endpoint string // as the user has it, perhaps with a password
	// CAFile, CertFile and KeyFile are for TLS to the store; "" = none.
	CAFile, CertFile, KeyFile string
	File                      string // of SQLite, unless the endpoint names one
	Socket                    string // where the API server reaches it
	Owner                     func() (string, error)
}

// Kine is the component.
type Kine struct {
	store  store
	socket string
	owner  func() (string, error)

	health  *shared.Health
	backend atomic.Pointer[strict] // nil until the store has been opened
	waiting atomic.Pointer[error]  // why it has not
}

// store is what kinds differ in.
type store interface {
	// String names it, without credentials.
	String() string
	// open finds out, by a connection of its own, what would prevent the store from being used.
	open(ctx context.Context) error
	// backend is kine's, which works until ctx is done; wg is what it then waits for.
	backend(ctx context.Context, wg *sync.WaitGroup) (server.Backend, error)
	// write writes so many bytes that nobody reads. The error says why the store does not take writes.
	write(ctx context.Context, size int) error
	// judge says what to do about an error of the store's, and whether it would help to wait.
	judge(err error) (remedy string, lasting bool)
}

// New checks the configuration; nothing is touched before Run.
func New(c Config) (*Kine, error) {
	s, err := newStore(c)
	if err != nil {
		return nil, fmt.Errorf("datastore-endpoint: %w", err)
	}
	return &Kine{store: s, socket: c.Socket, owner: c.Owner, health: shared.NewHealth()}, nil
}

func newStore(c Config) (store, error) {
	_, rest, _ := strings.Cut(c.Endpoint, "://")
	switch c.Kind {
	case cluster.SQLite:
		return newSQLite(rest, c.File), nil
	case cluster.PostgreSQL:
		return newPostgres(c)
	case cluster.MySQL:
		return newMySQL(rest, c)
	}
	return nil, fmt.Errorf("no store of the kind %q", c.Kind)
}

// Used reports whether there may be data: for SQLite, whether there is a file with content.
func Used(c Config) bool {
	_, rest, _ := strings.Cut(c.Endpoint, "://")
	info, err := os.Stat(newSQLite(rest, c.File).path)
	return err == nil && info.Size() > 0
}

// Health is how the store is doing.
func (k *Kine) Health() *shared.Health { return k.health }

// URL is how the API server reaches the store.
func (k *Kine) URL() string { return "unix://" + k.socket }

// Name implements component.Component.
func (*Kine) Name() string { return "datastore" }

// Note implements component.Noter.
func (k *Kine) Note() string { return k.store.String() }

// Ready implements component.Component: it reads a key.
func (k *Kine) Ready(ctx context.Context) error {
	b := k.backend.Load()
	if b == nil {
		if err := k.waiting.Load(); err != nil {
			return *err
		}
		return fmt.Errorf("opening %s", k.store)
	}
	if _, _, err := b.Get(ctx, server.HealthKey, 0, true); err != nil {
		return k.explain(err)
	}
	if err := k.health.Err(); err != nil {
		return k.explain(err)
	}
	return nil
}

// explain makes an error of the store's one that names the store and what to do.
func (k *Kine) explain(err error) error {
	var known *shared.Problem
	if errors.As(err, &known) {
		if known.Store == "" {
			known.Store = k.store.String()
		}
		return err
	}
	remedy, lasting := k.store.judge(err)
	return &shared.Problem{Store: k.store.String(), Err: err, Remedy: remedy, Lasting: lasting}
}

// Run implements component.Component.
func (k *Kine) Run(ctx context.Context) error {
	// What is open stays so until the API server has had its last answer.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer func() {
		k.backend.Store(nil)
		stop()
		await(&wg)
	}()
	b, err := k.open(ctx, working, &wg)
	if err != nil || ctx.Err() != nil {
		return err
	}
	l, err := listen(k.socket)
	if err != nil {
		return err
	}
	g := k.serve(b)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	k.backend.Store(b)
	select {
	case <-ctx.Done():
		hard := time.AfterFunc(2*time.Second, g.Stop)
		defer hard.Stop()
		g.GracefulStop()
		return nil
	case err := <-served:
		return fmt.Errorf("serve %s: %w", k.socket, err)
	}
}

// await gives what kine runs a moment to end; it has nothing to save.
func await(wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	}
}

// open opens the store, as soon as it is there. What waiting does not mend is an error.
func (k *Kine) open(ctx, working context.Context, wg *sync.WaitGroup) (*strict, error) {
	for wait := time.Second; ; wait = min(2*wait, 5*time.Second) {
		b, err := k.tryOpen(ctx, working, wg)
		if ctx.Err() != nil {
			return nil, nil
		}
		if err == nil {
			return b, nil
		}
		err = k.explain(err)
		var p *shared.Problem
		if errors.As(err, &p) && p.Lasting {
			return nil, err
		}
		k.waiting.Store(&err)
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait):
		}
	}
}

func (k *Kine) tryOpen(ctx, working context.Context, wg *sync.WaitGroup) (b *strict, err error) {
	// Upstream ends the process, in the middle of a transaction that cannot be ended (0.17); package log makes it a panic.
	defer recovered(&err)
	look, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := k.store.open(look); err != nil {
		return nil, err
	}
	opened, stop := context.WithCancel(working)
	cut := context.AfterFunc(ctx, stop) // it tries for five minutes otherwise
	defer cut()
	defer func() {
		if err != nil {
			stop()
		}
	}()
	inner, err := k.store.backend(opened, wg)
	if err != nil {
		return nil, err
	}
	if err := inner.Start(opened); err != nil {
		return nil, err
	}
	b = &strict{Backend: inner, write: k.store.write}
	id, err := k.owner()
	if err != nil {
		return nil, err
	}
	return b, shared.Own(ctx, keys{b}, id)
}

// listen makes a socket that root alone reaches. One that a killed process has left is in the way.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the datastore's socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of a lite before: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the API server: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("make the datastore's socket root's: %w", err), l.Close())
	}
	return l, nil
}

// serve makes the server that speaks etcd's protocol, with etcd's own bounds.
func (k *Kine) serve(b *strict) *grpc.Server {
	const overhead = 512 << 10
	g := grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: embed.DefaultGRPCKeepAliveInterval, Timeout: embed.DefaultGRPCKeepAliveTimeout}),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.MaxRecvMsgSize(embed.DefaultMaxRequestBytes+overhead),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.UnaryInterceptor(k.answer),
	)
	server.New(b, "unix", progress, version.Version).Register(g)
	return g
}

// progress is how often watchers hear how far the store is, as from etcd with the API server's settings of it.
const progress = 5 * time.Second

type keys struct{ *strict }

// Get implements shared.Keys.
func (k keys) Get(ctx context.Context, key string) ([]byte, error) {
	_, kv, err := k.strict.Get(ctx, key, 0, false)
	if kv == nil || err != nil {
		return nil, err
	}
	return kv.Value, nil
}

// Create implements shared.Keys.
func (k keys) Create(ctx context.Context, key string, value []byte) error {
	_, err := k.strict.Create(ctx, key, value, 0)
	if errors.Is(err, server.ErrKeyExists) {
		return nil
	}
	return err
}

// Used implements shared.Keys. The key by which health is checked, kine makes itself.
func (k keys) Used(ctx context.Context) (bool, error) {
	_, kvs, err := k.List(ctx, "/registry/", "/registry0", 2, 0, true)
	for _, kv := range kvs {
		if kv.Key != server.HealthKey {
			return true, err
		}
	}
	return false, err
}
