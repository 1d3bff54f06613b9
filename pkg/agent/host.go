package agent

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/probe"
)

// Host is what the machine is like, as far as a node has to adapt to it.
type Host struct {
	// Systemd is PID 1 and manages cgroups.
	Systemd bool
	// Limited is a root without CAP_SYS_RESOURCE, as in some containers: it
	// may not lower oom_score_adj.
	Limited bool
	// Addresses finds what the node's addresses would be if it were started now, or
	// why it would not start; nil if the user has named them.
	Addresses func() ([]netip.Addr, error)
	// NFTables means that program and kernel can carry Services and hostPorts with
	// nftables; otherwise iptables does. Package netfilter finds out.
	NFTables bool
}

// Inspect inspects the machine, and returns an error about what a node cannot do without.
func Inspect() (Host, error) {
	if os.Geteuid() != 0 {
		return Host{}, errors.New("must run as root; try `sudo lite server`")
	}
	h := Host{Systemd: probe.HasSystemd(), Limited: !probe.This.HasCapability(unix.CAP_SYS_RESOURCE)}
	return h, errors.Join(probe.This.CheckCgroups(), probe.LoadFeatures())
}

// Watches is how many inotify instances the parts of a node open; a server has
// ServerWatches, most of them for files of the API server (1.37). To ask for more would
// refuse a restart on a machine that has room for what ran before.
const (
	Watches       = 11
	ServerWatches = 28
)

// CheckRuntime finds mistakes in the files that configure containerd.
func CheckRuntime(c *config.Config) error {
	err := containerd.CheckRegistries(c.PrivateRegistry)
	if c.ContainerRuntimeEndpoint == "" {
		err = errors.Join(err, containerd.CheckDropIns(c.Layout().Data.Agent().Containerd()), containerd.CheckDevices("/"))
	}
	return err
}
