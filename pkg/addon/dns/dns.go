// Package dns is the cluster's DNS: CoreDNS in the process of every node, with the
// Corefile that is in ConfigMap kube-system/coredns.
//
// Each node answers the queries of its own pods from what it knows of Services, so that it
// needs neither another node nor the API. [Server] does this; [Endpoints], which runs once
// per cluster, adds the nodes to Service kube-dns.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"

	"lite.io/lite/pkg/host/resolver"
	"lite.io/lite/pkg/kube"
)

// Config is the configuration of a node's DNS.
type Config struct {
	NodeName string
	Client   *kube.Client // of the node's identity
	Dir      string       // what outlives a restart is kept here
	// Listen are the addresses to listen on; none means the first address of each
	// of the node's ranges of pod addresses, which its bridge has.
	Listen []netip.Addr
	// Clients may send queries, besides private addresses, where Listen is set.
	Clients   []netip.Prefix
	Resolvers resolver.Files // the machine's
}

// allows reports whether a client is answered.
func (c Config) allows(client net.Addr) bool {
	ap, err := netip.ParseAddrPort(client.String())
	if err != nil {
		return false
	}
	a := ap.Addr().Unmap()
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) // RFC 6598
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || shared.Contains(a) ||
		slices.Contains(c.Listen, a) || slices.ContainsFunc(c.Clients, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Server is the component.
type Server struct {
	config    Config
	store     store
	reachable chan struct{} // closed once the API has answered
	held      chan struct{} // a place for each query that waits for the API

	// What follows is Run's.
	instance *caddy.Instance
	serving  load // what instance consists of
	loading  load // what is being set up
	probes   context.CancelFunc
	looping  chan *loopProbe

	mu    sync.Mutex
	state state
}

// load is what plugins leave to the server that they are set up for.
type load struct {
	want   want
	caches map[string]*clusterCache // by their part of the Corefile
	loops  []*loopProbe
	// figures is which block's plugin serves metrics on an address.
	figures map[string]*metrics.Metrics
	// unsynced means that the API did not list the Services in time.
	unsynced bool
}

// want is all that decides how DNS is served.
type want struct {
	files    files
	listen   []netip.Addr
	upstream []netip.Addr
	known    bool         // upstream is
	looping  map[int]bool // server blocks
}

// state is what the note shows of the server.
type state struct {
	waiting string          // what for, "" when it serves
	caches  []*clusterCache // of what is served
	served  want
	broken  string // why the newest Corefile is not served

	brokenVersion string
	brokenSince   time.Time

	configMap types.UID // of the ConfigMap
}

// New makes the component; nothing is touched before Run.
func New(c Config) *Server {
	return &Server{
		config: c, store: store{c.Dir},
		reachable: make(chan struct{}), held: make(chan struct{}, holdAtMost), looping: make(chan *loopProbe),
		state: state{waiting: "the API"},
	}
}

// Name implements component.Component.
func (*Server) Name() string { return "dns" }

// Ready implements component.Component.
func (s *Server) Ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.waiting != "" {
		return errors.New("waiting for " + s.state.waiting)
	}
	for _, c := range s.state.caches {
		select {
		case <-c.synced:
		default:
			return errors.New("waiting for the API to return the Services")
		}
	}
	return nil
}

// Note implements component.Noter.
func (s *Server) Note() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var notes []string
	if s.state.broken != "" {
		notes = append(notes, "Corefile broken: "+s.state.broken+"; serving the last good one")
	}
	switch served := s.state.served; {
	case len(served.looping) > 0:
		notes = append(notes, fmt.Sprintf("name servers %s lead back to this server: not forwarding to them", join(served.upstream)))
	case len(served.upstream) == 0:
		notes = append(notes, fmt.Sprintf("%s contains no name server: names outside the cluster are refused", s.config.Resolvers.Usual))
	}
	return strings.Join(notes, "; ")
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// Run implements component.Component.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.config.Dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", s.config.Dir, err)
	}
	if err := s.claim(); err != nil {
		return err
	}
	defer s.release()
	var last want
	var err error
	if last.files, last.listen, err = s.store.last(); err != nil {
		slog.Warn("Cannot read the last good Corefile: DNS starts only with the API", "err", err)
	}
	if len(s.config.Listen) > 0 {
		last.listen = s.config.Listen
	}

	changes := make(chan func(*want))
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.watchResolvers(ctx, changes) })
	wg.Go(func() { s.watchCluster(ctx, changes) })
	s.keep(ctx, &wg, last, changes)
	return nil
}

// watchResolvers follows the machine's name servers. If it has none, status and log show
// that, since people look there for the reason of what fails then.
func (s *Server) watchResolvers(ctx context.Context, changes chan<- func(*want)) {
	none := false
	err := s.config.Resolvers.Watch(ctx, func(found []netip.Addr) {
		switch file := s.config.Resolvers.Usual; {
		case len(found) == 0 && !none:
			slog.Warn("The machine has no name server: names outside the cluster are refused", "file", file)
		case len(found) > 0 && none:
			slog.Info("The machine has name servers again", "file", file, "servers", join(found))
		}
		none = len(found) == 0
		send(ctx, changes, func(w *want) { w.upstream, w.known, w.looping = found, true, nil })
	})
	if err != nil {
		slog.Warn("Cannot watch the machine's name servers; restart lite when they change", "err", err)
		found := s.config.Resolvers.Servers()
		send(ctx, changes, func(w *want) { w.upstream, w.known = found, true })
	}
}

func send[T any](ctx context.Context, to chan<- T, v T) {
	select {
	case to <- v:
	case <-ctx.Done():
	}
}

// How soon something is tried again that cannot be done yet: what the node's own
// start brings, and all else. A Corefile may be broken for reasons that pass, such
// as a port that another program has: it is tried ever less often.
const (
	retryEvery  = 50 * time.Millisecond
	retryLater  = 2 * time.Second
	retryAtLast = 30 * time.Second
)

// keep serves what is wanted until ctx is done. good is what was served last.
func (s *Server) keep(ctx context.Context, wg *sync.WaitGroup, good want, changes <-chan func(*want)) {
	defer s.stop()
	now := good
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case change := <-changes:
			before := now
			change(&now)
			if reflect.DeepEqual(before, now) && s.instance != nil {
				continue
			}
		case p := <-s.looping:
			if !slices.Contains(s.serving.loops, p) {
				continue
			}
			now.looping = maps.Clone(now.looping)
			if now.looping == nil {
				now.looping = map[int]bool{}
			}
			now.looping[p.block] = true
			upstream := now.upstream
			wg.Go(func() { s.reportLoop(ctx, upstream) })
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		if again := s.serve(ctx, wg, now, &good); again > 0 {
			retry.Reset(again)
		}
	}
}

// serve serves now, or the last good version if that fails. It returns when to retry, 0 if
// only a change can help.
func (s *Server) serve(ctx context.Context, wg *sync.WaitGroup, now want, good *want) time.Duration {
	if now.files == nil || len(now.listen) == 0 || !now.known {
		return 0 // it will come
	}
	for _, a := range now.listen {
		if !listening(a.String()) {
			s.update(func(st *state) { st.waiting = fmt.Sprintf("%s to be an address of this machine", a) })
			return retryEvery
		}
	}
	err := s.load(ctx, now)
	if err == nil {
		good.files, good.listen = now.files, now.listen
		s.update(func(st *state) { st.waiting, st.broken = "", "" })
		bridge := good.listen
		if len(s.config.Listen) > 0 {
			bridge = nil
		}
		if err := s.store.keep(good.files, bridge); err != nil {
			slog.Warn("Cannot store the last good Corefile: the next start of DNS needs the API", "err", err)
		}
		return 0
	}
	why := strings.ReplaceAll(err.Error(), s.config.Dir+"/"+now.files.version()+"/", "")
	if s.setBroken(now.files, why) {
		slog.Warn("Cannot serve the Corefile", "err", why)
		wg.Go(func() { s.reportBroken(ctx, now.files, why) })
	}
	again := min(max(time.Since(s.state.brokenSince), retryLater), retryAtLast)
	if s.loading.unsynced || s.instance == nil {
		again = retryLater
	}
	last := now
	last.files = good.files
	if good.files == nil {
		s.update(func(st *state) { st.waiting = "a Corefile that can be served: " + why })
		return again
	}
	if err := s.load(ctx, last); err != nil {
		slog.Warn("Cannot serve the last good Corefile either", "err", err)
	}
	return again
}

// setBroken records why a Corefile is not served, and reports whether that is new.
func (s *Server) setBroken(f files, why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := f.version()
	isNew := s.state.broken != why || s.state.brokenVersion != version
	s.state.broken, s.state.brokenVersion = why, version
	if isNew {
		s.state.brokenSince = time.Now()
	}
	return isNew
}

func (s *Server) update(change func(*state)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
}

// load replaces what is served with w. If that fails, what was served still is.
func (s *Server) load(ctx context.Context, w want) error {
	if s.instance != nil && reflect.DeepEqual(w, s.serving.want) {
		return nil
	}
	s.loading = load{want: w, caches: map[string]*clusterCache{}, figures: map[string]*metrics.Metrics{}}
	dir, err := s.store.write(w.files)
	if err != nil {
		return err
	}
	corefile, err := rewriter{dir: dir, listen: w.listen, upstream: w.upstream, looping: w.looping,
		guarded: len(s.config.Listen) > 0}.rewrite()
	if err != nil {
		return err
	}
	instance, err := s.put(corefile, w.listen)
	if err != nil {
		stopUnused(s.loading.caches, s.serving.caches)
		return errors.New(strings.TrimPrefix(err.Error(), "starting with listener file descriptors: "))
	}
	if err := unshare(w.listen); err != nil {
		slog.Warn("Other programs on this machine may answer for DNS", "err", err)
	}
	awaitServing(instance)
	stopUnused(s.serving.caches, s.loading.caches)
	s.instance, s.serving = instance, s.loading
	caches := slices.Collect(maps.Values(s.serving.caches))
	s.update(func(st *state) { st.waiting, st.served, st.caches = "", w, caches })
	s.probe(ctx)
	return nil
}

// put starts an instance that replaces the current one and takes over its sockets.
func (s *Server) put(corefile []byte, listen []netip.Addr) (*caddy.Instance, error) {
	instance, err := s.start(corefile, listen)
	if err != nil {
		// caddy (1.1.4) leaves the sockets of an instance that cannot start to the garbage
		// collector, and does not clear the instance's place in its list. Until they are
		// collected, which may take minutes, they hold their ports.
		started := caddy.Instances()
		clear(started[len(started):cap(started)])
		runtime.GC()
	}
	return instance, err
}

func (s *Server) start(corefile []byte, listen []netip.Addr) (*caddy.Instance, error) {
	if s.instance != nil {
		return s.instance.Restart(input(corefile))
	}
	if err := unshared(listen); err != nil {
		return nil, err
	}
	instance, err := caddy.Start(input(corefile))
	if err != nil {
		end(instance)
		return nil, err
	}
	return instance, nil
}

// awaitServing waits until an instance serves where it listens. One that is stopped before
// that never ends (CoreDNS 1.15; miekg/dns 1.1.73 does not stop what has not begun), and
// stopping lite right after its start took as long as a stop may take.
func awaitServing(i *caddy.Instance) {
	for _, server := range i.Servers() {
		for _, to := range []net.Addr{server.Addr(), server.LocalAddr()} {
			if to == nil {
				continue
			}
			// A message without a question is refused before anything else handles it.
			client := dns.Client{Net: to.Network(), Timeout: time.Second}
			if _, _, err := client.Exchange(new(dns.Msg), to.String()); err != nil {
				slog.Debug("DNS does not answer on its own addresses", "at", to, "err", err)
			}
		}
	}
}

// stopUnused stops the caches that others does not have.
func stopUnused(caches, others map[string]*clusterCache) {
	for text, c := range caches {
		if others[text] == nil {
			c.stop()
		}
	}
}

// probe looks for loops, once per load.
func (s *Server) probe(ctx context.Context) {
	if s.probes != nil {
		s.probes()
	}
	ctx, s.probes = context.WithCancel(ctx)
	for _, p := range s.serving.loops {
		go func() {
			if p.found(ctx) {
				send(ctx, s.looping, p)
			}
		}()
	}
}

// stop ends what serves.
func (s *Server) stop() {
	if s.probes != nil {
		s.probes()
	}
	stopUnused(s.serving.caches, nil) // and no query is held any longer
	if s.instance != nil {
		end(s.instance)
		s.instance = nil
	}
}

// end releases what an instance has, also one that did not start wholly.
func end(i *caddy.Instance) {
	if i == nil {
		return
	}
	for _, err := range i.ShutdownCallbacks() {
		slog.Debug("CoreDNS", "err", err)
	}
	if err := i.Stop(); err != nil {
		slog.Debug("CoreDNS", "err", err)
	}
	i.Wait()
}
