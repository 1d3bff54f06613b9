package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	genericapiserver "k8s.io/apiserver/pkg/server"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/join/gate"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/server/exemption"
)

// APIServer is the component kube-apiserver.
type APIServer struct {
	config  Config
	options *options.ServerRunOptions
	args    []string
	local   map[string]string
	routes  map[string]Route
	// public is whether anonymous requests may do what they may by default: the
	// user says nothing of them.
	public  bool
	serves  kube.Probe // most of it
	probe   kube.Probe // all of it
	started atomic.Bool
	log     string // the audit log; "" = none in a file

	moving     atomic.Pointer[connections] // to the address of the cluster
	exemption  exemption.Exemption
	aggregated atomic.Pointer[apiServices]
}

// late names hooks that nobody who waits for the API server waits for. Two each
// sleep a second before they look whether there is anything to do: see
// Authorization. The third gives each aggregated API 5 s to answer (1.37).
const late = "?exclude=poststarthook/rbac/bootstrap-roles&exclude=poststarthook/scheduling/bootstrap-system-priority-classes" +
	"&exclude=poststarthook/apiservice-discovery-controller"

// NewAPIServer parses the arguments; nothing is touched before Run.
func NewAPIServer(c Config) (*APIServer, error) {
	s := options.NewServerRunOptions()
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("get the host name: %w", err)
	}
	if err := kube.CheckArgs("kube-apiserver", c.Node.APIServerArgs); err != nil {
		return nil, err
	}
	args := append(identityArgs(host, c.Node.APIServerArgs), apiServerArgs(c)...)
	if err := kube.Parse("kube-apiserver", s.Flags(), args); err != nil {
		return nil, err
	}
	public, err := settleAnonymous(s, c.Cluster.Profile)
	if err != nil {
		return nil, err
	}
	if err := checkFiles(c, s); err != nil {
		return nil, err
	}
	if err := checkOptions(s); err != nil {
		return nil, err
	}
	if err := checkListener("kube-apiserver", s.SecureServing.SecureServingOptions); err != nil {
		return nil, err
	}
	for _, warning := range warnings(c, s) {
		slog.Warn(warning)
	}
	readyz := c.LocalURL() + "/readyz"
	a := &APIServer{config: c, options: s, local: c.Local, routes: c.Routes, public: public,
		serves: c.probe(readyz + late), probe: c.probe(readyz)}
	if path := s.Audit.LogOptions.Path; path != "-" {
		a.log = path
	}
	plugins := s.Admission.GenericAdmission
	plugins.Decorators = append(plugins.Decorators, &a.exemption, &gate.Writes{}, leaving{c.Leaves})
	a.args = args
	return a, nil
}

// identityArgs switches off what nobody reads: the addresses by which API servers of different versions ask each other,
// three entries of the log every 10 s, where the user does not set up that they do (1.37 writes them all the same). And
// the API server's own lease where the machine has a name that no label may have: it would try to write that for ever,
// and fail each time (1.37).
func identityArgs(host string, user []string) []string {
	_, ask := kube.Value(user, "peer-ca-file")
	switch {
	case len(validation.IsValidLabelValue(host)) > 0:
		return []string{"--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false"}
	case !ask:
		return []string{"--feature-gates=UnknownVersionInteroperabilityProxy=false"}
	}
	return nil
}

func apiServerArgs(c Config) []string {
	n := c.Node
	args := map[string]string{
		"advertise-address": n.AdvertiseAddress.String(),
		"bind-address":      n.BindAddress.String(),
		"secure-port":       strconv.Itoa(n.HTTPSListenPort),

		"allow-privileged":            "true",
		"authorization-mode":          "Node,RBAC",
		"enable-admission-plugins":    c.plugins(),
		"enable-bootstrap-token-auth": "true",
		"encryption-provider-config":  c.Dir.Encryption(),
		"profiling":                   "false",

		"tls-cipher-suites": strings.Join(kube.CipherSuites(), ","),
		"tls-min-version":   kube.MinTLSVersion,

		"client-ca-file":                c.PKI.CA(pki.ClusterCA),
		"tls-cert-file":                 c.PKI.Cert(pki.APIServer),
		"tls-private-key-file":          c.PKI.Key(pki.APIServer),
		"kubelet-client-certificate":    c.PKI.Cert(pki.APIServerKubeletClient),
		"kubelet-client-key":            c.PKI.Key(pki.APIServerKubeletClient),
		"kubelet-certificate-authority": c.PKI.CA(pki.ClusterCA),
		// A node's name need not resolve; its address is in its certificate.
		"kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",

		// What pods are given is good for an hour, and the kubelet renews it. By default
		// it is good for a year, for clients from before 2020 that never look again.
		"service-account-extend-token-expiration": "false",

		"service-account-issuer":           "https://kubernetes.default.svc." + c.Cluster.ClusterDomain,
		"service-account-key-file":         c.PKI.ServiceAccountPub(),
		"service-account-signing-key-file": c.PKI.ServiceAccountKey(),
		"service-cluster-ip-range":         kube.Join(c.Cluster.ServiceCIDR),
		"service-node-port-range":          c.Cluster.NodePorts,

		"etcd-servers":  strings.Join(c.Datastore.URLs, ","),
		"etcd-cafile":   c.Datastore.CAFile,
		"etcd-certfile": c.Datastore.CertFile,
		"etcd-keyfile":  c.Datastore.KeyFile,

		// The aggregation layer.
		"enable-aggregator-routing":          "true",
		"proxy-client-cert-file":             c.PKI.Cert(pki.FrontProxyClient),
		"proxy-client-key-file":              c.PKI.Key(pki.FrontProxyClient),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-client-ca-file":       c.PKI.CA(pki.FrontProxyCA),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",

		// Watches never end by themselves: without a bound the shutdown
		// would wait for them for a minute (1.37).
		"shutdown-watch-termination-grace-period": "1s",
	}
	if c.Cluster.Profile == config.ProfileCIS {
		args["anonymous-auth"] = "false"
	}
	maps.Copy(args, c.auditArgs())
	if c.admits() {
		args["admission-control-config-file"] = c.Dir.Admission()
	}
	return kube.Args("kube-apiserver", args, n.APIServerArgs)
}

// Name implements component.Component.
func (*APIServer) Name() string { return "apiserver" }

// Run implements component.Component.
func (a *APIServer) Run(ctx context.Context) error {
	completed, err := a.options.Complete(ctx)
	if err != nil {
		return fmt.Errorf("complete options: %w", err)
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return fmt.Errorf("kube-apiserver-arg: %w", utilerrors.NewAggregate(errs))
	}
	// What app.Run does, but for what no option reaches: the aggregation layer's
	// resolver, what is public, whose series are served, and which nodes are let in.
	cfg, err := app.NewConfig(completed)
	if err != nil {
		return err
	}
	a.followAddress(cfg)
	serveOwnSeries(cfg)
	serveRoutes(cfg, a.routes)
	boundAudit(cfg)
	if err := errors.Join(guard(cfg), followServers(cfg, a.config)); err != nil {
		return err
	}
	cfg.Aggregator.ExtraConfig.ServiceResolver = resolver{cfg.Aggregator.ExtraConfig.ServiceResolver, a.local}
	if a.public {
		authn := &cfg.Aggregator.GenericConfig.Authentication
		authn.Authenticator = withPublic(authn.Authenticator)
	}
	chain, err := cfg.Complete()
	if err != nil {
		return err
	}
	server, err := app.CreateServerChain(chain)
	if err != nil {
		return err
	}
	apis, own := server.APIRegistrationInformers.Apiregistration().V1().APIServices(), reclaim{make(chan struct{}, 1)}
	if err := errors.Join(own.watch(apis.Informer()), server.GenericAPIServer.AddPostStartHook(layout.OwnAPIsHook, own.hook)); err != nil {
		return err
	}
	a.aggregated.Store(&apiServices{apis.Lister(), a.local})
	prepared, err := server.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}

// serveOwnSeries has the API server answer with its own series, to whom it has authorized.
func serveOwnSeries(cfg *app.Config) {
	chain := cfg.Aggregator.GenericConfig.BuildHandlerChainFunc
	cfg.Aggregator.GenericConfig.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return chain(series.APIServer.Before(api), c)
	}
}

// guard puts the gate for nodes before everything that is served. What is behind the
// aggregation layer has no chain of its own.
func guard(cfg *app.Config) error {
	g := gate.New()
	if err := g.Follow(cfg.KubeAPIs.ControlPlane.VersionedInformers.Core().V1().Secrets().Informer()); err != nil {
		return fmt.Errorf("watch the refused certificates: %w", err)
	}
	aggregator := cfg.Aggregator.GenericConfig
	aggregator.Authentication.Authenticator = g.Recognize(aggregator.Authentication.Authenticator)
	chain := aggregator.BuildHandlerChainFunc
	aggregator.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		return chain(g.Before(api), c)
	}
	return nil
}

// resolver finds what answers an aggregated API. With enable-aggregator-routing
// upstream's knows endpoints only, and an endpoint cannot be on loopback (1.37).
type resolver struct {
	aggregator.ServiceResolver
	local map[string]string
}

// ResolveEndpoint implements aggregator.ServiceResolver.
func (r resolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	if address, ok := r.local[namespace+"/"+name]; ok {
		return &url.URL{Scheme: "https", Host: address}, nil
	}
	return r.ServiceResolver.ResolveEndpoint(namespace, name, port)
}

// Settings implements component.Configured.
func (a *APIServer) Settings() (component.Settings, error) {
	return component.Settings{Arguments: a.args}, nil
}

// Ready implements component.Component.
func (a *APIServer) Ready(ctx context.Context) error {
	err := a.probe.Check(ctx)
	if err == nil {
		a.started.Store(true)
	} else if !a.started.Load() {
		return a.serves.Check(ctx)
	}
	return err
}

// Note implements component.Noter: which webhooks, policies and aggregated APIs of
// users hold something up, and whether requests are logged that should be.
func (a *APIServer) Note() string {
	return component.Notes(a.exemption.Note(), a.aggregated.Load().note(), unaudited(a.log))
}

// unaudited says why the audit log is not written, for whoever asks how the node does.
// Requests are answered all the same.
func unaudited(path string) string {
	if path == "" {
		return ""
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "" // it is made with the first line
	}
	if err != nil {
		return fmt.Sprintf("the audit log is not written: %v", err)
	}
	defer f.Close()
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &disk); err == nil && disk.Blocks > 0 && disk.Bavail == 0 {
		return fmt.Sprintf("the audit log %s is not written: its disk is full", path)
	}
	return ""
}
