// Package server puts a server node together: the datastore, the control plane
// and the parts of a node that an agent has as well.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"lite.io/lite/manifests"
	"lite.io/lite/pkg/addon/battery"
	addon "lite.io/lite/pkg/addon/manifests"
	"lite.io/lite/pkg/addon/runtimeclass"
	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore"
	"lite.io/lite/pkg/host/vip"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/approver"
	"lite.io/lite/pkg/join/proof"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/pki/expiry"
	"lite.io/lite/pkg/server/controlplane"
	"lite.io/lite/pkg/status"
	"lite.io/lite/pkg/version"
)

// Config is what a server has to be told beyond what its user said of the node.
type Config struct {
	Node    *config.Config
	Cluster cluster.Facts // see Facts
	Host    agent.Host
}

// New puts a server node together; nothing is touched before Prepare and Run.
func New(c Config, onChange func(component.Status)) (*Server, error) {
	cfg, dir, dirPKI := c.Node, c.Node.Layout().Data.Server(), pkiDir(c.Node)
	var by clients
	store, err := openStore(c, func(ctx context.Context, reason, message string) error {
		return by.node.NodeEvent(ctx, cfg.NodeName, layout.DatastoreSource, reason, message)
	})
	if err != nil {
		return nil, err
	}
	s := &Server{Config: c, controlplane: controlplane.Config{
		Node: cfg, Cluster: c.Cluster, Dir: dir, PKI: dirPKI, Datastore: store.Endpoint, Used: store.Used, Shared: store.Shared,
		Local: battery.Answers(c.Cluster.Disable),
	}}
	by = newClients(cfg, s.controlplane)
	s.members = &members{nodeName: cfg.NodeName, dir: dir, pki: dirPKI, cfg: cfg, facts: c.Cluster, client: by.lite, store: store.Member}
	s.controlplane.Routes = s.members.routes()
	if store.Member != nil {
		s.controlplane.Leaves = s.members.leaves
	}
	s.certificates = expiry.New(expiry.Config{
		NodeName: cfg.NodeName, Client: by.node, Files: CertificateFiles(cfg), Uses: uses(dirPKI),
	})
	s.group, err = s.compose(store, by, onChange)
	return s, err
}

// Check parses what the user says to the parts of a server, as New does, whatever
// cluster the server is in.
func Check(cfg *config.Config, host agent.Host) error {
	_, err := New(Config{Node: cfg, Cluster: cfg.Propose(), Host: host}, func(component.Status) {})
	return err
}

// Server is a server node that is put together, and that Prepare makes ready to run.
type Server struct {
	Config
	group        *component.Group
	certificates *expiry.Watch
	controlplane controlplane.Config
	members      *members
}

// Prepared is a server node of which all that is left is to run its group.
type Prepared struct {
	*component.Group
	Certificates *expiry.Watch
	Token        join.Token // by which another machine joins
	// Members adds those of the datastore to what lite status shows.
	Members func(context.Context, *status.Node)
}

// clients are the identities as which parts of a server use the API.
type clients struct {
	lite    *kube.Client // writes what is lite's own
	admin   *kube.Client // writes what users see as theirs, webhooks and all
	metrics *kube.Client
	node    *kube.Client
	nodes   *kube.Nodes // as lite, which may read them before there are roles
}

func newClients(cfg *config.Config, cp controlplane.Config) clients {
	by := clients{
		lite:    kube.NewClient(cp.Dir.Kubeconfig(pki.Lite), "server"),
		admin:   kube.NewClient(cp.Dir.Kubeconfig(pki.Admin), "admin"),
		metrics: kube.NewClient(cp.Dir.Kubeconfig(pki.Metrics), "metrics"),
		node:    kube.NewClient(cfg.Layout().Data.Agent().Kubeconfig(), "node"),
	}
	by.nodes = kube.NewNodes(by.lite)
	return by
}

// compose is the whole node at a glance.
func (s *Server) compose(store datastore.Store, by clients, onChange func(component.Status)) (*component.Group, error) {
	cfg, shared, cp := s.Node, s.Cluster, s.controlplane
	apiserver, err := controlplane.NewAPIServer(cp)
	if err != nil {
		return nil, err
	}
	scheduler, err := controlplane.NewScheduler(cp)
	if err != nil {
		return nil, err
	}
	controllers, err := controlplane.NewControllerManager(cp)
	if err != nil {
		return nil, err
	}
	objects, err := addon.New(addon.Config{
		Client: by.lite,
		Files:  manifests.FS,
		Values: map[string]string{
			"API_PORT": strconv.Itoa(cfg.HTTPSListenPort), "CLUSTER_DNS": shared.ClusterDNS.String(), "CLUSTER_DOMAIN": shared.ClusterDomain,
		},
		Disable: shared.Disable,
		Profile: shared.Profile,
	})
	if err != nil {
		return nil, err
	}

	g := &component.Group{OnChange: onChange, Veto: s.certificates.Veto}
	db := g.Add(store.Component)
	api := g.Add(apiserver, db)
	if store.Events != nil {
		g.Add(store.Events(by.lite), api)
	}
	// What must run once per cluster waits for this server to lead; a server that
	// nobody will ever share the store with needs no election.
	var leader *kube.Election
	led := api
	if store.Shared != nil {
		leader = kube.NewElection(by.lite, cfg.NodeName, store.Shared)
		led = g.Add(leader, api)
	}
	s.members.held = leader.Held
	roles := g.Add(controlplane.NewAuthorization(cp), led)
	if shared.VIP.IsValid() {
		// The lease of the leader is renewed through its own API server, so one that does not
		// answer loses the address too.
		g.Add(leader.Guard(vip.New(shared.VIP, apiserver.Disconnect)), led)
	}
	g.Add(leader.Guard(scheduler), roles)
	g.Add(leader.Guard(controllers), roles)
	g.Add(leader.Guard(objects), led)
	// What users declare is written as an administrator writes it, so that their
	// webhooks see it; see package exemption.
	g.Add(leader.Guard(addon.NewDirectory(addon.DirectoryConfig{
		Client: by.admin, Dir: cp.Dir.Manifests(), Server: cfg.NodeName,
	})), roles)
	if store.Member != nil {
		g.Add(leader.Guard(&quorum{members: s.members}), roles)
	}
	g.Add(leader.Guard(newAdmission(cp, by.lite, s.members)), roles)
	g.Add(&names{dir: cp.Dir, pki: cp.PKI, node: identity(cfg, shared), self: cfg.NodeName, nodes: by.nodes,
		port: cfg.HTTPSListenPort, learn: s.members.learn}, api)
	g.Add(leader.Guard(approver.New(approver.Config{
		Client: by.lite, Nodes: by.nodes, ServiceCIDRs: shared.ServiceCIDR, ClusterDomain: shared.ClusterDomain,
		Servers: pki.APINames(identity(cfg, shared)), Built: version.Built(),
		NodesPerHour: cfg.TokenNodesPerHour,
	})), roles)
	g.Add(leader.Guard(proof.New(proof.Config{
		Client: by.lite, Nodes: by.nodes, Addresses: nodeAddresses(cp), NodePorts: nodePorts(shared),
	})), roles)
	g.Add(leader.Guard(runtimeclass.New(by.admin, by.nodes)), roles)
	battery.AddToServer(&battery.Server{
		Group: g, Config: cfg, Cluster: shared, PKI: cp.PKI, Lite: by.lite, Admin: by.admin, Metrics: by.metrics, Nodes: by.nodes,
		Addresses: nodeAddresses(cp), Leader: leader, API: api, Roles: roles,
	})
	node := agent.Config{
		Node: cfg, Cluster: shared, Host: s.Host, Certificates: s.certificates, Client: by.node, Nodes: by.nodes, Server: by.lite,
		APINames: ownNames(cfg),
		CAFile:   cp.PKI.CA(pki.ClusterCA), CertFile: cp.PKI.Cert(pki.Kubelet), KeyFile: cp.PKI.Key(pki.Kubelet),
	}
	if err := agent.Add(g, node, api); err != nil {
		return nil, err
	}
	return g, kube.SettleGates()
}

// openStore makes the datastore. Of a server that is one of several, the others are asked to admit it if it has no data.
func openStore(c Config, event func(ctx context.Context, reason, message string) error) (datastore.Store, error) {
	cfg, dir := c.Node, c.Node.Layout().Data.Server()
	known, err := readMembership(dir)
	if err != nil {
		return datastore.Store{}, err
	}
	config := datastore.Config{
		Kind: c.Cluster.Datastore, NodeName: cfg.NodeName, Dir: dir, PKI: pkiDir(cfg), Metrics: etcdMetrics(cfg), EtcdArgs: cfg.EtcdArgs,
		Address: cfg.NodeIP[0], Event: event,
		External: datastore.External{
			Endpoint: cfg.DatastoreEndpoint, CAFile: cfg.DatastoreCAFile, CertFile: cfg.DatastoreCertFile, KeyFile: cfg.DatastoreKeyFile,
			Socket: cfg.Layout().Run.Datastore(),
		},
	}
	if known != nil {
		config.Several, config.Admit = true, askAdmission(cfg, *known)
	}
	return datastore.New(config)
}

// etcdMetrics is where etcd tells its figures to everybody.
func etcdMetrics(cfg *config.Config) []netip.Addr {
	if !cfg.EtcdExposeMetrics {
		return nil
	}
	return cfg.NodeIP
}

// Prepare makes certificates, keys, kubeconfigs and the token, or renews them.
func (s *Server) Prepare() (Prepared, error) {
	if err := s.writeFiles(); err != nil {
		return Prepared{}, err
	}
	token, err := ReadToken(s.Node.DataDir)
	return Prepared{s.group, s.certificates, token, s.members.show}, err
}

func (s *Server) writeFiles() error {
	cfg, cp := s.Node, s.controlplane
	if _, err := os.Stat(cp.PKI.CAKey(pki.ClusterCA)); cp.Used && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the authority's key %s is gone, though the datastore is in use; restore %s from a backup: a new authority would lock every client out and make every token invalid", cp.PKI.CAKey(pki.ClusterCA), cp.PKI)
	}
	n := identity(cfg, s.Cluster)
	n.SANs = append(n.SANs, readNames(cp.Dir)...)
	renewed, err := pki.Ensure(cp.PKI, n, version.NotBeforeBuilt(time.Now()))
	if err != nil {
		return err
	}
	for _, line := range renewed {
		slog.Info("Renewed a certificate", "which", line)
	}
	if err := cp.WriteFiles(); err != nil {
		return err
	}
	for _, k := range []pki.Kubeconfig{
		{Path: cfg.Layout().Data.Agent().Kubeconfig(), Server: cp.LocalURL(), User: pki.KubeletClient, Mode: 0o600, SameProcess: true},
		// A user's, who may take it to another machine.
		{Path: cfg.WriteKubeconfig, Server: adminURL(cp), User: pki.Admin, Mode: cfg.WriteKubeconfigMode},
	} {
		if err := k.Write(cp.PKI); err != nil {
			return err
		}
	}
	if err := errors.Join(ensureToken(cfg, cp.Cluster, cp.PKI), forgetReset(cfg)); err != nil {
		return err
	}
	if err := remember(cfg.Layout().Data.Server(), s.Cluster); err != nil {
		return err
	}
	return agent.Remember(cfg)
}

// adminURL is where users reach the API: at whichever server leads, if they can.
func adminURL(cp controlplane.Config) string {
	if cp.Cluster.VIP.IsValid() {
		return "https://" + endpoint(cp.Node, cp.Cluster)
	}
	return cp.LocalURL()
}

func pkiDir(cfg *config.Config) pki.Dir { return pki.Dir(cfg.Layout().Data.Server().PKI()) }

// identity is what the certificates say of this server.
func identity(cfg *config.Config, shared cluster.Facts) pki.Node {
	n := pki.Node{
		Name:          cfg.NodeName,
		IPs:           slices.Clone(cfg.NodeIP),
		ClusterDomain: shared.ClusterDomain,
		SANs:          slices.Clone(cfg.TLSSANs),
	}
	if shared.VIP.IsValid() {
		n.SANs = append(n.SANs, shared.VIP.String())
	}
	if !slices.Contains(n.IPs, cfg.AdvertiseAddress) {
		n.IPs = append(n.IPs, cfg.AdvertiseAddress)
	}
	if !cfg.BindAddress.IsUnspecified() && !slices.Contains(n.IPs, cfg.BindAddress) {
		n.IPs = append(n.IPs, cfg.BindAddress)
	}
	for _, p := range shared.ServiceCIDR {
		n.ServiceIPs = append(n.ServiceIPs, controlplane.FirstAddress(p))
	}
	return n
}

// nodeAddresses says which of the addresses that nodes report are believed.
func nodeAddresses(cp controlplane.Config) kube.NodeAddresses {
	api := []netip.Addr{cp.Node.AdvertiseAddress}
	if cp.Cluster.VIP.IsValid() {
		api = append(api, cp.Cluster.VIP)
	}
	return kube.NodeAddresses{Pods: cp.Cluster.ClusterCIDR, Services: cp.Cluster.ServiceCIDR, API: api, Own: cp.Node.NodeName}
}

// nodePorts is the range of ports that Services may have. One that is none, kube-apiserver refuses.
func nodePorts(shared cluster.Facts) (r utilnet.PortRange) {
	_ = r.Set(shared.NodePorts)
	return r
}

// Kubeconfig is the path of the kubeconfig by which a server writes what is lite's
// own.
func Kubeconfig(dataDir string) string {
	return layout.Data(dataDir).Server().Kubeconfig(pki.Lite)
}
