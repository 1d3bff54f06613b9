// Package battery adds the components of batteries to a node's group: those of a server, and those of every node.
// Everything else about a battery is in its row in package addon, which is light.
package battery

import (
	"maps"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/addon/metrics"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/firewall"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// row is the components of a battery. A function that has nothing to do is nil.
type row struct {
	of addon.Name
	// server and node add components, and check finds what node would find wrong with the user's arguments.
	server func(*Server)
	node   func(*Node) error
	check  func(*Node) error
	// serverOff and nodeOff are called instead where the battery is disabled. They remove what an earlier start has
	// left, beyond the manifest and the marks in package addon.
	serverOff func(*Server)
	nodeOff   func(*Node)
	// uses is the certificates without which its components on a server cannot work, if it has any.
	uses func(pki.Dir) []string
	// answers is the aggregated APIs that a server's process answers itself.
	answers func() map[string]string
}

// rows is in the order in which components are added: one comes after those that it needs.
func rows() []row {
	return []row{
		{of: addon.DNS, server: dnsEndpoints, node: nameServer, uses: by(pki.Lite)},
		{of: addon.CNI, node: podNetwork},
		{of: addon.NetworkPolicy, node: policies, nodeOff: noPolicies},
		{of: addon.KubeProxy, node: serviceProxy, check: checkProxy},
		{of: addon.Metrics, server: metricsAPI, uses: metricsUses, answers: metricsAnswers},
		{of: addon.Storage, server: provisioner, node: volumes, uses: by(pki.Admin)},
		{of: addon.LoadBalancer, server: loadBalancer, serverOff: noLoadBalancer, uses: by(pki.Admin)},
	}
}

// Server is what components of a server get and need.
type Server struct {
	Group      *component.Group
	Config     *config.Config
	Cluster    cluster.Facts
	PKI        pki.Dir
	Lite       *kube.Client // writes what is lite's own
	Admin      *kube.Client // writes what is users', so that their webhooks see it
	Metrics    *kube.Client
	Nodes      *kube.Nodes
	Addresses  kube.NodeAddresses // which of those that nodes report are believed
	Leader     *kube.Election
	API, Roles *component.Node
}

// AddToServer adds what a server alone runs. What it runs as every node does is for AddToNode.
func AddToServer(s *Server) {
	for _, r := range rows() {
		add := r.server
		if s.Cluster.Disable.Has(r.of) {
			add = r.serverOff
		}
		if add != nil {
			add(s)
		}
	}
}

// Node is what components of every node get and need.
type Node struct {
	Group    *component.Group
	Config   *config.Config
	Cluster  cluster.Facts
	Client   *kube.Client // of the node's identity
	Nodes    *kube.Nodes
	Runtime  string // the address of the container runtime
	ConfDir  string // where descriptions of pod networks are
	Helpers  layout.Helpers
	NFTables bool // carries Services and hostPorts
	Limited  bool // the node may not write all settings of the kernel
	Firewall *firewall.Watcher

	API, Tools *component.Node
	// Network knows the node's ranges of pod addresses. It is the kubelet where the pod network is the user's.
	Network *component.Node
}

// AddToNode adds what every node runs. The pod network replaces n.Network.
func AddToNode(n *Node) error {
	for _, r := range rows() {
		switch off := n.Cluster.Disable.Has(r.of); {
		case off && r.nodeOff != nil:
			r.nodeOff(n)
		case !off && r.node != nil:
			if err := r.node(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckNode finds the mistakes in users' arguments that AddToNode would find. It does not change the process, so
// that a node can start afterwards.
func CheckNode(n *Node) error {
	for _, r := range rows() {
		if r.check != nil && !n.Cluster.Disable.Has(r.of) {
			if err := r.check(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Answers is where the API server finds the aggregated APIs that its process answers itself, by the Service. Those of
// a battery that is disabled are for the user to bring.
func Answers(disable addon.Disabled) map[string]string {
	all := map[string]string{}
	for _, r := range rows() {
		if r.answers == nil || disable.Has(r.of) {
			continue
		}
		maps.Copy(all, r.answers())
	}
	return all
}

// Uses is the certificates without which the components of batteries on a server cannot work.
func Uses(dir pki.Dir) map[string][]string {
	uses := map[string][]string{}
	for _, r := range rows() {
		for _, name := range addon.Of(r.of).Server {
			uses[name] = r.uses(dir)
		}
	}
	return uses
}

// by is what a component uses that comes as a user to the API.
func by(user string) func(pki.Dir) []string {
	return func(dir pki.Dir) []string { return []string{dir.CA(pki.ClusterCA), dir.Cert(user)} }
}

func metricsUses(dir pki.Dir) []string {
	return []string{dir.CA(pki.ClusterCA), dir.Cert(pki.Metrics), dir.CA(pki.FrontProxyCA)}
}

func metricsAnswers() map[string]string {
	return map[string]string{layout.MetricsService: metrics.Address()}
}
