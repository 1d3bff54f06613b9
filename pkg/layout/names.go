package layout

// Domain is that of labels, annotations and of all else that has one. Nodes may not set what begins with it,
// but for what the policy PolicyOfNodes names.
const Domain = "lite.io"

// Labels and annotations of Nodes.
const (
	OverlayAnnotation     = Domain + "/overlay"      // how the node's pods are reached
	StoragePathAnnotation = Domain + "/storage-path" // the directory of its volumes; a node without it has none to give
	// StorageLabel is on a Node that has such a directory. The class local-path names it in allowedTopologies:
	// the scheduler knows nothing else by which to choose another node, and would come back to the same one for ever.
	StorageLabel = Domain + "/storage"
	// ProvenAnnotation is which of the addresses that a node reports are its own, by commas, as the leading server has
	// found; PolicyOfNodes keeps nodes from it.
	ProvenAnnotation = Domain + "/proven-addresses"
	// APINamesAnnotation is what the API server of a server's Node is called, by commas; PolicyOfNodes keeps nodes
	// from it.
	APINamesAnnotation = Domain + "/api-names"
	// BalancerLabel on any node makes those that have it the only ones whose addresses are given to Services. No node
	// may give it to itself, as the admission plugin NodeRestriction has it.
	BalancerLabel = "node-restriction.kubernetes.io/lite-lb"
	// BalancerLabelBefore is what the label was called first. PolicyOfNodes keeps nodes from it.
	BalancerLabelBefore = Domain + "/lb"
)

// QuorumCondition of a server's Node is true while the loss of one more server would stop the cluster.
const QuorumCondition = Domain + "/QuorumAtRisk"

// Of Services of type LoadBalancer.
const (
	BalancerClass      = Domain + "/node"                 // the loadBalancerClass that asks for lite's by name
	AllowSSHAnnotation = Domain + "/lb-allow-ssh-port"    // of one that may take the nodes' port 22
	DNSService         = "kube-dns"                       // in the namespace kube-system
	DNSEndpoints       = "dns." + Domain                  // who manages its EndpointSlices
	MetricsService     = "kube-system/metrics-server"     // whose aggregated API a server answers itself
	MetricsServiceDNS  = "metrics-server.kube-system.svc" // by the name that the API server calls it
)

// Of volumes and their class.
const (
	Provisioner       = Domain + "/local-path"   // what a StorageClass says to get volumes from here
	VolumeNodeLabel   = Domain + "/node"         // the node that has a volume's data
	VolumeAnnotation  = Domain + "/local-volume" // what that node says about the directory
	VolumeFinalizer   = Domain + "/local-volume" // holds a volume until its data is gone
	VolumeNamesPrefix = "pvc-"                   // begins the names of directories; Kubernetes names volumes so
)

// Of what a user puts into the directory of manifests, and of lite's own objects.
const (
	// KeepEditsAnnotation is of objects that are the user's to change: once somebody else owns a field that lite
	// would set, it stays as it is.
	KeepEditsAnnotation = Domain + "/keep-edits"

	RecordPrefix           = "lite-manifest-" // begins the names of ConfigMaps that say what a file owns
	RecordLabel            = Domain + "/record"
	RecordFileAnnotation   = Domain + "/file"
	RecordServerAnnotation = Domain + "/server"
)

// Of images in containerd.
const (
	// ImportedFromLabel remembers which archive an image came from, by name, size and time, and how many images are in
	// it, so that a start does not read gigabytes again; ImportedBeforeLabel the older archives that have an image of
	// the same name; ImportedAsLabel the name and the digest that the image had then: whoever gives it another name
	// copies the labels, and whoever imports another one under its name leaves them.
	ImportedFromLabel   = Domain + "/imported-from"
	ImportedBeforeLabel = Domain + "/imported-before"
	ImportedAsLabel     = Domain + "/imported-as"

	BuiltInImages = Domain + "/" // begins the names of images that come with lite

	ImportLease = "lite-import-" // begins the names of leases
	// BuiltInLease is how the lease begins under which an image that comes with lite is imported.
	BuiltInLease = "lite-built-in-"
)

// PauseImage is the sandbox image inside images/pause.tar of the helpers. scripts/build/bundle looks for it here.
const PauseImage = "lite.io/pause:3.10.2"

// Of machines that join, and of nodes that are refused.
const (
	ClusterFacts = "lite-cluster" // the ConfigMap in kube-system with what a node has to know

	// What a certificate signing request says of who has made it (spec.extra). The API server writes it, not who asks.
	AddressExtra = Domain + "/address"
	KeyExtra     = Domain + "/key"

	WaitingCondition = Domain + "/Waiting"     // of such a request that is neither approved nor denied yet
	JoinedType       = Domain + "/joined"      // of the Secrets that hold what tokens have admitted
	JoinedPrefix     = "lite-joined-"          // begins their names; the ID of the token follows
	RefusedType      = Domain + "/refused"     // of the Secrets that hold whose certificates are refused
	RefusedPrefix    = "lite-refused-"         // begins their names; a digit follows
	RefusedCause     = Domain + "/NodeRefused" // in an answer by which a node learns that it is refused for good

	PolicyOfNodes     = "nodes." + Domain     // what a node may say of itself
	PolicyOfHostPorts = "hostports." + Domain // which ports of nodes no pod may take
	PolicyProbe       = "lite-policy-probe"   // the node by which it is tried whether the first is in force
)

// Lease is that of the server that leads.
const Lease = "lite-leader"

// UpgradeLease is that of the server that is being upgraded: one at a time.
const UpgradeLease = "lite-upgrade"

// Users and groups, as the API knows them.
const (
	ServerUser  = "lite:server"  // what lite writes of its own
	MetricsUser = "lite:metrics" // the metrics API

	NodeUser   = "system:node:" // begins a node's
	NodesGroup = "system:nodes"
	TokenUser  = "system:bootstrap:" // begins a token's

	BootstrapGroup = "system:bootstrappers" // of all tokens
	// tokenGroups begins the group of a token that machines join by; the role follows.
	tokenGroups = BootstrapGroup + ":lite:"
)

// TokenGroup is the group of the tokens by which machines become nodes of a role.
func TokenGroup(role string) string { return tokenGroups + role }

// AllTokenGroups is that of agents and that of servers.
func AllTokenGroups() []string { return []string{TokenGroup(agentName), TokenGroup(serverName)} }

// Paths of the API by which servers join, and what they are one of.
const (
	APIPrefix    = "/lite/v1/"
	HandoverPath = APIPrefix + "handover"
	MembersPath  = APIPrefix + "members"
	AbsencePath  = MembersPath + "/absence"
	HealthPath   = MembersPath + "/health"   // how all of them do
	PositionPath = MembersPath + "/position" // how far the one is that is asked
)

// DefragmentingKey is the key of etcd that the member holds which gives back space, if there are several.
const DefragmentingKey = Domain + "/defragmenting"

// DatastoreOwner is a key in a datastore that several clusters could reach, beside those of Kubernetes: whose it is.
const DatastoreOwner = "/lite.io/cluster"

// Field managers, and the sources of events.
const (
	Manager             = "lite" // a slash and a file follow for what a user declares
	BalancerManager     = "lite-loadbalancer"
	DNSManager          = "lite-dns"
	MetricsManager      = "lite-metrics"
	NetworkSource       = "lite-network"
	ProofManager        = "lite-node-addresses"
	QuorumSource        = "lite-members"
	CertificatesSource  = "lite-certificates"
	DatastoreSource     = "lite-datastore"
	ManifestsController = Domain + "/manifests"
)

// OwnAPIsHook is the part of the API server's health that says whether the APIs are there that it answers itself.
const OwnAPIsHook = "lite-own-apis"

// SeriesPrefix begins the names of figures that are lite's own.
const SeriesPrefix = "lite_"
