package dns

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"

	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"

	// The plugins that a Corefile may name; each registers itself.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
)

// Directives of ours. CoreDNS' own kubernetes takes the log of the whole process
// (1.15), and its loop ends the process.
const (
	kubernetesDirective = "lite_kubernetes"
	guardDirective      = "lite_guard"
	refuseDirective     = "lite_refuse"
	seriesDirective     = "lite_series"
)

// directives is the order of CoreDNS' plugin.cfg.
func directives() []string {
	return []string{
		"reload", "bind", "ready", "health", "prometheus", seriesDirective, "errors", "log", guardDirective, "loadbalance", "rewrite", "cache",
		"template", "hosts", kubernetesDirective, "loop", "forward", refuseDirective,
	}
}

// accepted is what a Corefile may name.
func accepted() []string {
	return append(slices.DeleteFunc(directives(), func(d string) bool { return strings.HasPrefix(d, "lite_") }), "kubernetes")
}

// CoreDNS keeps its plugins and settings in globals, and gives a plugin's setup
// nothing but its tokens. So what runs is a global here as well: there is one
// server in a process at a time.
var (
	register sync.Once
	running  atomic.Pointer[Server]
)

// claim makes s the server that plugins are set up for.
func (s *Server) claim() error {
	register.Do(func() {
		dnsserver.Quiet = true // otherwise it prints to the terminal
		dnsserver.Port = strconv.Itoa(layout.DNSPort)
		dnsserver.Directives = directives()
		plugin.Register(kubernetesDirective, setupKubernetes)
		plugin.Register("loop", setupLoop)
		plugin.Register("reload", setupReload)
		plugin.Register(guardDirective, setupGuard)
		plugin.Register(refuseDirective, setupRefuse)
		plugin.Register(seriesDirective, setupSeries)
	})
	if !running.CompareAndSwap(nil, s) {
		return fmt.Errorf("CoreDNS is already running in this process")
	}
	return nil
}

func (s *Server) release() { running.Store(nil) }

// input is a Corefile in memory.
func input(corefile []byte) caddy.Input {
	return caddy.CaddyfileInput{Filepath: corefileName, Contents: corefile, ServerTypeName: "dns"}
}

// setupReload accepts a directive that is for nothing here: a change is served at
// once.
func setupReload(*caddy.Controller) error { return nil }

// handlerFunc is a plugin that is a function.
type handlerFunc struct {
	name  string
	serve func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error)
}

func (h handlerFunc) Name() string { return h.name }

func (h handlerFunc) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return h.serve(ctx, w, r)
}

// setupRefuse ends the chain of plugins: it refuses names that no plugin answers or
// forwards. CoreDNS would log an error for each.
func setupRefuse(c *caddy.Controller) error {
	dnsserver.GetConfig(c).AddPlugin(func(plugin.Handler) plugin.Handler {
		return handlerFunc{"refuse", func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
			return dns.RcodeRefused, nil
		}}
	})
	return nil
}

// setupGuard drops queries of those who have no business here, where the address
// that we listen on is not of the pods' own network.
func setupGuard(c *caddy.Controller) error {
	s := running.Load()
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		return handlerFunc{"guard", func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			if !s.config.allows(w.RemoteAddr()) {
				return dns.RcodeSuccess, nil // written, for all that CoreDNS knows
			}
			return plugin.NextOrFailure("guard", next, ctx, w, r)
		}}
	})
	return nil
}

// clusterCache is what the API reports about Services. It outlives a change of the Corefile
// that does not concern it, so that DNS keeps what it knows while the API is away.
type clusterCache struct {
	source *kubernetes.Kubernetes // whose APIConn it is
	start  sync.Once
	synced chan struct{}
	ended  chan struct{}
}

// run fills the cache once the API can be reached: before, every attempt would
// make the pauses between them longer.
func (c *clusterCache) run(reachable <-chan struct{}) {
	c.start.Do(func() {
		go func() {
			select {
			case <-reachable:
			case <-c.ended:
				return
			}
			go c.source.APIConn.Run()
			tick := time.NewTicker(10 * time.Millisecond) // it can only be asked
			defer tick.Stop()
			for !c.source.APIConn.HasSynced() {
				select {
				case <-tick.C:
				case <-c.ended:
					return
				}
			}
			close(c.synced)
		}()
	})
}

func (c *clusterCache) stop() {
	close(c.ended)
	_ = c.source.APIConn.Stop() // its only error is that it was stopped before
}

// await reports whether the cache is filled, and waits for it a while.
func (c *clusterCache) await(d time.Duration) bool {
	select {
	case <-c.synced:
		return true
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.synced:
		return true
	case <-timer.C:
		return false
	case <-c.ended:
		return false
	}
}

const (
	// holdFor is how long a query for a name of the cluster is kept while the
	// cache is filled after a start. Resolvers wait 5 s for an answer (glibc, Go).
	holdFor = 4 * time.Second
	// holdAtMost bounds how many are kept.
	holdAtMost = 1000
	// syncFor bounds how long a changed Corefile waits for its cache, while the
	// old one is served.
	syncFor = 5 * time.Second
)

// cluster is CoreDNS' kubernetes on a cache of ours.
type cluster struct {
	*kubernetes.Kubernetes
	cache *clusterCache
	held  chan struct{}
}

// ServeDNS implements plugin.Handler.
func (k cluster) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	select {
	case <-k.cache.synced:
	default:
		if len(r.Question) > 0 && plugin.Zones(k.Zones).Matches(r.Question[0].Name) != "" {
			k.hold()
		}
	}
	return k.Kubernetes.ServeDNS(ctx, w, r)
}

func (k cluster) hold() {
	select {
	case k.held <- struct{}{}:
		k.cache.await(holdFor)
		<-k.held
	default:
	}
}

func setupKubernetes(c *caddy.Controller) error {
	s := running.Load()
	text := fmt.Sprintf("%q", c.ServerBlockKeys)
	for d := c.Dispenser; d.Next(); {
		text += fmt.Sprintf(" %q", d.Val())
	}
	c.Next()
	k, err := kubernetes.ParseStanza(c)
	if err == nil && c.Next() {
		err = plugin.ErrOnce
	}
	if err != nil {
		return plugin.Error("kubernetes", err)
	}
	if k.ClientConfig == nil && len(k.APIServerList) == 0 {
		k.ClientConfig = clientConfig{s.config.Client}
	}
	if _, _, err := k.InitKubeCache(context.Background()); err != nil {
		return plugin.Error("kubernetes", err)
	}
	cache, isNew := s.cache(text, k)
	k.APIConn = cache.source.APIConn
	mustSync := isNew && s.instance != nil
	c.OnStartup(func() error {
		cache.run(s.reachable)
		if mustSync && !cache.await(syncFor) {
			s.loading.unsynced = true
			return fmt.Errorf("plugin/kubernetes: the API has not returned the Services within %s", syncFor)
		}
		return nil
	})
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		k.Next = next
		return cluster{k, cache, s.held}
	})
	return nil
}

// cache is the cache for a stanza of the Corefile: that of the instance that
// serves, if it has the same.
func (s *Server) cache(stanza string, k *kubernetes.Kubernetes) (c *clusterCache, isNew bool) {
	c = s.serving.caches[stanza]
	if c == nil {
		c, isNew = &clusterCache{source: k, synced: make(chan struct{}), ended: make(chan struct{})}, true
	}
	s.loading.caches[stanza] = c
	return c, isNew
}

// clientConfig is the node's identity as CoreDNS asks for it.
type clientConfig struct{ client *kube.Client }

// ClientConfig implements clientcmd.ClientConfig.
func (c clientConfig) ClientConfig() (*rest.Config, error) {
	cfg, err := c.client.Config()
	if err != nil {
		return nil, err
	}
	cfg.ContentType = runtime.ContentTypeProtobuf
	return cfg, nil
}

// RawConfig implements clientcmd.ClientConfig.
func (clientConfig) RawConfig() (api.Config, error) { return api.Config{}, nil }

// Namespace implements clientcmd.ClientConfig.
func (clientConfig) Namespace() (string, bool, error) { return metav1.NamespaceSystem, false, nil }

// ConfigAccess implements clientcmd.ClientConfig.
func (clientConfig) ConfigAccess() clientcmd.ConfigAccess { return nil }

// listening reports whether addr is an address of this machine.
func listening(host string) bool {
	conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
