// Package apiproxy is the local address through which everything on an agent reaches the
// API servers. It passes TCP connections on to one of them, learns which there are from the
// cluster itself, and remembers them, so that an agent survives the loss of the server
// through which it joined.
//
// It does not terminate TLS: the certificate of every server is valid for 127.0.0.1, and
// clients check it as if the server were on this machine.
//
// An idle node has no timer here unless there is something to decide: with one server that
// answers, it sends nothing until a connection fails or gets no answer. See pause.
package apiproxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// Config is the configuration of the load balancer.
type Config struct {
	// Listen is the loopback address for clients, such as 127.0.0.1:6444.
	Listen string
	// Seed is by what the node joined, host:port. It may be a name, or an
	// address that the servers themselves do not know (NAT), and is used only
	// while no learnt server is healthy.
	Seed []string
	// File is where learnt servers are remembered.
	File string
	// CAFile has the cluster's CA, which verifies servers.
	CAFile string
	// Client is of the node's identity and leads through this balancer. Its kubeconfig
	// may be missing until the node has joined.
	Client *kube.Client
}

// timing is how often and how long; tests have less patience.
type timing struct {
	every  time.Duration // from one check of the servers to the next
	search time.Duration // the same while none is healthy
	probe  time.Duration // what a server has to answer in
	dial   time.Duration // what a server has to accept a connection in
	retry  time.Duration // the first pause after the list of servers was not available
}

var patient = timing{
	every: 5 * time.Second, search: time.Second, probe: 2 * time.Second, dial: 3 * time.Second, retry: time.Second,
}

// Balancer is the component.
type Balancer struct {
	config Config
	timing timing
	kick   chan struct{} // a check of the servers is due

	mu        sync.Mutex
	listening net.Addr           // nil while Run does not listen
	servers   map[string]*server // by address
	current   *server            // takes new connections while it is healthy; nil at first
	usedSince time.Time
}

// New checks the configuration; nothing is touched before Run.
func New(c Config) (*Balancer, error) {
	listen, err := netip.ParseAddrPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("load balancer: listen address %q: must be %s", c.Listen, layout.Local(layout.BalancerPort))
	}
	if !listen.Addr().IsLoopback() {
		return nil, fmt.Errorf("load balancer: listen address %s is not a loopback address: other machines could use it", c.Listen)
	}
	if len(c.Seed) == 0 {
		return nil, errors.New("load balancer: no server to start with; pass the address of one")
	}
	b := &Balancer{config: c, timing: patient, kick: make(chan struct{}, 1), servers: map[string]*server{}}
	for _, address := range c.Seed {
		if err := b.check(address); err != nil {
			return nil, fmt.Errorf("load balancer: %w", err)
		}
		b.add(address).seed = true
	}
	return b, nil
}

// check is whether address can be a server's.
func (b *Balancer) check(address string) error {
	host, port, err := net.SplitHostPort(address)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
		return fmt.Errorf("server %q: must be host:port", address)
	}
	if address == b.config.Listen {
		return fmt.Errorf("server %s is the load balancer's own address; use the address of a server", address)
	}
	return nil
}

// Name implements component.Component.
func (*Balancer) Name() string { return "load-balancer" }

// Run implements component.Component. One goroutine follows the list of
// servers, one looks after their health, and each connection has two.
func (b *Balancer) Run(ctx context.Context) error {
	client, err := b.healthClient()
	if err != nil {
		return err
	}
	b.recall()
	// Nobody on this machine vanishes without a word, so that need not be looked for.
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", b.config.Listen)
	if err != nil {
		return fmt.Errorf("listen for clients of the API: %w; stop what uses %s", err, b.config.Listen)
	}
	b.setListening(l.Addr())
	defer b.setListening(nil)

	var running sync.WaitGroup
	running.Go(func() {
		<-ctx.Done()
		l.Close()
		b.closeAll()
	})
	running.Go(func() { b.watchHealth(ctx, client) })
	running.Go(func() { b.learn(ctx) })
	b.accept(ctx, l, &running)
	running.Wait()
	return nil
}

// healthClient asks servers for their health, as what clients take them for:
// 127.0.0.1, by a certificate of the cluster. A request is made on the
// connection of the last one, which costs a fiftieth of a new one.
func (b *Balancer) healthClient() (*http.Client, error) {
	pem, err := os.ReadFile(b.config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w; join the node again", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the cluster's CA: %s does not contain a certificate; join the node again", b.config.CAFile)
	}
	// HTTP/1.1, where a request without an answer closes its connection.
	t := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"},
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     6 * b.timing.every,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: t, Timeout: b.timing.probe, CheckRedirect: stay}, nil
}

func (b *Balancer) setListening(a net.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listening = a
}

// Ready implements component.Component: at least one server answered when it
// was last asked.
func (b *Balancer) Ready(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listening == nil {
		return errors.New("not listening yet")
	}
	var tried []string
	for _, s := range b.order() {
		switch s.state {
		case Healthy:
			return nil
		case Failed:
			tried = append(tried, fmt.Sprintf("%s (%v)", s.address, s.why))
		default:
			tried = append(tried, s.address+" (not tried yet)")
		}
	}
	return fmt.Errorf("no API server answers: %[1]s; if a server has a new address, restart this agent with --server https://<that address>:%[2]s (if it is installed as a service, run the installer again with LITE_URL=https://<that address>:%[2]s)", strings.Join(tried, ", "), layout.APIPortText)
}

// Server is what is known of one API server.
type Server struct {
	Address string `json:"address"`
	// Seed reports that the node joined by this address.
	Seed bool `json:"seed,omitempty"`
	// State is what the last check of the server found. A seed is not checked
	// while a learnt server is healthy.
	State State `json:"state"`
	// Since is when the server entered the state.
	Since time.Time `json:"since"`
	// InUse reports that new connections go to this server.
	InUse bool `json:"inUse,omitempty"`
	// UsedSince is since when; zero for the others.
	UsedSince time.Time `json:"usedSince,omitzero"`
	// Why is why it failed.
	Why         string `json:"why,omitempty"`
	Connections int    `json:"connections"`
}

// Servers are all that are known, in alphabetical order of their addresses.
func (b *Balancer) Servers() []Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Server
	for _, s := range b.servers {
		one := Server{
			Address: s.address, Seed: s.seed, State: s.state, Since: s.since,
			InUse: s == b.current, Connections: len(s.links),
		}
		if one.InUse {
			one.UsedSince = b.usedSince
		}
		if s.why != nil {
			one.Why = s.why.Error()
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(x, y Server) int { return cmp.Compare(x.Address, y.Address) })
	return all
}
