package layout

// The interfaces that lite makes. What has one of its names is adopted, made again or removed; the bridge has the
// name that others give theirs too, which programs beside a cluster know.
const (
	Bridge          = "cni0" // that the node's pods are on
	VXLANDevice     = "lite-vxlan"
	WireGuardDevice = "lite-wg"
	StandbyDevice   = "lite-standby" // has the node's addresses while the machine has none

	DevicePrefix  = "lite-" // of all but the bridge
	DevicePattern = "lite*" // with whatever earlier versions have called theirs
	PodDevices    = "veth*" // the node's ends of pods' interfaces, as the CNI plugin bridge calls them
)

// Devices is the interfaces that are lite's by their name alone.
func Devices() []string { return []string{VXLANDevice, WireGuardDevice, StandbyDevice} }

// RouteProtocol marks routes of ours, so that exactly those are found again: `ip route show proto 76`. It is the
// letter L. Neither the kernel (rtnetlink.h), iproute2 (rt_protos) nor FRR uses it, and those who make pod networks
// have others (Calico 80). 99 is Open/R's.
const RouteProtocol = 'L'

// VNI spells "lit". The small numbers are taken on many networks (flannel has 1, Calico 4096, Cilium the small ones):
// packets of two products on one network must not be taken for each other's.
const VNI = 0x6c6974

// Network is what the pod network is called in the caches of the CNI and in the rules of host ports.
const Network = "lite"

// Conflist is the file of its description, in a directory of such.
const Conflist = "10-lite.conflist"

// The chains of iptables that are lite's by their name alone; each is reached by one jump from a chain of the kernel.
const (
	ForwardChain     = "LITE-FORWARD"
	InputChain       = "LITE-INPUT"
	PostroutingChain = "LITE-POSTROUTING"

	JumpComment = "lite pod network" // of those jumps
	RulePrefix  = "lite: "           // of comments in firewalls of others, by lite check --fix
)

// Chains is those chains.
func Chains() []string { return []string{ForwardChain, InputChain, PostroutingChain} }

// PolicyTable is the table of nftables, in the family inet, that has NetworkPolicies.
const PolicyTable = "lite-policy"

// TrialTable is one that a kernel is asked about, and that is never made.
const TrialTable = "lite-trial"

// What the parts of others in lite call theirs, as all do who use them.
const (
	KubeChains    = "KUBE-"         // begins the chains of kube-proxy and the kubelet (1.37)
	KubeletChain  = "KUBE-FIREWALL" // the kubelet's own
	ProxyTable    = "kube-proxy"    // of nftables, in the families ip and ip6
	CNIChains     = "CNI-"          // begins the chains of the CNI plugins portmap and firewall (1.9)
	PortmapChains = "CNI-HOSTPORT-" // begins those of portmap
	PortmapDNAT   = "CNI-HOSTPORT-DNAT"
	PortmapOne    = "CNI-DN-" // begins the one of each container
	PortmapMASQ   = "CNI-HOSTPORT-MASQ"
	PortmapTable  = "cni_hostport" // of nftables, in the families ip and ip6
)

// The cgroups of all pods, as the kubelet calls them by itself and through systemd.
const (
	PodCgroup = "kubepods"
	PodSlice  = "kubepods.slice"
)
