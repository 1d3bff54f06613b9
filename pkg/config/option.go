package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/layout"
)

// option is one option: a flag, an environment variable and a key of the configuration
// file.
type option struct {
	name  string
	short string
	arg   string // what a value is, as help shows it
	def   string // the default
	found string // how complete finds the default, in words
	empty string // what the default "" means, in words
	usage string // no backquotes, pflag takes them as the name of the value
	only  Role   // the role it is for; "" = all
	// shared values are the whole cluster's: a server proposes them. An agent may set them,
	// in files and variables that machines share, and then only checks that its cluster has
	// the same.
	shared bool
	env    string // the environment variable, where it is not LITE_ and the name
	// secret values are shown to nobody.
	secret bool
	binding
}

// binding connects an option to its field of a Config.
type binding struct {
	// separator splits a text into the values of a list; "" = not a list.
	separator string
	set       func(c *Config, texts []string) []*Error
	get       func(c *Config) []any // ints, bools and strings
}

const (
	commas = ","
	// Arguments of components hold commas (feature-gates=A=true,B=true), so
	// only a new line separates two of them.
	lines   = "\n"
	perLine = ", one per flag, list item, or line of the variable"
)

// parser turns one text into a value; of the error only Problem and Remedy are
// of interest.
type parser[T any] func(text string) (T, *Error)

// one binds an option that has a single value.
func one[T any](field func(*Config) *T, parse parser[T]) binding {
	return binding{
		set: func(c *Config, texts []string) []*Error {
			value, err := parse(texts[0])
			if err != nil {
				err.Value = texts[0]
				return []*Error{err}
			}
			*field(c) = value
			return nil
		},
		get: func(c *Config) []any { return []any{plain(*field(c))} },
	}
}

// many binds an option that is a list.
func many[T any](separator string, field func(*Config) *[]T, parse parser[T]) binding {
	return binding{
		separator: separator,
		set: func(c *Config, texts []string) (errs []*Error) {
			var values []T
			for _, text := range texts {
				value, err := parse(text)
				if err != nil {
					err.Value = text
					errs = append(errs, err)
				}
				values = append(values, value)
			}
			if len(errs) == 0 {
				*field(c) = values
			}
			return errs
		},
		get: func(c *Config) []any {
			values := []any{}
			for _, value := range *field(c) {
				values = append(values, plain(value))
			}
			return values
		},
	}
}

// plain is a value as users write it.
func plain(value any) any {
	switch v := value.(type) {
	case int:
		return v
	case bool:
		return v
	case fs.FileMode:
		return fmt.Sprintf("%04o", uint32(v))
	case slog.Level:
		return strings.ToLower(v.String())
	case netip.Addr:
		return addressText(v)
	default:
		return fmt.Sprint(v)
	}
}

// options is all options, in the order of help.
var options = []option{
	{name: "config", short: "c", arg: "path", def: layout.Default().Config.File(),
		usage:   "Configuration file; drop-ins from the directory of the same name plus .d are read after it",
		binding: one(func(c *Config) *string { return &c.ConfigFile }, configFile)},
	{name: "data-dir", arg: "path", def: string(layout.Default().Data),
		usage:   "Directory for the node's data",
		binding: one(func(c *Config) *string { return &c.DataDir }, dataDir)},
	{name: "server", short: "s", arg: "url", empty: "the address in the token", env: "LITE_URL",
		usage:   "A server of the cluster to join; a server that has its own cluster needs none",
		binding: one(func(c *Config) *string { return &c.ServerURL }, serverURL)},
	{name: "token", short: "t", arg: "token", empty: "the content of token-file", secret: true,
		usage:   "Token that admits nodes to the cluster: on an agent, a token of the server; on a server, the token to use; see token-file",
		binding: one(func(c *Config) *string { return &c.Token }, text)},
	{name: "token-file", arg: "path", empty: "no file: a server generates a token, and an agent that has joined needs none",
		usage:   "File that holds the token; on a command line, every user of the machine could see it",
		binding: one(func(c *Config) *string { return &c.TokenFile }, optionalPath)},
	{name: "token-nodes-per-hour", arg: "number", def: "100", only: Server,
		usage:   "How many nodes each token may admit within an hour; 0 means no limit",
		binding: one(func(c *Config) *int { return &c.TokenNodesPerHour }, count)},
	{name: "reset-to-single", arg: "bool", def: "false", only: Server,
		usage:   "Make this server the only one of its cluster, once, after the others were lost for good",
		binding: one(func(c *Config) *bool { return &c.ResetToSingle }, truth)},
	{name: "log-level", arg: "level", def: "info",
		usage:   "Minimum severity of messages to log: debug, info, warn or error",
		binding: one(func(c *Config) *slog.Level { return &c.LogLevel }, logLevel)},
	{name: "log-format", arg: "format", def: "text",
		usage:   "Log format: text or json",
		binding: one(func(c *Config) *string { return &c.LogFormat }, oneOf("text", "json"))},

	{name: "node-name", arg: "name", found: "the lower-cased host name, or the name the node had before",
		usage:   "Name of this node, unique in its cluster",
		binding: one(func(c *Config) *string { return &c.NodeName }, nodeName)},
	{name: "node-ip", arg: "ip", found: "the address of the interface of the default route",
		usage:   "Addresses of this node, at most one per IP family",
		binding: many(commas, func(c *Config) *[]netip.Addr { return &c.NodeIP }, unicastAddress)},
	{name: "node-label", arg: "key=value",
		usage:   "Labels the node registers with",
		binding: many(commas, func(c *Config) *[]string { return &c.NodeLabels }, nodeLabel)},
	{name: "node-taint", arg: "key=value:effect",
		usage:   "Taints the node registers with; effects are NoSchedule, PreferNoSchedule and NoExecute",
		binding: many(commas, func(c *Config) *[]string { return &c.NodeTaints }, nodeTaint)},

	{name: "bind-address", arg: "ip", def: "0.0.0.0", only: Server,
		usage:   "Address the API server listens on",
		binding: one(func(c *Config) *netip.Addr { return &c.BindAddress }, address)},
	{name: "advertise-address", arg: "ip", found: "the first of node-ip", only: Server,
		usage:   "Address where the members of the cluster reach the API server",
		binding: one(func(c *Config) *netip.Addr { return &c.AdvertiseAddress }, unicastAddress)},
	{name: "https-listen-port", arg: "port", def: layout.APIPortText, only: Server,
		usage:   "Port the API server listens on",
		binding: one(func(c *Config) *int { return &c.HTTPSListenPort }, port)},
	{name: "tls-san", arg: "name", only: Server,
		usage:   "Additional names and addresses for the API server's certificate",
		binding: many(commas, func(c *Config) *[]string { return &c.TLSSANs }, tlsSAN)},

	{name: "cluster-vip", arg: "ip", empty: "no such address", shared: true,
		usage:   "Address that the server which leads has, besides its own",
		binding: one(func(c *Config) *netip.Addr { return &c.cluster.VIP }, optionalAddress)},

	{name: "cluster-cidr", arg: "cidr", def: "10.42.0.0/16", shared: true,
		usage:   "Ranges of pod addresses, at most one per IP family",
		binding: many(commas, func(c *Config) *[]netip.Prefix { return &c.cluster.ClusterCIDR }, podRange)},
	{name: "service-cidr", arg: "cidr", def: "10.43.0.0/16", shared: true,
		usage:   "Ranges of service addresses, at most one per IP family",
		binding: many(commas, func(c *Config) *[]netip.Prefix { return &c.cluster.ServiceCIDR }, serviceRange)},
	{name: "cluster-dns", arg: "ip", found: "the 10th address of service-cidr", shared: true,
		usage:   "Address of the cluster's DNS service",
		binding: one(func(c *Config) *netip.Addr { return &c.cluster.ClusterDNS }, unicastAddress)},
	{name: "cluster-domain", arg: "domain", def: "cluster.local", shared: true,
		usage:   "Domain of the cluster's services and pods",
		binding: one(func(c *Config) *string { return &c.cluster.ClusterDomain }, clusterDomain)},

	{name: "flannel-backend", arg: "name", def: "vxlan", shared: true,
		usage:   "How packets reach the pods of other nodes: vxlan, host-gw, wireguard-native, or none to bring your own",
		binding: one(func(c *Config) *string { return &c.cluster.Backend }, oneOf("vxlan", "host-gw", "wireguard-native", "none"))},
	{name: "flannel-iface", arg: "name", empty: "the interface that has node-ip",
		usage:   "Interface that carries the packets between nodes",
		binding: one(func(c *Config) *string { return &c.FlannelIface }, text)},

	{name: "write-kubeconfig", arg: "path", def: layout.Default().Config.Kubeconfig(), only: Server,
		usage:   "File to write the administrator's kubeconfig to",
		binding: one(func(c *Config) *string { return &c.WriteKubeconfig }, absolutePath)},
	{name: "write-kubeconfig-mode", arg: "mode", def: "0600", only: Server,
		usage:   "Octal mode of the kubeconfig",
		binding: one(func(c *Config) *fs.FileMode { return &c.WriteKubeconfigMode }, fileMode)},

	{name: "disable", arg: "name", shared: true,
		usage:   "Components to disable: " + strings.Join(addon.Names(), ", "),
		binding: many(commas, func(c *Config) *[]addon.Name { return (*[]addon.Name)(&c.cluster.Disable) }, battery)},
	{name: "default-local-storage-path", arg: "path", found: "storage in data-dir",
		usage:   "Directory for this node's volumes of class local-path",
		binding: one(func(c *Config) *string { return &c.LocalStoragePath }, storageDir)},
	{name: "private-registry", arg: "path", def: layout.Default().Config.Registries(),
		usage:   "File that configures access to image registries",
		binding: one(func(c *Config) *string { return &c.PrivateRegistry }, absolutePath)},
	{name: "container-runtime-endpoint", arg: "path", empty: "the embedded containerd",
		usage:   "Socket of the container runtime to use",
		binding: one(func(c *Config) *string { return &c.ContainerRuntimeEndpoint }, endpoint)},
	{name: "prefer-bundled-bin", arg: "bool", def: "false",
		usage:   "Use the iptables and nft that come with lite, even where the machine's own work",
		binding: one(func(c *Config) *bool { return &c.PreferBundledBin }, truth)},
	{name: "profile", arg: "name", empty: "lite's defaults",
		usage:   "Hardening beyond the defaults, the same on all nodes: cis, for the CIS Kubernetes Benchmark",
		binding: one(func(c *Config) *string { return &c.Profile }, optional(oneOf(ProfileCIS)))},
	{name: "audit-log-path", arg: "path", def: layout.Default().Host.AuditLog, only: Server,
		usage:   "File for the audit log of requests to the API server, or none",
		binding: one(func(c *Config) *string { return &c.AuditLogPath }, optional(pathOrNone))},
	{name: "audit-policy-file", arg: "path", empty: "lite's own", only: Server,
		usage:   "Policy that selects the requests to log; needs audit-log-path",
		binding: one(func(c *Config) *string { return &c.AuditPolicyFile }, optionalPath)},

	{name: "datastore-endpoint", arg: "url", empty: "the embedded etcd", only: Server, secret: true,
		usage:   "Where the cluster's objects are stored: sqlite://, postgres://, mysql://, or https:// for an etcd; a password on a command line could be seen by every user of the machine",
		binding: one(func(c *Config) *string { return &c.DatastoreEndpoint }, datastoreEndpoint)},
	{name: "datastore-cafile", arg: "path", empty: "the machine's authorities", only: Server,
		usage:   "Certificate of the authority that signed the datastore's certificate",
		binding: one(func(c *Config) *string { return &c.DatastoreCAFile }, optionalPath)},
	{name: "datastore-certfile", arg: "path", empty: "no client certificate", only: Server,
		usage:   "Certificate that the datastore recognizes this server by; needs datastore-keyfile",
		binding: one(func(c *Config) *string { return &c.DatastoreCertFile }, optionalPath)},
	{name: "datastore-keyfile", arg: "path", empty: "no client certificate", only: Server,
		usage:   "Key of datastore-certfile",
		binding: one(func(c *Config) *string { return &c.DatastoreKeyFile }, optionalPath)},

	{name: "etcd-expose-metrics", arg: "bool", def: "false", only: Server,
		usage:   "Serve etcd's metrics on port " + strconv.Itoa(layout.EtcdMetricsPort) + " of node-ip and of 127.0.0.1, to anybody who can reach it",
		binding: one(func(c *Config) *bool { return &c.EtcdExposeMetrics }, truth)},

	{name: "kube-apiserver-arg", arg: "key=value", only: Server, usage: "Arguments for kube-apiserver" + perLine,
		binding: many(lines, func(c *Config) *[]string { return &c.APIServerArgs }, argument)},
	{name: "kube-controller-manager-arg", arg: "key=value", only: Server, usage: "Arguments for kube-controller-manager" + perLine,
		binding: many(lines, func(c *Config) *[]string { return &c.ControllerManagerArgs }, argument)},
	{name: "kube-scheduler-arg", arg: "key=value", only: Server, usage: "Arguments for kube-scheduler" + perLine,
		binding: many(lines, func(c *Config) *[]string { return &c.SchedulerArgs }, argument)},
	{name: "etcd-arg", arg: "key=value", only: Server, usage: "Arguments for etcd" + perLine,
		binding: many(lines, func(c *Config) *[]string { return &c.EtcdArgs }, argument)},
	{name: "kubelet-arg", arg: "key=value", usage: "Arguments for the kubelet" + perLine,
		binding: many(lines, func(c *Config) *[]string { return &c.KubeletArgs }, argument)},
	{name: "kube-proxy-arg", arg: "key=value", usage: "Arguments for kube-proxy" + perLine,
		binding: many(lines, func(c *Config) *[]string { return &c.KubeProxyArgs }, argument)},
}

// lookup finds an option by its name.
func lookup(name string) (option, bool) {
	for _, o := range options {
		if o.name == name {
			return o, true
		}
	}
	return option{}, false
}

// optionsOf returns the options of a node of a role.
func optionsOf(role Role) []option {
	var of []option
	for _, o := range options {
		if o.isFor(role) {
			of = append(of, o)
		}
	}
	return of
}

func (o option) isFor(role Role) bool { return o.only == "" || o.only == role }

func (o option) isList() bool { return o.separator != "" }

// variable is the name of the environment variable.
func (o option) variable() string {
	if o.env != "" {
		return o.env
	}
	return "LITE_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// split makes the values of a text: for a list those between separators, empty
// ones left out.
func (o option) split(text string) []string {
	if !o.isList() {
		return []string{text}
	}
	var values []string
	for value := range strings.SplitSeq(text, o.separator) {
		if value = strings.TrimSpace(value); value != "" {
			values = append(values, value)
		}
	}
	return values
}

// isOf reports whether a node of a role decides it.
func (o option) isOf(role Role) bool { return o.isFor(role) && (!o.shared || role == Server) }

// Flags returns the flags of a role, to be parsed by the caller and then given
// to Load.
func Flags(role Role) *pflag.FlagSet {
	flags := pflag.NewFlagSet(string(role), pflag.ContinueOnError)
	flags.SortFlags = false
	for _, o := range optionsOf(role) {
		if !o.isOf(role) {
			continue
		}
		f := flags.VarPF(&flagValue{option: o}, o.name, o.short, o.usage)
		f.DefValue = o.def + o.found + o.empty
		if o.arg == "bool" {
			f.NoOptDefVal = "true" // the flag alone means true
		}
	}
	return flags
}

// flagValue keeps the text of flags. Load parses it together with all other sources, so
// that every error looks the same and none hides another.
type flagValue struct {
	option option
	texts  []string
}

// Set appends to a list; of other options the last value wins.
func (v *flagValue) Set(text string) error {
	if !v.option.isList() {
		v.texts = nil
	}
	v.texts = append(v.texts, v.option.split(text)...)
	return nil
}

func (v *flagValue) String() string { return strings.Join(v.texts, v.option.separator) }

// Type is shown in help after the flag.
func (v *flagValue) Type() string {
	switch v.option.separator {
	case commas:
		return v.option.arg + ",..."
	case lines:
		return v.option.arg + " ..."
	default:
		return v.option.arg
	}
}
