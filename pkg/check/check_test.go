package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/host/probe"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/status"
)

var (
	now     = time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)
	absent  = func(string) (string, error) { return "", exec.ErrNotFound }
	stopped = func(context.Context) (status.Node, error) { return status.Node{}, errors.New("lite is not running") }
)

// bed is a machine that a test changes, and what it asks of it.
type bed struct {
	*Machine
	Subject
	facts cluster.Facts // of the cluster whose server it is
	files map[string]string
	links map[string]string
	// answers is the output of programs, by their whole command line. A program without an
	// answer is missing.
	answers map[string]string
	byPath  map[string]string // the output of a program that is called by its path, by its arguments
	ran     []string
	pipe    string // a named pipe, "" = none
}

// healthy is a machine that has nothing in the way: a server before its first start.
func healthy(t testing.TB) *bed {
	b := &bed{
		files: map[string]string{
			"/proc/meminfo":                                "MemTotal:        4028332 kB\n",
			"/dev/kmsg":                                    "",
			"/proc/self/uid_map":                           "         0          0 4294967295\n",
			"/proc/self/status":                            "NSpid:\t1\nCapEff:\t000001ffffffffff\n",
			"/proc/swaps":                                  "Filename Type Size Used Priority\n",
			"/proc/filesystems":                            "nodev overlay\n",
			"/proc/self/mountinfo":                         "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
			"/proc/sys/fs/inotify/max_user_watches":        "65536\n",
			"/proc/sys/fs/inotify/max_user_instances":      "1024\n",
			"/proc/sys/fs/file-nr":                         "1000 0 100000\n",
			"/proc/sys/net/bridge/bridge-nf-call-iptables": "1\n",
			"/proc/sys/net/netfilter/nf_conntrack_max":     "65536\n",
			"/proc/net/tcp":                                socketHead,
			"/proc/net/udp":                                socketHead,
			"/sys/fs/cgroup/cgroup.controllers":            "cpuset cpu io memory pids\n",
			"/etc/resolv.conf":                             "nameserver 192.0.2.53\n",
			"/boot/config-6.1.0-18-amd64":                  kernelConfig,
			"/var/lib/dpkg/status":                         "",
		},
		links: map[string]string{},
		answers: map[string]string{
			"iptables --version":      "iptables v1.8.9 (nf_tables)\n",
			"iptables -w 5 -S":        "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n",
			"nft -j list ruleset":     `{"nftables": [{"metainfo": {"version": "1.0.6"}}]}`,
			"iptables -w 5 -t nat -S": "-P PREROUTING ACCEPT\n",
		},
	}
	b.Machine = &Machine{
		Layout: layout.Default(), Arch: "amd64", CPUs: 2, Now: func() time.Time { return now },
		Find: absent,
		Run: func(_ context.Context, _, program string, args ...string) (string, error) {
			command := strings.Join(append([]string{program}, args...), " ")
			b.ran = append(b.ran, command)
			answer, ok := b.answers[command]
			if filepath.IsAbs(program) {
				answer, ok = b.byPath[strings.Join(args, " ")]
			}
			switch {
			case !ok:
				return "", fmt.Errorf("%s: %w", program, exec.ErrNotFound)
			case strings.HasPrefix(answer, "error: "):
				return "", errors.New(answer)
			}
			return answer, nil
		},
		Statfs: func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Bsize: 4096, Blocks: 10 << 20, Bavail: 5 << 20, Files: 1000, Ffree: 500}, nil
		},
		Uname:          uname("6.1.0-18-amd64", "node-a"),
		Interfaces:     interfacesOf("192.0.2.10/24"),
		Tables:         func() ([]string, error) { return nil, nil },
		Detours:        func() ([]Detour, error) { return nil, nil },
		Dial:           func(context.Context, string) error { return nil },
		Unsynchronised: func() (string, error) { return "", nil },
		Random:         func() bool { return true },
		OpenFiles:      func() (uint64, error) { return 1 << 20, nil },
		Kernel: func(context.Context, string) map[string]error {
			return map[string]error{"bridge": nil, "veth": nil, "vxlan": nil, "nftables": nil, "iptables": nil, "network namespaces": nil}
		},
		Overlay: func(string) error { return nil },
		Sync: func(context.Context, string) ([]time.Duration, error) {
			return []time.Duration{time.Millisecond, 2 * time.Millisecond}, nil
		},
		Status: stopped,
		Claim:  func(string, string) error { return nil },
		Tools: func(context.Context, *config.Config) netfilter.Tools {
			own := netfilter.Tool{Source: netfilter.Machine, Path: "/usr/sbin/nft"}
			return netfilter.Tools{NFT: own, IPTables: own}
		},
	}
	b.facts = config.StandardFacts()
	b.Cluster = func(*config.Config) (cluster.Facts, error) { return b.facts, nil }
	nothing := func(*config.Config) error { return nil }
	b.Fits, b.Room, b.Watches, b.Files, b.Ports, b.Networks = nothing, nothing, nothing, nothing, nothing, nothing
	b.Role, b.Version, b.Built = config.Server, "v1.0.0", now.Add(-time.Hour)
	b.Config = &config.Config{
		Role: config.Server, DataDir: "/var/lib/lite", NodeName: "node-a", NodeIP: []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		BindAddress: netip.IPv4Unspecified(), HTTPSListenPort: 6443,
		PrivateRegistry: "/etc/lite/registries.yaml",
	}
	return b
}

const (
	socketHead   = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	kernelConfig = "CONFIG_BRIDGE=m\nCONFIG_CFS_BANDWIDTH=y\nCONFIG_SECCOMP_FILTER=y\nCONFIG_PID_NS=y\nCONFIG_IPC_NS=y\nCONFIG_UTS_NS=y\n" +
		"CONFIG_NET_NS=y\nCONFIG_VETH=m\nCONFIG_NF_TABLES=m\nCONFIG_NFT_COMPAT=m\nCONFIG_VXLAN=m\n# CONFIG_WIREGUARD is not set\n"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, p := range texts {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func uname(release, name string) func() (unix.Utsname, error) {
	var u unix.Utsname
	copy(u.Release[:], release)
	copy(u.Nodename[:], name)
	copy(u.Machine[:], "x86_64")
	return func() (unix.Utsname, error) { return u, nil }
}

func interfacesOf(addresses ...string) func() ([]probe.Interface, error) {
	return func() ([]probe.Interface, error) {
		return []probe.Interface{{Name: "eth0", Addrs: prefixes(addresses...)}}, nil
	}
}

// run writes the files and makes all checks.
func (b *bed) run(t *testing.T) Report {
	t.Helper()
	b.write(t)
	return Run(t.Context(), b.Machine, b.Subject)
}

// write writes the files.
func (b *bed) write(t testing.TB) {
	t.Helper()
	b.Root = t.TempDir()
	for name, content := range b.files {
		file := filepath.Join(b.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if b.pipe != "" {
		file := filepath.Join(b.Root, b.pipe)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), unix.Mkfifo(file, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range b.links {
		file := filepath.Join(b.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(target, file)); err != nil {
			t.Fatal(err)
		}
	}
}

// process makes one run.
func (b *bed) process(pid int, name string, args ...string) {
	dir := fmt.Sprintf("/proc/%d", pid)
	b.files[dir+"/comm"] = name + "\n"
	b.files[dir+"/cmdline"] = strings.Join(append([]string{name}, args...), "\x00") + "\x00"
}

// listen makes a process have a socket.
func (b *bed) listen(file, address, state, inode string, pid int, name string) {
	b.files["/proc/net/"+file] += fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %s 1 0 100 0 0 10 0\n", address, state, inode)
	if pid != 0 {
		b.process(pid, name)
		b.links[fmt.Sprintf("/proc/%d/fd/3", pid)] = "socket:[" + inode + "]"
	}
}

func (b *bed) agent() {
	b.Role = config.Agent
	b.Config = &config.Config{Role: config.Agent, DataDir: "/var/lib/lite", NodeName: "node-a", NodeIP: b.Config.NodeIP, PrivateRegistry: b.Config.PrivateRegistry}
}

// agentOf is an agent's configuration by environment.
func agentOf(t *testing.T, env ...string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("node-name: node-a\nnode-ip: 192.0.2.10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Agent, config.Flags(config.Agent), append(env, "LITE_CONFIG="+file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run by a lite whose parts are as they are.
func (b *bed) lite(pid int, parts ...status.Component) {
	b.process(pid, "lite", "server")
	b.Status = func(context.Context) (status.Node, error) {
		return status.Node{Role: "server", Name: "node-a", Version: "v1.0.0", PID: pid, Components: parts}, nil
	}
}

func TestHealthyMachinePasses(t *testing.T) {
	for name, change := range map[string]func(*bed){"server": func(*bed) {}, "agent": func(b *bed) {
		b.agent()
		b.Config.ServerURL = "https://192.0.2.1:6443"
	}} {
		t.Run(name, func(t *testing.T) {
			b := healthy(t)
			change(b)
			r := b.run(t)
			if r.Result != Pass {
				t.Errorf("result %s", r.Result)
			}
			var names []string
			for _, c := range r.Checks {
				names = append(names, c.Name)
				if c.Status != Pass && !(c.Name == "node" && c.Status == Skip) {
					t.Errorf("%s %s: %s", c.Status, c.Name, c.Found)
				}
			}
			for _, c := range checks {
				if (c.only == "" || c.only == b.Role) != slices.Contains(names, c.name) {
					t.Errorf("row %s: there is %t", c.name, slices.Contains(names, c.name))
				}
			}
		})
	}
}

// What lets every part get ready and no pod start is refused at the start, and what a
// node runs in spite of is not.
func TestStartRefusesWhatKeepsPodsFromRunning(t *testing.T) {
	without := func(option string) map[string]string {
		return map[string]string{"/boot/config-6.1.0-18-amd64": strings.Replace(kernelConfig, option+"\n", "", 1)}
	}
	lacking := func(what string) func(*bed) {
		return func(b *bed) {
			b.Kernel = func(context.Context, string) map[string]error {
				return map[string]error{"network namespaces": nil, what: errors.New("operation not supported")}
			}
		}
	}
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*bed)
		want   string // "" = it starts
	}{
		"a healthy machine":           {nil, nil, ""},
		"noexec":                      {mounts("rw,noexec", "ext4"), nil, "mounted noexec: lite's helper programs cannot run there; mount it without noexec"},
		"no owners":                   {mounts("rw", "vfat"), nil, "which has no owners and modes; choose a --data-dir on ext4 or xfs"},
		"set read-only by the kernel": {map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 ro,errors=remount-ro\n"}, nil, "which the kernel has made read-only"},
		"elsewhere":                   {mounts("rw", "nfs4"), nil, ""},
		"in memory":                   {mounts("rw", "tmpfs"), nil, ""},
		"volumes read-only":           {map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:2 / /var/lib/kubelet ro - ext4 /dev/sda2 rw\n", "/var/lib/kubelet/x": ""}, nil, "/var/lib/kubelet is on /var/lib/kubelet (ext4), mounted read-only"},
		"volumes noexec":              {map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:2 / /var/lib/kubelet rw,noexec - ext4 /dev/sda2 rw\n", "/var/lib/kubelet/x": ""}, nil, ""},
		"in a container":              {map[string]string{"/proc/self/status": "CapEff:\t00000000a80425fb\n"}, nil, "root without CAP_SYS_ADMIN and CAP_NET_ADMIN"},
		"an old kernel":               {nil, func(b *bed) { b.Uname = uname("4.4.0-21-generic", "node-a") }, "Linux 4.4.0-21-generic; Kubernetes needs at least 4.19"},
		"a kernel without bridges":    {without("CONFIG_BRIDGE=m"), lacking("bridge"), "no bridge (operation not supported): pods have no network"},
		"a kernel that does not know": {without("CONFIG_BRIDGE=m"), nil, ""},
		"without VXLAN":               {without("CONFIG_VXLAN=m"), lacking("vxlan"), "pods of other nodes are unreachable"},
		"without VXLAN, not needed":   {without("CONFIG_VXLAN=m"), func(b *bed) { lacking("vxlan")(b); b.facts.Backend = "host-gw" }, ""},
		"without IPVS":                {nil, func(b *bed) { b.Config.KubeProxyArgs = []string{"proxy-mode=ipvs"} }, "Services lead nowhere"},
		"without IPVS, not asked for": {nil, func(b *bed) { b.Config.KubeProxyArgs = []string{"proxy-mode=ipvs", "proxy-mode=nftables"} }, ""},
		"with IPVS":                   {map[string]string{"/proc/net/ip_vs": ""}, func(b *bed) { b.Config.KubeProxyArgs = []string{"proxy-mode=ipvs"} }, ""},
		"without VXLAN, not joined":   {without("CONFIG_VXLAN=m"), func(b *bed) { b.agent(); lacking("vxlan")(b) }, ""},
		"without seccomp":             {without("CONFIG_SECCOMP_FILTER=y"), nil, "no seccomp"},
		"without the kernel's log":    {nil, func(b *bed) { delete(b.files, kmsg) }, "/dev/kmsg, the kernel's log, cannot be read: no such file or directory; the kubelet does not start without it; in a container, make it available: "},
		"a pipe as the kernel's log":  {nil, func(b *bed) { delete(b.files, kmsg); b.pipe = kmsg }, "it is a named pipe"},
		"the kernel's log is a loop":  {nil, func(b *bed) { delete(b.files, kmsg); b.links[kmsg] = "kmsg" }, "too many levels of symbolic links; the kubelet does not start without it; make it available in the container"},
		"hardly any open files":       {nil, func(b *bed) { b.OpenFiles = func() (uint64, error) { return 1023, nil } }, "1023 for each process; a server opens more before it is ready, and then waits forever; raise it"},
		"few open files":              {nil, func(b *bed) { b.OpenFiles = func() (uint64, error) { return 1024, nil } }, ""},
		"an agent with few of them":   {nil, func(b *bed) { b.agent(); b.OpenFiles = func() (uint64, error) { return 512, nil } }, ""},
		"without it, root of users":   {map[string]string{"/proc/self/uid_map": "0 100000 65536\n"}, func(b *bed) { delete(b.files, kmsg) }, ""},
		"a network of the user's":     {without("CONFIG_BRIDGE=m"), func(b *bed) { lacking("bridge")(b); b.facts.Disable = addon.Disabled{addon.CNI} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := healthy(t)
			maps.Copy(b.files, c.files)
			if c.change != nil {
				c.change(b)
			}
			b.write(t)
			err := vital(t.Context(), startEnv(b.Machine, b.Config))
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "; ")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestFindings changes one thing of a healthy machine each.
func TestFindings(t *testing.T) {
	swapped := func(device string) map[string]string {
		return map[string]string{"/proc/swaps": "Filename Type Size Used Priority\n" + device + " partition 1048576 0 -2\n"}
	}
	for name, c := range map[string]struct {
		files  map[string]string
		change func(*bed)
		row    string
		want   Status
		words  []string
	}{
		// lite itself
		"not root":            {nil, func(b *bed) { b.UID = 1000 }, "user", Skip, []string{"user 1000 is not root", "sudo lite check"}},
		"root in a container": {map[string]string{"/proc/self/status": "CapEff:\t00000000a80425fb\n"}, nil, "user", Fail, []string{"CAP_SYS_ADMIN and CAP_NET_ADMIN", "--privileged"}},
		"installed, stopped":  {map[string]string{"/etc/lite/installed": "/usr/local/bin/lite\n"}, nil, "node", Warn, []string{"not running", "systemctl start lite"}},
		"a part has failed": {nil, func(b *bed) {
			b.lite(7, status.Component{Name: "etcd", State: component.Failed, Reason: "alarm NOSPACE"})
		}, "node", Fail, []string{"etcd is failed: alarm NOSPACE"}},
		"a part starts":   {nil, func(b *bed) { b.lite(7, status.Component{Name: "dns", State: component.Starting, Reason: "waiting"}) }, "node", Warn, []string{"dns is starting"}},
		"all ready":       {nil, func(b *bed) { b.lite(7, status.Component{Name: "etcd", State: component.Ready}) }, "node", Pass, []string{"all 1 components are ready", "pid 7"}},
		"cannot be asked": {nil, func(b *bed) { b.UID = 1000; b.process(7, "lite", "server") }, "node", Skip, []string{"pid 7"}},
		"wrong configuration": {nil, func(b *bed) {
			b.Config, b.Wrong = nil, errors.Join(&config.Error{Key: "node-ip", Value: "x", Source: "flag --node-ip", Problem: "is no address", Remedy: "say one"})
		}, "configuration", Fail, []string{`node-ip "x" (flag --node-ip): is no address`, "say one"}},
		"refused arguments": {nil, func(b *bed) {
			b.Refused = errors.New(`kubelet-arg "config=/k": unknown field "maxPodz"; correct the file`)
		}, "configuration", Fail, []string{`kubelet-arg "config=/k": unknown field "maxPodz"`, "correct the file"}},
		"an agent of other ranges": {map[string]string{"/var/lib/lite/agent/cluster.json": `{"facts":{"clusterCIDR":["10.60.0.0/16"],"serviceCIDR":["10.61.0.0/16"],"clusterDomain":"cluster.local"}}`}, func(b *bed) {
			b.agent()
			b.Config = agentOf(t, "LITE_CLUSTER_CIDR=10.62.0.0/16", "LITE_SERVICE_CIDR=10.61.0.0/16", "LITE_DISABLE=dns")
		}, "configuration", Fail, []string{`cluster-cidr "10.62.0.0/16" (environment LITE_CLUSTER_CIDR), but the cluster has "10.60.0.0/16"; disable "dns"`, "remove these settings"}},
		"an agent that expects them": {nil, func(b *bed) {
			b.agent()
			b.Config = agentOf(t, "LITE_CLUSTER_CIDR=10.62.0.0/16")
		}, "configuration", Pass, []string{"it has not joined yet"}},
		"unread": {nil, func(b *bed) { b.Unread = "/etc/lite/config.yaml" }, "configuration", Skip, []string{"only root can read /etc/lite/config.yaml"}},
		"newer data": {map[string]string{"/var/lib/lite/version": "v9.0.0\n"}, func(b *bed) {
			b.Claim = func(string, string) error {
				return errors.New("data-dir /var/lib/lite was last used by lite v9.0.0; use that version")
			}
		}, "data directory", Fail, []string{"v9.0.0", "use that version"}},
		"data of a server": {map[string]string{"/var/lib/lite/version": "v1.0.0\n"}, func(b *bed) {
			b.Fits = func(*config.Config) error { return errors.New("holds a server; start it with `lite server`") }
		}, "data directory", Fail, []string{"holds a server"}},
		"data of this one":    {map[string]string{"/var/lib/lite/version": "v1.0.0\n"}, nil, "data directory", Pass, []string{"last used by lite v1.0.0"}},
		"drop-in of Docker's": {map[string]string{"/var/lib/lite/agent/containerd/config.toml.d/d.toml": "disabled_plugins = ['cri']\n"}, nil, "containerd", Fail, []string{"config.toml.d/d.toml", "without which no pod runs", "remove it there"}},
		"a drop-in":           {map[string]string{"/var/lib/lite/agent/containerd/config.toml.d/d.toml": "version = 2\n"}, nil, "containerd", Pass, []string{"config.toml.d/d.toml"}},
		"broken registries":   {map[string]string{"/etc/lite/registries.yaml": "mirrors: ["}, nil, "registries", Fail, []string{"registries.yaml", "docs/registries.md"}},

		// the machine
		"another processor":      {nil, func(b *bed) { b.Arch = "arm" }, "processor", Warn, []string{"amd64 and arm64"}},
		"one processor":          {nil, func(b *bed) { b.CPUs = 1 }, "processor", Warn, []string{"1 of x86_64"}},
		"one, for an agent":      {nil, func(b *bed) { b.CPUs = 1; b.agent() }, "processor", Pass, nil},
		"256 MB":                 {map[string]string{"/proc/meminfo": "MemTotal: 250000 kB\n"}, nil, "memory", Fail, []string{"244.1 MiB", "353 MB", "512 MiB"}},
		"half a GiB":             {map[string]string{"/proc/meminfo": "MemTotal: 500000 kB\n"}, nil, "memory", Warn, []string{"1 GiB is comfortable"}},
		"half a GiB, an agent":   {map[string]string{"/proc/meminfo": "MemTotal: 500000 kB\n"}, (*bed).agent, "memory", Pass, []string{"157 MB"}},
		"no meminfo":             {map[string]string{"/proc/meminfo": ""}, nil, "memory", Skip, nil},
		"an old kernel":          {nil, func(b *bed) { b.Uname = uname("4.18.0-553.el8", "node-a") }, "kernel", Fail, []string{"4.18", "4.19"}},
		"a kernel without all":   {nil, func(b *bed) { b.Uname = uname("5.10.0-28", "node-a") }, "kernel", Warn, []string{"5.13"}},
		"no log of the kernel":   {nil, func(b *bed) { delete(b.files, kmsg) }, "kernel log", Fail, []string{"the kubelet does not start without it", "lxc.mount.entry", "mknod -m 600 /dev/kmsg c 1 11"}},
		"no log, root of users":  {map[string]string{"/proc/self/uid_map": "0 100000 65536\n"}, func(b *bed) { delete(b.files, kmsg) }, "kernel log", Warn, []string{"runs out of memory", "lxc.mount.entry"}},
		"a link as the log":      {nil, func(b *bed) { delete(b.files, kmsg); b.links[kmsg] = "null"; b.files["/dev/null"] = "" }, "kernel log", Pass, nil},
		"odd release":            {nil, func(b *bed) { b.Uname = uname("custom", "node-a") }, "kernel", Skip, nil},
		"no vxlan, tried":        {nil, func(b *bed) { b.Kernel = kernelWith("vxlan", errors.New("operation not supported")) }, "kernel features", Fail, []string{"no vxlan (operation not supported)", "modprobe vxlan", "--flannel-backend", "CONFIG_VXLAN"}},
		"no nftables, tried":     {nil, func(b *bed) { b.Kernel = kernelWith("nftables", errors.New("not supported")) }, "kernel features", Warn, []string{"no nftables"}},
		"a probe beats a file":   {map[string]string{"/boot/config-6.1.0-18-amd64": kernelConfig + "# CONFIG_VETH is not set\nCONFIG_VETH=n\n"}, nil, "kernel features", Pass, []string{"tried"}},
		"no wireguard":           {nil, func(b *bed) { b.facts.Backend = "wireguard-native" }, "kernel features", Fail, []string{"no wireguard (/boot/config-6.1.0-18-amd64 has no CONFIG_WIREGUARD)"}},
		"no conntrack":           {nil, func(b *bed) { delete(b.files, "/proc/sys/net/netfilter/nf_conntrack_max") }, "kernel features", Fail, []string{"no nf_conntrack"}},
		"conntrack, as a module": {map[string]string{"/lib/modules/6.1.0-18-amd64/modules.dep": "kernel/net/netfilter/nf-conntrack.ko.xz: kernel/lib/libcrc32c.ko.xz\n"}, func(b *bed) { delete(b.files, "/proc/sys/net/netfilter/nf_conntrack_max") }, "kernel features", Pass, nil},
		"a module not installed": {map[string]string{"/lib/modules/6.1.0-18-amd64/modules.dep": "kernel/x.ko:\n"}, func(b *bed) { b.Kernel = noKernel }, "kernel features", Fail, []string{"its module is not installed", "linux-modules-extra"}},
		"a kernel that is mute":  {nil, func(b *bed) { delete(b.files, "/boot/config-6.1.0-18-amd64"); b.UID = 1000 }, "kernel features", Skip, []string{"bridge", "only root can try them", "/proc/config.gz"}},
		"Raspberry Pi":           {map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n", "/boot/firmware/cmdline.txt": "console=serial0\n"}, nil, "cgroups", Fail, []string{"memory is missing", "/boot/firmware/cmdline.txt", "cgroup_enable=memory"}},
		"older Raspberry Pi":     {map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n", "/boot/cmdline.txt": "console=serial0\n"}, nil, "cgroups", Fail, []string{"of /boot/cmdline.txt"}},
		"no nf_tables": {nil, func(b *bed) {
			b.Tools = func(context.Context, *config.Config) netfilter.Tools {
				return netfilter.Tools{NFT: netfilter.Tool{Source: netfilter.None, Reason: "the kernel has no nf_tables"}}
			}
		}, "programs", Warn, []string{"the kernel has no nf_tables", "not enforced", "CONFIG_NF_TABLES"}},
		"swap":             {swapped("/dev/sda5"), nil, "swap", Warn, []string{"1 GiB on /dev/sda5", "does not let pods use it", "swapoff -a"}},
		"swap in memory":   {swapped("/dev/zram0"), nil, "swap", Pass, []string{"zram0"}},
		"before the build": {nil, func(b *bed) { b.Now = func() time.Time { return time.Unix(0, 0) } }, "clock", Fail, []string{"1970", "before this lite was built"}},
		"not synchronised": {nil, func(b *bed) {
			b.Unsynchronised = func() (string, error) { return "no time service synchronizes it", nil }
		}, "clock", Warn, []string{"timedatectl"}},
		"clock cannot be asked": {nil, func(b *bed) { b.Unsynchronised = func() (string, error) { return "", errors.New("not permitted") } }, "clock", Skip, []string{"not permitted"}},
		"no randomness":         {nil, func(b *bed) { b.Random = func() bool { return false } }, "randomness", Warn, []string{"virtio-rng"}},
		"few watches":           {map[string]string{"/proc/sys/fs/inotify/max_user_watches": "8192\n"}, nil, "inotify", Warn, []string{"8192 watches"}},
		"inotify used up": {nil, func(b *bed) {
			b.Watches = func(*config.Config) error { return errors.New("hardly any left; raise them") }
		}, "inotify", Fail, []string{"hardly any left"}},
		"hardly any files":     {nil, func(b *bed) { b.OpenFiles = func() (uint64, error) { return 256, nil } }, "open files", Fail, []string{"256 for each process; a server opens more before it is ready", "LimitNOFILE"}},
		"an agent with as few": {nil, func(b *bed) { b.agent(); b.OpenFiles = func() (uint64, error) { return 511, nil } }, "open files", Fail, []string{"an agent opens more"}},
		"few files":            {nil, func(b *bed) { b.OpenFiles = func() (uint64, error) { return 1024, nil } }, "open files", Warn, []string{"LimitNOFILE"}},
		"few files, of a user": {nil, func(b *bed) { b.OpenFiles = func() (uint64, error) { return 1024, nil }; b.UID = 1000 }, "open files", Skip, nil},
		"few files of lite":    {map[string]string{"/proc/7/limits": "Limit Soft Hard\nMax open files            1024                 4096                 files\n"}, func(b *bed) { b.lite(7) }, "open files", Warn, []string{"4096 for lite"}},
		"many are open":        {map[string]string{"/proc/sys/fs/file-nr": "95000 0 100000\n"}, nil, "open files", Warn, []string{"95000 of 100000", "fs.file-max"}},
		"a common name":        {nil, func(b *bed) { b.Uname = uname("6.1.0-18-amd64", "raspberrypi"); b.Config.NodeName = "raspberrypi" }, "hostname", Warn, []string{"--node-name"}},
		"a name of its own":    {nil, func(b *bed) { b.Uname = uname("6.1.0-18-amd64", "localhost") }, "hostname", Pass, []string{"the node's name is node-a"}},

		// disks
		"noexec": {mounts("rw,noexec", "ext4"), nil, "file system", Fail, []string{"/var", "noexec", "remount,exec /var"}},
		"volumes noexec": {map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:2 / /var/lib/kubelet rw,noexec - ext4 /dev/sda2 rw\n", "/var/lib/kubelet/x": ""}, nil,
			"file system", Warn, []string{"/var/lib/kubelet", "cannot run programs and scripts from emptyDir volumes", "remount,exec /var/lib/kubelet"}},
		"claims on a read-only disk": {map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:2 / /srv ro - ext4 /dev/sda2 rw\n", "/srv/x": ""}, func(b *bed) { b.Config.LocalStoragePath = "/srv/claims" },
			"file system", Fail, []string{"/srv/claims is on /srv", "no pod with volumes of claims starts"}},
		"read-only":                   {mounts("ro", "ext4"), nil, "file system", Fail, []string{"read-only"}},
		"set read-only by the kernel": {map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 ro,errors=remount-ro\n"}, nil, "file system", Fail, []string{"because of errors", "fsck"}},
		"10,000 mounts":               {map[string]string{"/proc/self/mountinfo": strings.Repeat("30 22 0:5 / /run/x rw - tmpfs tmpfs rw\n", 10000) + "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"}, nil, "file system", Pass, []string{"ext4"}},
		"NFS":                         {mounts("rw", "nfs4"), nil, "file system", Fail, []string{"nfs4", "loses data"}},
		"NFS for an agent":            {mounts("rw", "nfs4"), (*bed).agent, "file system", Warn, []string{"nfs4"}},
		"in memory":                   {mounts("rw", "tmpfs"), nil, "file system", Warn, []string{"a reboot loses everything"}},
		"VFAT":                        {mounts("rw", "vfat"), nil, "file system", Fail, []string{"owners"}},
		"nearly full":                 {nil, func(b *bed) { b.Statfs = statfs(100, 9, 100) }, "room", Warn, []string{"less than 15 %"}},
		"full": {nil, func(b *bed) {
			b.Room = func(*config.Config) error { return errors.New("only 3 MiB are free; free some room") }
		}, "room", Fail, []string{"3 MiB", "free some room"}},
		"few inodes": {nil, func(b *bed) { b.Statfs = statfs(100, 90, 4) }, "room", Warn, []string{"inodes"}},
		"no overlayfs": {nil, func(b *bed) {
			b.Overlay = func(string) error { return errors.New("mount overlayfs on /var/lib: invalid argument") }
		}, "overlayfs", Warn, []string{"invalid argument", "ext4 or xfs"}},
		"overlayfs, a user": {nil, func(b *bed) { b.UID = 1000 }, "overlayfs", Skip, []string{"only root"}},
		"a slow disk":       {nil, func(b *bed) { b.Sync = syncs(20 * time.Millisecond) }, "disk latency", Warn, []string{"20.0 ms at the 99th percentile", "etcd wants 10 ms", "SSD"}},
		"a very slow disk":  {nil, func(b *bed) { b.Sync = syncs(300 * time.Millisecond) }, "disk latency", Warn, []string{"the API stalls"}},
		"not measured": {nil, func(b *bed) {
			b.Sync = func(context.Context, string) ([]time.Duration, error) { return nil, errors.New("input/output error") }
		}, "disk latency", Skip, []string{"input/output"}},
		"may not measure": {nil, func(b *bed) {
			b.UID = 1000
			b.Sync = func(context.Context, string) ([]time.Duration, error) { return nil, os.ErrPermission }
		}, "disk latency", Skip, []string{"only root"}},

		// the network
		"a route": {nil, func(b *bed) {
			b.Networks = func(*config.Config) error {
				return &config.Error{Key: "cluster-cidr", Value: "10.42.0.0/16", Problem: "overlaps 10.42.0.0/24, which the host reaches by wan", Remedy: "choose a range"}
			}
		}, "addresses", Fail, []string{"by wan", "choose a range"}},
		"a VPN's route": {nil, func(b *bed) {
			b.Detours = func() ([]Detour, error) {
				return []Detour{{netip.MustParsePrefix("10.42.0.0/16"), "tailscale0", 52, 5270}}, nil
			}
		}, "addresses", Warn, []string{"routing table 52, which rule 5270", "10.42.0.0/16 to tailscale0", "VPN"}},
		"a VPN's other route": {nil, func(b *bed) {
			b.Detours = func() ([]Detour, error) {
				return []Detour{{netip.MustParsePrefix("100.64.0.0/10"), "tailscale0", 52, 5270}, {netip.MustParsePrefix("0.0.0.0/0"), "tailscale0", 52, 5270}}, nil
			}
		}, "addresses", Pass, nil},
		"routes not seen": {nil, func(b *bed) {
			b.Detours = func() ([]Detour, error) { return nil, errors.New("operation not permitted") }
		}, "addresses", Skip, []string{"not permitted"}},
		"a port":            {nil, func(b *bed) { b.listen("tcp", "0100007F:094B", "0A", "77", 42, "etcd") }, "ports", Fail, []string{"2379/tcp, where etcd has to listen, is in use by etcd (pid 42) on 127.0.0.1:2379", "stop it"}},
		"the API's port":    {nil, func(b *bed) { b.listen("tcp6", "00000000000000000000000000000000:192B", "0A", "77", 42, "apache2") }, "ports", Fail, []string{"6443/tcp", "apache2 (pid 42)", "--https-listen-port"}},
		"another address":   {nil, func(b *bed) { b.listen("tcp", "0A0200C0:094B", "0A", "77", 42, "etcd") }, "ports", Pass, nil},
		"a client's port":   {nil, func(b *bed) { b.listen("tcp", "0100007F:094B", "01", "77", 42, "curl") }, "ports", Pass, nil},
		"a user's view":     {nil, func(b *bed) { b.UID = 1000; b.listen("tcp", "0100007F:094B", "0A", "77", 0, "") }, "ports", Fail, []string{"a process of user 0", "root can see which"}},
		"of a container":    {nil, func(b *bed) { b.listen("tcp", "0100007F:094B", "0A", "77", 0, "") }, "ports", Fail, []string{"not visible from here"}},
		"somebody's tunnel": {nil, func(b *bed) { b.listen("udp", "00000000:2118", "07", "0", 0, "") }, "ports", Fail, []string{"8472/udp", "the kernel", "--flannel-backend"}},
		"lite's own tunnel": {map[string]string{"/sys/class/net/lite-vxlan/operstate": "unknown"}, func(b *bed) { b.lite(7); b.listen("udp", "00000000:2118", "07", "0", 0, "") }, "ports", Pass, []string{"lite itself uses 1"}},
		"lite's own":        {nil, func(b *bed) { b.lite(7); b.listen("tcp", "0100007F:094B", "0A", "77", 7, "lite") }, "ports", Pass, []string{"lite itself uses 1 (pid 7)"}},
		"an agent's":        {nil, func(b *bed) { b.agent(); b.listen("tcp", "0100007F:094B", "0A", "77", 42, "etcd") }, "ports", Pass, nil},
		"a start's reason": {nil, func(b *bed) {
			b.Ports = func(*config.Config) error {
				return &config.Error{Key: "https-listen-port", Problem: "cannot assign requested address", Remedy: "choose"}
			}
		}, "ports", Fail, []string{"cannot assign"}},
		"a pipe as resolv.conf":      {nil, func(b *bed) { delete(b.files, "/etc/resolv.conf"); b.pipe = "/etc/resolv.conf" }, "name servers", Warn, []string{"/etc/resolv.conf is not a regular file", "create a file there"}},
		"a directory as resolv.conf": {map[string]string{"/etc/resolv.conf/x": ""}, func(b *bed) { delete(b.files, "/etc/resolv.conf") }, "name servers", Warn, []string{"/etc/resolv.conf is not a regular file"}},
		"no resolv.conf":             {nil, func(b *bed) { delete(b.files, "/etc/resolv.conf") }, "name servers", Warn, []string{"there is no /etc/resolv.conf"}},
		"an unfinished line":         {map[string]string{"/etc/resolv.conf": "# one\nnameserver 192.0.2.1\n nameserver\n"}, nil, "name servers", Fail, []string{"line 3 of /etc/resolv.conf is `nameserver` without an address", "remove the line"}},
		"only a stub":                {map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.53\n"}, nil, "name servers", Warn, []string{"systemd-resolved"}},
		"behind the stub":            {map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.53\n", "/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.9\n"}, nil, "name servers", Pass, []string{"192.0.2.9, of /run/systemd/resolve/resolv.conf"}},
		"a forwarder":                {map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.1\n"}, nil, "name servers", Warn, []string{"loopback", "resolv-conf="}},
		"a loop":                     {map[string]string{"/etc/resolv.conf": "nameserver 10.43.0.10\n"}, nil, "name servers", Fail, []string{"loop"}},
		"many servers":               {map[string]string{"/etc/resolv.conf": "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"}, nil, "name servers", Warn, []string{"the first 3"}},
		"no way to server": {nil, func(b *bed) {
			b.agent()
			b.Config.ServerURL = "https://192.0.2.1:6443"
			b.Dial = func(context.Context, string) error { return syscall.ECONNREFUSED }
		}, "server", Fail, []string{"connection refused", "6443/tcp"}},
		"remembered server": {map[string]string{"/var/lib/lite/agent/cluster.json": `{"servers":["https://192.0.2.7:6443"],"facts":{"clusterCIDR":["10.60.0.0/16"],"serviceCIDR":["10.61.0.0/16"],"backend":"vxlan"}}`}, (*bed).agent, "server", Pass, []string{"192.0.2.7:6443 answers"}},
		"no server said":    {nil, (*bed).agent, "server", Skip, []string{"--server"}},
		"older rules": {map[string]string{"/proc/net/ip_tables_names": "filter\n"}, func(b *bed) {
			b.answers["iptables-legacy -w 5 -t filter -S"] = "-P INPUT ACCEPT\n-A INPUT -j ACCEPT\n"
			b.answers["iptables-legacy -w 5 -S"] = "-P INPUT ACCEPT\n"
		}, "iptables", Warn, []string{"older kernel interface", "iptables-legacy -t filter -S"}},
		"older, but empty": {map[string]string{"/proc/net/ip_tables_names": "filter\n"}, func(b *bed) { b.answers["iptables-legacy -w 5 -t filter -S"] = "-P INPUT ACCEPT\n" }, "iptables", Pass, []string{"empty"}},
		"older, not seen":  {map[string]string{"/proc/net/ip_tables_names": "filter\n"}, nil, "iptables", Warn, []string{"install the program iptables-legacy"}},
		"newer beside": {nil, func(b *bed) {
			b.answers["iptables --version"] = "iptables v1.8.7 (legacy)\n"
			b.answers["nft list tables"] = "table ip filter\n"
		}, "iptables", Warn, []string{"update-alternatives"}},
		"no iptables":    {nil, func(b *bed) { delete(b.answers, "iptables --version") }, "iptables", Pass, []string{"lite has its own"}},
		"NetworkManager": {nil, func(b *bed) { b.process(9, "NetworkManager") }, "NetworkManager", Warn, []string{"cni0", "--fix", "nmcli general reload"}},
		"it was told":    {map[string]string{layout.Default().Host.NetworkManager: networkManagerText}, func(b *bed) { b.process(9, "NetworkManager") }, "NetworkManager", Pass, []string{layout.Default().Host.NetworkManager}},

		// the rest
		"SELinux":         {map[string]string{"/sys/fs/selinux/enforce": "1"}, nil, "SELinux", Warn, []string{"enforcing", "setenforce 0"}},
		"permissive":      {map[string]string{"/sys/fs/selinux/enforce": "0"}, nil, "SELinux", Pass, []string{"permissive"}},
		"AppArmor":        {map[string]string{"/sys/module/apparmor/parameters/enabled": "Y\n"}, nil, "AppArmor", Warn, []string{"apparmor_parser"}},
		"AppArmor in use": {map[string]string{"/sys/module/apparmor/parameters/enabled": "Y\n"}, func(b *bed) { b.Find = func(p string) (string, error) { return "/sbin/" + p, nil } }, "AppArmor", Pass, []string{"profile"}},
		"k3s runs":        {nil, func(b *bed) { b.process(9, "k3s-server") }, "others", Fail, []string{"k3s runs here (k3s-server, pid 9)", "k3s-uninstall.sh"}},
		"k3s was here":    {map[string]string{"/etc/systemd/system/k3s.service": "", "/var/lib/rancher/k3s/server/token": ""}, nil, "others", Warn, []string{"k3s has left /var/lib/rancher/k3s, /etc/systemd/system/k3s.service"}},
		"pods of k3s run on": {nil, func(b *bed) {
			b.process(9, "containerd-shim", "-namespace", "k8s.io", "-id", "x", "-address", "/run/k3s/containerd/containerd.sock")
		}, "others", Warn, []string{"1 pods of another Kubernetes are still running (of the containerd at /run/k3s/", "k3s-killall.sh"}},
		"pods of lite run on": {nil, func(b *bed) {
			b.process(9, "containerd-shim", "-namespace", "k8s.io", "-address", "/run/lite/containerd/containerd.sock")
		}, "others", Pass, nil},
		"a container of docker": {nil, func(b *bed) {
			b.process(9, "containerd-shim", "-namespace", "moby", "-address", "/run/containerd/containerd.sock")
		}, "others", Pass, nil},
		"MicroK8s":           {map[string]string{"/var/snap/microk8s/common/x": ""}, nil, "others", Warn, []string{"snap remove --purge microk8s"}},
		"k0s":                {map[string]string{"/var/lib/k0s/x": ""}, nil, "others", Warn, []string{"k0s reset"}},
		"rke2":               {map[string]string{"/var/lib/rancher/rke2/x": ""}, nil, "others", Warn, []string{"rke2-uninstall.sh"}},
		"kubeadm":            {map[string]string{"/etc/kubernetes/manifests/etcd.yaml": ""}, nil, "others", Warn, []string{"kubeadm reset"}},
		"a kubelet runs":     {nil, func(b *bed) { b.process(9, "kubelet") }, "others", Fail, []string{"kubelet, pid 9"}},
		"cri-dockerd":        {nil, func(b *bed) { b.process(9, "cri-dockerd") }, "others", Fail, []string{"cri-dockerd"}},
		"flannel's device":   {map[string]string{"/sys/class/net/flannel.1/operstate": "unknown"}, nil, "others", Warn, []string{"interface flannel.1"}},
		"a network of ours":  {map[string]string{"/sys/class/net/cilium_host/operstate": "up"}, func(b *bed) { b.facts.Disable = addon.Disabled{addon.CNI} }, "others", Pass, nil},
		"k3s in a container": {map[string]string{"/proc/9/status": "Name: k3s-server\nNSpid:\t9\t1\n"}, func(b *bed) { b.process(9, "k3s-server") }, "others", Pass, nil},
		"docker":             {nil, func(b *bed) { b.process(9, "dockerd") }, "others", Pass, []string{"docker is running (pid 9)"}},
		"chains":             {nil, func(b *bed) { b.answers["iptables -w 5 -t nat -S"] = "-N KUBE-SERVICES\n-N CNI-HOSTPORT-DNAT\n" }, "others", Warn, []string{"2 iptables chains", "reboot"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := healthy(t)
			for file, content := range c.files {
				b.files[file] = content
			}
			if c.change != nil {
				c.change(b)
			}
			r := b.run(t)
			expect(t, r, c.row, c.want, c.words...)
			complete(t, r)
		})
	}
}

// expect finds a line of a report.
func expect(t *testing.T, r Report, row string, want Status, words ...string) Result {
	t.Helper()
	var seen []string
	for _, c := range r.Checks {
		if c.Name != row {
			continue
		}
		text := fmt.Sprint(c.Found, " → ", c.Remedy, " ", c.Commands)
		if c.Status == want && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			return c
		}
		seen = append(seen, string(c.Status)+" "+text)
	}
	t.Errorf("%s: got\n%s\nwant %s with %q", row, strings.Join(seen, "\n"), want, words)
	return Result{}
}

// complete: what is found fits a line, and what is not well has a remedy.
func complete(t *testing.T, r Report) {
	t.Helper()
	for _, c := range r.Checks {
		if c.Found == "" || strings.Contains(c.Found+c.Remedy, "\n") {
			t.Errorf("%s: %q → %q", c.Name, c.Found, c.Remedy)
		}
		if (c.Status == Warn || c.Status == Fail) && c.Remedy == "" {
			t.Errorf("%s: %q has no remedy", c.Name, c.Found)
		}
		if strings.Contains(c.Found+c.Remedy, "..") && strings.Contains(c.Found, "%!") {
			t.Errorf("%s: %q", c.Name, c.Found)
		}
	}
	if want := worst(r.Checks); r.Result != want {
		t.Errorf("result %s, want %s", r.Result, want)
	}
}

func kernelWith(name string, err error) func(context.Context, string) map[string]error {
	return func(context.Context, string) map[string]error {
		tried := map[string]error{"bridge": nil, "veth": nil, "vxlan": nil, "nftables": nil, "iptables": nil}
		tried[name] = err
		return tried
	}
}

func noKernel(context.Context, string) map[string]error { return nil }

func mounts(options, fstype string) map[string]string {
	return map[string]string{"/proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n" +
		"23 22 8:2 / /var " + options + " shared:2 - " + fstype + " /dev/sda2 rw\n" +
		"24 22 8:3 / /variable rw,noexec shared:3 - nfs x rw\n"}
}

func statfs(blocks, free, inodes uint64) func(string) (unix.Statfs_t, error) {
	return func(string) (unix.Statfs_t, error) {
		return unix.Statfs_t{Bsize: 1 << 30, Blocks: blocks, Bavail: free, Files: 100, Ffree: inodes}, nil
	}
}

func syncs(d time.Duration) func(context.Context, string) ([]time.Duration, error) {
	return func(context.Context, string) ([]time.Duration, error) {
		return []time.Duration{time.Millisecond, time.Millisecond, d}, nil
	}
}

// TestJSON is the form that docs/check.md promises.
// Certificates that end are shown with what mends them; it is what lite status shows.
func TestCertificatesThatEnd(t *testing.T) {
	for name, c := range map[string]struct {
		made    time.Duration // how long ago
		soon    string        // a warning, or none
		failure string
	}{
		"new":          {0, "", ""},
		"in the month": {336 * 24 * time.Hour, "apiserver.crt is valid until", ""},
		"over":         {366 * 24 * time.Hour, "", "apiserver.crt was valid until"},
	} {
		t.Run(name, func(t *testing.T) {
			b := healthy(t)
			dir := pki.Dir(filepath.Join(t.TempDir(), "pki"))
			if _, err := pki.Ensure(dir, pki.Node{Name: "node-a", ClusterDomain: "cluster.local"}, now.Add(-c.made)); err != nil {
				t.Fatal(err)
			}
			for _, f := range dir.Files() {
				data, err := os.ReadFile(f.Path)
				if err != nil {
					t.Fatal(err)
				}
				b.files["/var/lib/lite/server/pki"+strings.TrimPrefix(f.Path, string(dir))] = string(data)
			}
			var soon, failed []string
			for _, r := range b.run(t).Checks {
				if r.Name != "certificates" {
					continue
				}
				switch r.Status {
				case Warn:
					soon = append(soon, r.Found+": "+r.Remedy)
				case Fail:
					failed = append(failed, r.Found+": "+r.Remedy)
				}
			}
			for _, one := range []struct {
				got  []string
				want string
			}{{soon, c.soon}, {failed, c.failure}} {
				text := strings.Join(one.got, "\n")
				if (one.want == "") != (text == "") || !strings.Contains(text, one.want) {
					t.Errorf("got %q, want %q", text, one.want)
				}
				if text != "" && !strings.Contains(text, "restart lite, which renews it") {
					t.Errorf("no remedy: %s", text)
				}
			}
		})
	}
}

func TestJSON(t *testing.T) {
	b := healthy(t)
	b.files["/proc/sys/fs/inotify/max_user_instances"] = "128\n"
	r := b.run(t)
	r.Checks = slices.DeleteFunc(r.Checks, func(c Result) bool { return c.Name != "inotify" && c.Name != "swap" })
	r.Fixed = Fix(t.Context(), b.Machine, r, func(Done) {})
	r.Fixed[0].Undo, r.Fixed[0].Error = "rm", "disk full"
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":"v1.0.0","role":"server","node":"node-a","result":"warn","checks":[{"name":"swap","status":"pass","found":"none"},` +
		`{"name":"inotify","status":"warn","found":"128 instances and 65536 watches for each user; a server opens 28 instances, and pods of root share them","remedy":"raise them",` +
		`"commands":["printf 'fs.inotify.max_user_instances = 1024\\nfs.inotify.max_user_watches = 524288\\n' \u003e/etc/sysctl.d/90-lite.conf","sysctl -p /etc/sysctl.d/90-lite.conf"],"fixable":true}],` +
		`"fixed":[{"check":"inotify","did":"write /etc/sysctl.d/90-lite.conf and raise the limits of inotify","undo":"rm","error":"disk full"}]}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
