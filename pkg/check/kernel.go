package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

// feature is something that a node wants of the kernel.
type feature struct {
	name    string
	options []string // of its configuration, any of which will do
	module  string
	needed  bool   // no pod starts without it
	without string // what does not work
	path    string // there if the kernel has it
}

// wanted is what the parts of a node want of the kernel. What cannot be tried is
// looked up.
func (e *Env) wanted() []feature {
	all := []feature{
		{"bridge", []string{"BRIDGE"}, "bridge", true, "pods have no network", ""},
		{"veth", []string{"VETH"}, "veth", true, "pods have no network", ""},
		{"nftables", []string{"NF_TABLES"}, "nf_tables", false, "Services use iptables, and NetworkPolicies are not enforced", ""},
		{"iptables", []string{"NFT_COMPAT", "IP_NF_IPTABLES", "IP_NF_IPTABLES_LEGACY"}, "nft_compat", true, "packets of pods are neither forwarded nor masqueraded", ""},
		{"network namespaces", []string{"NET_NS"}, "", true, "pods have no network", "/proc/self/ns/net"},
		{"PID namespaces", []string{"PID_NS"}, "", true, "no container starts", "/proc/self/ns/pid"},
		{"IPC namespaces", []string{"IPC_NS"}, "", true, "no container starts", "/proc/self/ns/ipc"},
		{"UTS namespaces", []string{"UTS_NS"}, "", true, "no container starts", "/proc/self/ns/uts"},
		{"seccomp", []string{"SECCOMP_FILTER"}, "", true, "no container starts", "/proc/sys/kernel/seccomp"},
		{"limits of processor time", []string{"CFS_BANDWIDTH"}, "", false, "CPU limits are not enforced", ""},
	}
	for _, f := range probe.Features() {
		all = append(all, feature{f.Module, []string{strings.TrimPrefix(f.Option, "CONFIG_")}, f.Module, true, "pods have no network", f.Path})
	}
	switch e.Facts.Backend {
	case "vxlan":
		all = append(all, feature{"vxlan", []string{"VXLAN"}, "vxlan", true, "pods of other nodes are unreachable; or choose another --flannel-backend", ""})
	case "wireguard-native":
		all = append(all, feature{"wireguard", []string{"WIREGUARD"}, "wireguard", true, "pods of other nodes are unreachable; or choose another --flannel-backend", ""})
	}
	if e.Config != nil && !e.disabled(addon.KubeProxy) {
		if mode, _ := kube.Value(e.Config.KubeProxyArgs, "proxy-mode"); mode == "ipvs" {
			all = append(all, feature{"IPVS", []string{"IP_VS"}, "ip_vs", true, "Services lead nowhere; or omit --kube-proxy-arg proxy-mode", "/proc/net/ip_vs"})
		}
	}
	return all
}

// state of a feature.
type state int

const (
	unknown state = iota
	missing
	loadable // once its module is asked for
	present
)

// features tries what can be tried, and looks up the others where the kernel and its
// packages leave traces.
func features(ctx context.Context, e *Env) []Result {
	var results []Result
	tried := map[string]error{}
	if e.UID == 0 {
		tried = e.Kernel(ctx, e.Facts.Backend)
	}
	options, source := probe.Root(e.Root).KernelOptions(e.release())
	var unsure []string
	good := 0
	for _, f := range e.wanted() {
		s, how := present, ""
		if err, ok := tried[f.name]; ok {
			if err != nil {
				s, how = missing, err.Error()
			}
		} else {
			s, how = e.lookUp(f, options, source)
		}
		switch {
		case s == present || s == loadable:
			good++
		case s == unknown:
			unsure = append(unsure, f.name)
		default:
			remedy := "use a kernel built with CONFIG_" + f.options[0]
			var commands []string
			if f.module != "" {
				remedy = "`modprobe " + f.module + "`; some systems have it in a package of its own (linux-modules-extra-…); else " + remedy
				commands = []string{"modprobe " + f.module}
			}
			r := warn(fmt.Sprintf("no %s (%s): %s", f.name, how, f.without), remedy, commands...)
			if f.needed {
				r[0].Status = Fail
			}
			results = append(results, r...)
		}
	}
	if len(results) == 0 && good > 0 {
		how := "looked up in " + source
		if len(tried) > 0 {
			how = fmt.Sprintf("%d of them tried in a separate network namespace", len(tried))
		} else if source == "" {
			how = "by their traces in /proc and /sys"
		}
		results = pass(fmt.Sprintf("all %d that can be checked, %s", good, how))
	}
	if len(unsure) > 0 {
		why := "the kernel does not show how it was built (no /proc/config.gz, no /boot/config-*)"
		if e.UID != 0 {
			why = "only root can try them, and " + why
		}
		results = append(results, skip(strings.Join(unsure, ", ")+": "+why)...)
	}
	return results
}

// lookUp finds a feature by its traces, the surest first.
func (e *Env) lookUp(f feature, options map[string]string, source string) (state, string) {
	if f.path != "" && e.exists(f.path) {
		return present, f.path
	}
	if f.module != "" {
		if e.exists("/sys/module/" + f.module) {
			return present, "/sys/module/" + f.module
		}
		if probe.Root(e.Root).HasModule(e.release(), f.module) {
			return loadable, "module"
		}
	}
	if options == nil {
		if f.path != "" {
			return missing, "no " + f.path
		}
		return unknown, ""
	}
	for _, o := range f.options {
		switch options["CONFIG_"+o] {
		case "y":
			return present, source
		case "m":
			// Its module is in no list: it was not installed.
			if probe.Root(e.Root).Modules(e.release()) != "" {
				return missing, "its module is not installed"
			}
			return loadable, source
		}
	}
	return missing, source + " has no CONFIG_" + f.options[0]
}

// kmsg is where the kubelet reads about out-of-memory kills. It exits if it cannot open
// that (1.37), unless it runs in a user namespace.
const kmsg = "/dev/kmsg"

// kernelLog opens what the kubelet opens, and does not wait for who might write there.
func kernelLog(_ context.Context, e *Env) []Result {
	info, err := os.Stat(e.path(kmsg))
	if err == nil && info.Mode().Type() == fs.ModeNamedPipe {
		err = errors.New("it is a named pipe, and the kubelet would wait for somebody to write to it")
	}
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(e.path(kmsg), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0); err == nil {
			f.Close()
			return pass(kmsg + " can be read")
		}
	}
	var reason *fs.PathError
	if errors.As(err, &reason) {
		err = reason.Err
	}
	found := kmsg + ", the kernel's log, cannot be read: " + err.Error()
	switch {
	case denied(err) && e.UID != 0:
		return needsRoot(kmsg)
	case e.mapped():
		return warn(found+"; nothing reports it when the machine runs out of memory", "make it available in the container: "+letIn)
	case errors.Is(err, fs.ErrNotExist):
		return fail(found+"; the kubelet does not start without it",
			"in a container, make it available: "+letIn+"; on a machine, create it with `mknod -m 600 "+kmsg+" c 1 11`")
	}
	return fail(found+"; the kubelet does not start without it", "make it available in the container: "+letIn)
}

// letIn is how a container gets it. A link to /dev/console, which is often recommended,
// would swallow what is typed there, and systemd refuses it (kind#2913).
const letIn = "docker and podman with `--privileged` or `--device " + kmsg + "`, " +
	"LXC with `lxc.mount.entry = " + kmsg + " dev/kmsg none bind,create=file` and `lxc.cgroup2.devices.allow = c 1:11 rwm`"

// mapped reports whether root is another user outside, which the kubelet asks as well.
func (m *Machine) mapped() bool {
	users := strings.Fields(m.text("/proc/self/uid_map"))
	return len(users) > 0 && strings.Join(users, " ") != "0 0 4294967295"
}

// release is the kernel's, "" if unknown.
func (e *Env) release() string {
	u, err := e.Uname()
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// probeTable is what kube-proxy and the network policies ask of nftables.
const probeTable = `table ip probe {
	map services { type ipv4_addr . inet_proto . inet_service : verdict; }
	set pods { type ipv4_addr; flags interval; }
	chain before { type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @services; }
	chain after { type nat hook postrouting priority 100; meta mark & 0x4000 != 0 masquerade fully-random; }
	chain between { type filter hook forward priority 0; ct state established accept; ip saddr @pods fib daddr type local reject; }
	chain choose { numgen random mod 2 vmap { 0 : drop, 1 : accept }; }
}
`

// tryKernel creates what a node creates, in a temporary network namespace. The kernel loads
// the modules for it, as it would for the node.
func tryKernel(ctx context.Context, backend string) map[string]error {
	done := make(chan map[string]error)
	go func() {
		// The thread ends with the goroutine, and the namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- map[string]error{"network namespaces": err}
			return
		}
		tried := map[string]error{"network namespaces": nil}
		for kind, link := range map[string]netlink.Link{
			"bridge":    &netlink.Bridge{LinkAttrs: named("probe-br")},
			"veth":      &netlink.Veth{LinkAttrs: named("probe-a"), PeerName: "probe-b"},
			"vxlan":     &netlink.Vxlan{LinkAttrs: named("probe-vx"), VxlanId: 1, Port: layout.VXLANPort},
			"wireguard": &netlink.Wireguard{LinkAttrs: named("probe-wg")},
		} {
			if kind == "vxlan" && backend != "vxlan" || kind == "wireguard" && backend != "wireguard-native" {
				continue
			}
			tried[kind] = netlink.LinkAdd(link)
		}
		for name, try := range map[string]func() error{
			"nftables": func() error { return tryRun(ctx, probeTable, "nft", "-f", "-") },
			"iptables": func() error {
				return errors.Join(
					tryRun(ctx, "", "iptables", "-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "probe", "!", "-d", "224.0.0.0/4", "-j",
						"MASQUERADE", "--random-fully"),
					tryRun(ctx, "", "iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-m", "mark", "--mark", "1",
						"-j", "ACCEPT"))
			},
		} {
			if err := try(); !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
				tried[name] = err
			}
		}
		done <- tried
	}()
	return <-done
}

func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// tryRun runs a program on this thread, and so in its network.
func tryRun(ctx context.Context, stdin, program string, args ...string) error {
	_, err := run(ctx, stdin, program, args...)
	return err
}
