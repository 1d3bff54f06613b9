package layout

import "path/filepath"

// Data is a data directory: all that a node keeps.
type Data string

// The names in a data directory. Whoever adds one adds it to names and to docs/files.md too.
const (
	lockName     = "lite.lock"
	versionName  = "version"
	roleName     = "role"
	nodeName     = "node-name"
	bundleName   = "bundle"
	serverName   = "server"
	agentName    = "agent"
	storageName  = "storage"
	rollbackName = "rollback"
	journalName  = "upgrade.json"
	driverName   = "upgrade.lock"
	downloadName = "upgrade.download"
)

func (d Data) join(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// Names is what lite makes in a data directory.
func (Data) Names() []string {
	return []string{
		lockName, versionName, roleName, nodeName, bundleName, serverName, agentName, storageName,
		rollbackName, rollbackName + ".new", rollbackName + ".old", journalName, driverName, downloadName,
	}
}

// Lock is held by the lite that works in the directory. It is there from the first start on, and
// goes last when lite is removed: by it a directory is known for one that a lite has worked in.
func (d Data) Lock() string { return d.join(lockName) }

// Version is of the lite that was last started on the directory.
func (d Data) Version() string { return d.join(versionName) }

// Role is what the directory is known for: that of a server or of an agent. See Stamp.
func (d Data) Role() string { return d.join(roleName) }

// NodeName is the name by which the node stays the same when the machine's changes.
func (d Data) NodeName() string { return d.join(nodeName) }

// Storage is where volumes are, unless a user names another place.
func (d Data) Storage() string { return d.join(storageName) }

// Bundles is where helper programs are unpacked, one directory per bundle.
func (d Data) Bundles() string { return d.join(bundleName) }

// Helpers is the helper programs of the bundle with a checksum; "*" makes a pattern for those of all.
func (d Data) Helpers(sum string) Helpers { return Helpers(d.join(bundleName, sum)) }

// Server is what a server has and an agent has not.
func (d Data) Server() Server { return Server(d.join(serverName)) }

// Agent is what every node has.
func (d Data) Agent() Agent { return Agent(d.join(agentName)) }

// Journal is how far an upgrade has come.
func (d Data) Journal() string { return d.join(journalName) }

// Driver is locked by the process that makes an upgrade.
func (d Data) Driver() string { return d.join(driverName) }

// Download is a release, while an upgrade fetches it.
func (d Data) Download() string { return d.join(downloadName) }

// Kept is what the last upgrade has kept aside to go back to.
func (d Data) Kept() string { return d.join(rollbackName) }

// Keeping is where that is made, so that what the upgrade before has kept stays until it is complete.
func (d Data) Keeping() string { return d.Kept() + ".new" }

// KeptBefore is where what was kept before is for the moment of the exchange.
func (d Data) KeptBefore() string { return d.Kept() + ".old" }

// Identity is the paths below the directory that make a node what it is and that its own start reads
// and writes, of a server or of an agent. The node's key and certificate are not among them: the
// kubelet renews them, and going back to older ones would serve nobody.
func (d Data) Identity(server bool) []string {
	names := []string{nodeName, versionName, roleName}
	if server {
		names = append(names, serverName)
	}
	for _, name := range []string{clusterName, caName, joinedName, kubeconfigName, serversName, overlayKeyName} {
		names = append(names, filepath.Join(agentName, name))
	}
	return names
}

// Helpers is a directory with the programs that lite brings along, unpacked.
type Helpers string

func (h Helpers) join(name string) string { return filepath.Join(string(h), name) }

// Bin is the directory of runc, containerd-shim-runc-v2 and crictl.
func (h Helpers) Bin() string { return h.join("bin") }

// Shim is the program by which containerd runs containers with runc.
func (h Helpers) Shim() string { return filepath.Join(h.Bin(), "containerd-shim-runc-v2") }

// CNI is the directory of the CNI plugins bridge, host-local, portmap, loopback, bandwidth and firewall.
func (h Helpers) CNI() string { return h.join("cni") }

// Netfilter is the directory of the programs that write packet filter rules. Below it, each is a directory for PATH:
// nft; iptables-nft and iptables-legacy with iptables, ip6tables and their -save and -restore; bin with the same under
// the names that leave no doubt, such as iptables-legacy-save.
func (h Helpers) Netfilter() string { return h.join("netfilter") }

// Images is the directory of image archives; it holds pause.tar.
func (h Helpers) Images() string { return h.join("images") }

// Server is the directory of what a server has and an agent has not.
type Server string

func (s Server) join(names ...string) string {
	return filepath.Join(append([]string{string(s)}, names...)...)
}

// PKI is the directory of certificates and keys; package pki says which there are.
func (s Server) PKI() string { return s.join("pki") }

// Kubeconfig is that of one of the users that have a certificate in PKI.
func (s Server) Kubeconfig(user string) string { return s.join("kubeconfig", user+".conf") }

// Token is the token by which agents may always join.
func (s Server) Token() string { return s.join("token") }

// Manifests is what a user wants to have in the cluster.
func (s Server) Manifests() string { return s.join("manifests") }

// Facts is what the cluster shares, as of the server's last start.
func (s Server) Facts() string { return s.join("facts.json") }

// Membership is there if the server is, or is to be, one of several.
func (s Server) Membership() string { return s.join("membership.json") }

// Names is what other servers are called.
func (s Server) Names() string { return s.join("names.json") }

// Reset is how far a server has come in becoming the only one of its cluster; it is there while that is asked for.
func (s Server) Reset() string { return s.join("reset.json") }

// Ranges is what versions until 1.37 had in its place; it is removed.
func (s Server) Ranges() string { return s.join("ranges.json") }

// Encryption is how Secrets are encrypted in the datastore, with the keys.
func (s Server) Encryption() string { return s.join("encryption.yaml") }

// Scheduler is a user's configuration of the scheduler with what lite says.
func (s Server) Scheduler() string { return s.join("scheduler.yaml") }

// AuditPolicy is lite's own audit policy.
func (s Server) AuditPolicy() string { return s.join("audit-policy.yaml") }

// Admission is how admission plugins are set.
func (s Server) Admission() string { return s.join("admission.yaml") }

// Authentication is what versions until 1.36 had; it is removed.
func (s Server) Authentication() string { return s.join("authentication.yaml") }

// FlexVolumes is where the controller manager looks for plugins.
func (s Server) FlexVolumes() string { return s.join(flexVolumesName) }

// Etcd is the directory of the embedded etcd.
func (s Server) Etcd() string { return s.join("etcd") }

// SQLite is the datastore of a server that has its own in a file, unless a user names another. Beside it are the
// files that SQLite writes first; all are alone in their directory.
func (s Server) SQLite() string { return s.join("sqlite", "state.db") }

const (
	clusterName     = "cluster.json"
	caName          = "ca.crt"
	joinedName      = "joined.conf"
	kubeconfigName  = "kubelet.conf"
	serversName     = "servers.json"
	overlayKeyName  = "overlay.key"
	flexVolumesName = "flexvolume"
)

// Agent is the directory of what every node has.
type Agent string

func (a Agent) join(name string) string { return filepath.Join(string(a), name) }

// Cluster is what an agent knows of its cluster.
func (a Agent) Cluster() string { return a.join(clusterName) }

// CA is the certificate of the cluster's authority, of an agent.
func (a Agent) CA() string { return a.join(caName) }

// Kubeconfig is that of the node's identity.
func (a Agent) Kubeconfig() string { return a.join(kubeconfigName) }

// Joined is the kubeconfig as the kubelet's bootstrap writes it, straight to the server by which an agent
// joined.
func (a Agent) Joined() string { return a.join(joinedName) }

// Bootstrap is a kubeconfig with the token, while an agent asks for its certificate.
func (a Agent) Bootstrap() string { return a.join("bootstrap.conf") }

// Servers is the servers that an agent has learnt of.
func (a Agent) Servers() string { return a.join(serversName) }

// OverlayKey is the node's private key in the network between nodes.
func (a Agent) OverlayKey() string { return a.join(overlayKeyName) }

// Images is the directory of a user's image archives.
func (a Agent) Images() string { return a.join("images") }

// CNI is the directory with the description of the pod network, for containerd.
func (a Agent) CNI() string { return a.join("cni") }

// DNS is the directory of the node's DNS server.
func (a Agent) DNS() string { return a.join("dns") }

// Kubelet is the directory of what a kubelet keeps that Kubernetes does not prescribe the place of.
func (a Agent) Kubelet() Kubelet { return Kubelet(a.join("kubelet")) }

// Containerd is the directory of what containerd keeps.
func (a Agent) Containerd() Containerd { return Containerd(a.join("containerd")) }

// Kubelet is a directory of the kubelet below the data directory.
type Kubelet string

func (k Kubelet) join(names ...string) string {
	return filepath.Join(append([]string{string(k)}, names...)...)
}

// PKI is where the kubelet keeps what the cluster has signed for it.
func (k Kubelet) PKI() string { return k.join("pki") }

// Client is the identity of the node, a certificate and its key in one file. The kubelet renews it.
func (k Kubelet) Client() string { return k.join("pki", "kubelet-client-current.pem") }

// Serving is what the kubelet shows who calls it, in one file with its key.
func (k Kubelet) Serving() string { return k.join("pki", "kubelet-server-current.pem") }

// UnusedKey is where the kubelet's bootstrap keeps a key that has no certificate yet.
func (k Kubelet) UnusedKey() string { return k.join("pki", "kubelet-client.key.tmp") }

// FlexVolumes is where the kubelet looks for plugins.
func (k Kubelet) FlexVolumes() string { return k.join(flexVolumesName) }

// Containerd is containerd's directory below the data directory.
type Containerd string

func (c Containerd) join(name string) string { return filepath.Join(string(c), name) }

// Config is written at each start.
func (c Containerd) Config() string { return c.join("config.toml") }

// DropIns is the directory of what a user adds to that.
func (c Containerd) DropIns() string { return c.join("config.toml.d") }

// Registries is the directory that says how registries are reached.
func (c Containerd) Registries() string { return c.join("registries") }

// Root is images and containers.
func (c Containerd) Root() string { return c.join("root") }

// Opt is of containerd.
func (c Containerd) Opt() string { return c.join("opt") }
