// Package config is what a user can set for a node, and the defaults. It reads flags,
// environment and YAML into one immutable value, validated before any side effect.
//
// All options are rows of one table, in option.go. Flags, environment variables, YAML keys,
// the printed configuration and the reference are generated from it, so that they cannot
// differ.
package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/layout"
)

// Role is what a node does in its cluster.
type Role string

// A server runs the control plane and all that an agent runs.
const (
	Server Role = "server"
	Agent  Role = "agent"
)

// ProfileCIS is the profile with settings that the CIS benchmark asks for but many programs
// do not tolerate, so that they are not the default.
const ProfileCIS = "cis"

// Config is complete and valid once Load has returned it, and never changes. The fields of
// options for servers are zero on an agent. What the whole cluster shares is not among the
// fields: see Propose and Contradicts.
type Config struct {
	Role       Role
	DataDir    string // absolute and clean, as are all paths but ConfigFile
	ConfigFile string // as it was given, perhaps relative or missing

	ServerURL string // https://host:port of a server to join; "" = as the token says
	Token     string // secret; "" = none was given
	TokenFile string
	// TokenNodesPerHour is how many nodes each token may admit; 0 = unlimited.
	TokenNodesPerHour int

	ResetToSingle bool // once, while it is set

	LogLevel  slog.Level
	LogFormat string // text or json

	NodeName   string
	NodeIP     []netip.Addr // one or two, of different families; the first is the primary one
	Standby    bool         // the machine has no network: nobody has the addresses in NodeIP, not even this machine
	NodeLabels []string     // key=value
	NodeTaints []string     // key=value:Effect or key:Effect

	BindAddress      netip.Addr
	AdvertiseAddress netip.Addr
	HTTPSListenPort  int
	TLSSANs          []string

	FlannelIface string // "" = the one that has the node's address

	WriteKubeconfig     string
	WriteKubeconfigMode fs.FileMode

	// DatastoreEndpoint may hold a password; "" = the embedded etcd. Its kind is a fact of the cluster.
	DatastoreEndpoint string
	DatastoreCAFile   string
	DatastoreCertFile string
	DatastoreKeyFile  string

	// What the user adds to the arguments of a component: "key=value" without
	// leading dashes, in the order given, the value may hold "=" and ",".
	APIServerArgs         []string
	ControllerManagerArgs []string
	SchedulerArgs         []string
	EtcdArgs              []string
	EtcdExposeMetrics     bool
	KubeletArgs           []string
	KubeProxyArgs         []string

	LocalStoragePath         string // of the node's volumes; may be missing
	PreferBundledBin         bool   // iptables and nft
	PrivateRegistry          string // may be missing
	ContainerRuntimeEndpoint string // "" = the embedded containerd, otherwise unix:///path

	AuditLogPath    string // "" = no audit log
	AuditPolicyFile string // "" = lite's own

	Profile string // of this node: ProfileCIS, or "" for lite's defaults

	// cluster is what is configured for the cluster: all values on a server, only
	// expectations on an agent. These are not facts.
	cluster  cluster.Facts
	received bool // cluster comes from the cluster

	sources map[string]string // option name -> where its value comes from
}

// Error is one thing that is wrong with a configuration. Load and Check return
// errors that join all they found; errors.As finds the first.
type Error struct {
	Key     string // the option, as flags and YAML name it
	Value   string // the value; of a list, the element that is wrong
	Source  string // flag, environment variable, file and line, or default
	Problem string // continues a sentence that starts with the key
	Remedy  string // what the user can do, in the imperative
}

// credentials are a user and a password in front of a host.
var credentials = regexp.MustCompile(`^((?:.*//)?)[^/]*:.*@`)

// Error is one line, whatever a file contains. It appears in logs, so it never has a password from a
// URL.
func (e *Error) Error() string {
	line := fmt.Sprintf("%s %q (%s): %s; %s", e.Key, credentials.ReplaceAllString(e.Value, "${1}xxxxx@"), e.Source, e.Problem, e.Remedy)
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, line)
}

// NamesNodeIP reports whether the user has set the node's addresses, so that lite does not
// find them itself.
func (c *Config) NamesNodeIP() bool { return !strings.HasPrefix(c.sources["node-ip"], "default") }

// Layout is the paths of the node.
func (c *Config) Layout() layout.Layout {
	l := layout.Default()
	l.Data = layout.Data(c.DataDir)
	return l
}
