// Package layout says what lite owns on a machine and in a cluster, and what it is called: paths, sockets,
// ports, chains, devices, labels, names of objects. Whoever makes such a thing, finds it again, checks it or
// removes it asks here, so that the maker and uninstall cannot disagree. Nobody else spells one; a test in the
// root of the module fails for a package that does.
//
// Paths follow from a few roots:
//
//	l := layout.New(layout.Roots{Data: "/srv/lite", Run: "/run/lite", Config: "/etc/lite"})
//	l.Data.Lock()              // /srv/lite/lite.lock
//	l.Data.Agent().Images()    // /srv/lite/agent/images
//	l.Run.Containerd().Socket() // /run/lite/containerd/containerd.sock
//
// A [Layout] is complete when it is made, and touches nothing. Another instance, a test, or one without root
// has other roots and so another Layout. Each directory is a type of its own over string, so who knows only a
// data directory says layout.Data(dir).Lock(). [Default] is the Layout of a machine whose user has said
// nothing; it is for defaults, and for what has to be found before a configuration can be read.
//
// What does not lie in a directory is a constant: names in the kernel and in the cluster, which all nodes of
// all clusters share. Two instances on one machine would need namespaces of their own in any case.
//
// It ends at the door of a directory whose inside is one package's alone: what etcd has in server/etcd, which
// certificates there are (package pki), what is kept aside (package backup).
package layout

import "path/filepath"

// Roots is the directories that an instance of lite is given.
type Roots struct {
	Data   string // what a node keeps
	Run    string // what a reboot makes worthless
	Config string // what a user says, and what is installed
}

// Layout is where an instance of lite has what.
type Layout struct {
	Data   Data
	Run    Run
	Config Config
	Host   Host
}

// New makes the layout of an instance.
func New(r Roots) Layout {
	return Layout{Data: Data(r.Data), Run: Run(r.Run), Config: Config(r.Config), Host: host()}
}

// Default is the layout of a machine whose user has named no directory.
func Default() Layout {
	return New(Roots{Data: "/var/lib/lite", Run: "/run/lite", Config: "/etc/lite"})
}

// Service is what init systems call lite, and cgroups of theirs.
const Service = "lite"

// Host is what lite has in directories of the machine's, and what Kubernetes prescribes
// the places of.
type Host struct {
	Kubelet       string // volumes of pods, sockets of the kubelet; --root-dir of the kubelet
	PodLogs       string
	ContainerLogs string // links to those
	CNI           string // results of CNI plugins, as the CNI library keeps them
	CNIConf       string // where other network plugins than lite's are described
	CNIPlugins    string // and where they are

	AuditLog       string // by default
	SystemdUnit    string
	SystemdWanted  string // link: the unit starts at boot
	SystemdScopes  string // how long systemd gives containers
	OpenRCScript   string
	OpenRCRunlevel string // link: the script starts at boot
	OpenRCLog      string
	Logrotate      string // of that log
	BashCompletion string
	ZshCompletion  string
	FishCompletion string
	Sysctl         string // what lite check --fix sets
	NetworkManager string // what lite check --fix tells it
}

func host() Host {
	return Host{
		Kubelet:       "/var/lib/kubelet",
		PodLogs:       "/var/log/pods",
		ContainerLogs: "/var/log/containers",
		CNI:           "/var/lib/cni",
		CNIConf:       "/etc/cni/net.d",
		CNIPlugins:    "/opt/cni/bin",

		AuditLog:       "/var/log/lite/audit.log",
		SystemdUnit:    "/etc/systemd/system/" + Service + ".service",
		SystemdWanted:  "/etc/systemd/system/multi-user.target.wants/" + Service + ".service",
		SystemdScopes:  "/etc/systemd/system/cri-containerd-.scope.d/50-lite.conf",
		OpenRCScript:   "/etc/init.d/" + Service,
		OpenRCRunlevel: "/etc/runlevels/default/" + Service,
		OpenRCLog:      "/var/log/" + Service + ".log",
		Logrotate:      "/etc/logrotate.d/" + Service,
		BashCompletion: "/usr/share/bash-completion/completions/lite",
		ZshCompletion:  "/usr/share/zsh/vendor-completions/_lite",
		FishCompletion: "/usr/share/fish/vendor_completions.d/lite.fish",
		Sysctl:         "/etc/sysctl.d/90-lite.conf",
		NetworkManager: "/etc/NetworkManager/conf.d/lite.conf",
	}
}

// TemporaryPrefix begins the names of what is there for a moment.
const TemporaryPrefix = ".lite-"

// Script is what a command of lite's is called that the installer puts beside the program.
func Script(command string) string { return "lite-" + command + ".sh" }

// ToolLinks is the names of others' tools that the installer gives lite as links, where nobody else has them.
func ToolLinks() []string { return []string{"kubectl", "crictl", "ctr"} }

// Staged is where a program waits beside the one that it is to replace.
func Staged(program string) string {
	return filepath.Join(filepath.Dir(program), "."+filepath.Base(program)+".upgrade")
}
