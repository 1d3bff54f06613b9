package check

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/probe"
)

// What a node uses, as measured in docs/benchmarks.md, and what a machine should have for
// it and for some pods.
const (
	serverMemory, serverComfort = 512 << 20, 1 << 30
	agentMemory, agentComfort   = 256 << 20, 512 << 20
	serverIdle, agentIdle       = "353 MB idle for a server", "157 MB idle for an agent"
)

func processor(_ context.Context, e *Env) []Result {
	u, err := e.Uname()
	if err != nil {
		return skip("get the architecture from the kernel: " + err.Error())
	}
	found := fmt.Sprintf("%d of %s", e.CPUs, unix.ByteSliceToString(u.Machine[:]))
	switch {
	case e.Arch != "amd64" && e.Arch != "arm64":
		return warn(found+"; this build is for "+e.Arch, "lite is released for amd64 and arm64")
	case e.Role == config.Server && e.CPUs < 2:
		return warn(found+"; an idle server uses 5 % of one, and its start all of two for 4 s", "give the machine 2, or expect starts that take twice as long")
	}
	return pass(found)
}

func memory(_ context.Context, e *Env) []Result {
	total, ok := probe.Root(e.Root).Memory()
	if !ok {
		return skip("/proc/meminfo does not show the memory")
	}
	least, comfort, idle := uint64(serverMemory), uint64(serverComfort), serverIdle
	if e.Role == config.Agent {
		least, comfort, idle = agentMemory, agentComfort, agentIdle
	}
	// A machine has a little less than its nominal size: firmware and kernel keep some.
	found := fmt.Sprintf("%s; %s (docs/benchmarks.md)", size(total), idle)
	switch {
	case total < least*9/10:
		return fail(found, "a "+string(e.Role)+" needs "+size(least)+": give the machine more memory")
	case total < comfort*9/10:
		return warn(found, "little is left for pods; "+size(comfort)+" is comfortable")
	}
	return pass(found)
}

// size is a number of bytes in words.
func size(n uint64) string {
	for _, u := range []struct {
		name string
		size uint64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.size), 'f', 1, 64), ".0") + " " + u.name
		}
	}
	return strconv.FormatUint(n, 10) + " bytes"
}

// kernel compares with what kube-proxy wants for nftables (1.37: 5.13), the newest
// of all that a node wants.
func kernel(_ context.Context, e *Env) []Result {
	u, err := e.Uname()
	if err != nil {
		return skip("get the version from the kernel: " + err.Error())
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, minor, ok := kernelVersion(release)
	switch {
	case !ok:
		return skip("the kernel calls itself " + release + ", which is not a version")
	case major < 4 || major == 4 && minor < 19:
		return fail("Linux "+release, "Kubernetes needs at least 4.19: use a newer kernel")
	case major < 5 || major == 5 && minor < 13:
		return warn("Linux "+release+"; Services with nftables need 5.13", "use a newer kernel, or `--kube-proxy-arg proxy-mode=iptables`")
	}
	return pass("Linux " + release)
}

func kernelVersion(release string) (major, minor int, ok bool) {
	f := strings.FieldsFunc(release, func(r rune) bool { return r == '.' || r == '-' || r == '+' })
	if len(f) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(f[0])
	minor, err2 := strconv.Atoi(f[1])
	return major, minor, err1 == nil && err2 == nil
}

func cgroups(_ context.Context, e *Env) []Result {
	if err := probe.Root(e.Root).CheckCgroups(); err != nil {
		return refused(err)
	}
	if probe.Root(e.Root).HasCgroup2() {
		return pass("version 2, with all controllers that pods need")
	}
	return warn("version 1, with all controllers that pods need; Kubernetes is about to drop it",
		"boot with version 2: with systemd, add `systemd.unified_cgroup_hierarchy=1` to the kernel's command line")
}

func programs(ctx context.Context, e *Env) []Result {
	if e.Config == nil {
		return skip("the configuration is wrong")
	}
	t := e.Tools(ctx, e.Config)
	if !t.NFTables() {
		return warn("nft does not work: "+t.NFT.Reason+"; Services use iptables, and network policies are not enforced",
			"use a kernel with nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)")
	}
	return pass(fmt.Sprintf("nft: %s; iptables: %s", t.NFT, t.IPTables))
}

// swap: the kubelet starts beside it (failSwapOn is off) and keeps pods out of it
// (1.37: swapBehavior NoSwap, which needs cgroups of version 2).
func swap(_ context.Context, e *Env) []Result {
	data, err := e.read("/proc/swaps")
	if err != nil {
		return skip("read /proc/swaps: " + err.Error())
	}
	var all []string
	var total uint64
	var zram = true
	for l := range strings.Lines(string(data)) {
		f := strings.Fields(l)
		if len(f) < 3 || f[0] == "Filename" {
			continue
		}
		n, _ := strconv.ParseUint(f[2], 10, 64)
		total += n << 10
		all = append(all, f[0])
		zram = zram && strings.Contains(f[0], "zram")
	}
	if len(all) == 0 {
		return pass("none")
	}
	found := fmt.Sprintf("%s on %s", size(total), strings.Join(all, ", "))
	if probe.Root(e.Root).HasCgroup2() {
		found += "; the kubelet does not let pods use it, lite itself may be swapped"
		if zram {
			return pass(found)
		}
		return warn(found, "switch it off if it is on a disk, where it slows the datastore down: `swapoff -a`, and remove it from /etc/fstab", "swapoff -a")
	}
	return warn(found+"; with cgroup version 1 pods are swapped too, beyond their memory limits",
		"switch it off: `swapoff -a`, and remove it from /etc/fstab", "swapoff -a")
}

// clock: certificates that are made with a wrong one are worthless once it is right.
func clock(_ context.Context, e *Env) []Result {
	const remedy = "set it: `timedatectl set-ntp true`, or install chrony; without a network `date -s`"
	now := e.Now()
	found := now.UTC().Format(time.RFC3339)
	if now.Before(e.Built) {
		return fail(fmt.Sprintf("%s, which is before this lite was built (%s)", found, stamp(e.Built)), remedy)
	}
	why, err := e.Unsynchronised()
	switch {
	case err != nil:
		return skip(found + "; " + err.Error())
	case why != "":
		return warn(found+"; "+why, "the clocks of nodes must agree to a minute. "+strings.ToUpper(remedy[:1])+remedy[1:])
	}
	return pass(found + ", synchronized by a time service")
}

func randomness(_ context.Context, e *Env) []Result {
	if !e.Random() {
		return warn("the kernel has not gathered enough yet: generating keys waits for it", "install rng-tools or haveged, or give a virtual machine a virtio-rng device")
	}
	return pass("the kernel's generator is ready")
}

func inotify(_ context.Context, e *Env) []Result {
	watches, _ := strconv.Atoi(e.text("/proc/sys/fs/inotify/max_user_watches"))
	instances, err := strconv.Atoi(e.text("/proc/sys/fs/inotify/max_user_instances"))
	if err != nil {
		return skip("the kernel does not show its inotify limits")
	}
	found := fmt.Sprintf("%d instances and %d watches for each user", instances, watches)
	with := func(wanted int, r []Result) []Result {
		fix, commands := raiseInotify(e, limit{inotifyInstances, instances, wanted}, limit{inotifyWatches, watches, 524288})
		r[0].fix, r[0].Commands = []step{fix}, commands
		return r
	}
	if e.Running.PID == 0 && e.UID == 0 && e.Config != nil {
		if err := e.Watches(e.Config); err != nil {
			return with(max(1024, 2*instances), refused(err))
		}
	}
	const few, fewWatches = 256, 16384
	if instances < few || watches < fewWatches {
		return with(1024, warn(fmt.Sprintf("%s; a server opens %d instances, and pods of root share them", found, agent.ServerWatches), "raise them"))
	}
	return pass(found)
}

// fewestFiles is how many files a node may have to be allowed to open. Measured: a server
// has 350 open when it is ready and idle, an agent 160; each pod and each client adds some.
func fewestFiles(role config.Role) uint64 {
	if role == config.Server {
		return 1024
	}
	return 512
}

func article(role config.Role) string {
	if role == config.Server {
		return "a server"
	}
	return "an agent"
}

func openFiles(_ context.Context, e *Env) []Result {
	limit, err := e.OpenFiles()
	if err != nil {
		return skip(err.Error())
	}
	found := fmt.Sprintf("%d for each process", limit)
	if n := strings.Fields(e.text("/proc/sys/fs/file-nr")); len(n) == 3 {
		open, err1 := strconv.ParseUint(n[0], 10, 64)
		most, err2 := strconv.ParseUint(n[2], 10, 64)
		if err1 == nil && err2 == nil && open > most/10*9 {
			return warn(fmt.Sprintf("%d of %d that the machine may have are open", open, most), "find out what has them open (`lsof`), or raise fs.file-max")
		}
	}
	if lite := e.Running.PID; lite != 0 {
		// What counts is what the running one was given.
		for l := range strings.Lines(e.text(fmt.Sprintf("/proc/%d/limits", lite))) {
			if f := strings.Fields(strings.TrimPrefix(l, "Max open files")); strings.HasPrefix(l, "Max open files") && len(f) > 1 {
				if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
					limit, found = n, fmt.Sprintf("%d for lite", n)
				}
			}
		}
	}
	const least = 8192
	const remedy = "raise it: LimitNOFILE=1048576 in the unit, or `ulimit -n 1048576` before lite"
	switch {
	case limit < fewestFiles(e.Role) && e.UID == 0:
		return fail(fmt.Sprintf("%s; %s opens more before it is ready, and then waits forever", found, article(e.Role)), remedy)
	case limit < least && e.UID != 0:
		return skip(found + " for you; the limit of root may differ")
	case limit < least:
		return warn(found+"; a server has hundreds open, and each pod adds some", remedy)
	}
	return pass(found)
}

// hostname: whether it makes a node's name is looked at with the configuration.
func hostname(_ context.Context, e *Env) []Result {
	u, err := e.Uname()
	if err != nil {
		return skip("get the host name from the kernel: " + err.Error())
	}
	name := strings.ToLower(unix.ByteSliceToString(u.Nodename[:]))
	if e.Config != nil && e.Config.NodeName != name {
		return pass(fmt.Sprintf("%s; the node's name is %s", name, e.Config.NodeName))
	}
	short, _, _ := strings.Cut(name, ".")
	if short == "localhost" || short == "raspberrypi" || short == "debian" || short == "ubuntu" {
		return warn(name+", which is the name of many machines; names are unique in a cluster", "set another one with `hostnamectl set-hostname`, or pass --node-name, before the first start")
	}
	return pass(name)
}
