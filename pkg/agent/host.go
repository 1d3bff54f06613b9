package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/agent/containerd"
	"lite.io/lite/pkg/config"
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
	// NFTables is there to carry Services and hostPorts, program and kernel;
	// otherwise iptables does. Package netfilter finds out.
	NFTables bool
}

const (
	cgroupRoot     = "/sys/fs/cgroup"
	capSysResource = 24 // linux/capability.h
	systemdRunning = "/run/systemd/system"
)

// MinimumFreeDisk is how many bytes must be free for lite to start.
const MinimumFreeDisk = 100 << 20

// Inspect looks at the machine and says what a node could not do without.
func Inspect() (Host, error) {
	if os.Geteuid() != 0 {
		return Host{}, errors.New("must run as root; try `sudo lite server`")
	}
	var h Host
	h.Systemd = HasSystemd()
	h.Limited = !HasCapability("/proc/self/status", capSysResource)
	return h, errors.Join(CheckCgroups("/"), loadFeatures())
}

// HasSystemd reports whether systemd is PID 1, and so the one that makes cgroups.
func HasSystemd() bool {
	_, err := os.Stat(systemdRunning)
	return err == nil
}

// Watches is how many inotify instances the parts of a node open; a server has
// ServerWatches, most of them for files of the API server (1.37). To ask for more would
// refuse a restart on a machine that has room for what ran before.
const (
	Watches       = 11
	ServerWatches = 28
)

// CheckWatches makes sure that root may still open as many inotify instances.
// Without them the kubelet ends the process and containerd never gets ready,
// neither of which says why.
func CheckWatches(watches int) error {
	for range watches {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			return errors.New("root has hardly any inotify instances left, and a node needs " + strconv.Itoa(watches) +
				": raise their number with `sysctl -w fs.inotify.max_user_instances=1024`, and in /etc/sysctl.d for the next boot")
		}
		if err != nil {
			return fmt.Errorf("open an inotify instance: %w", err)
		}
		defer unix.Close(fd)
	}
	return nil
}

// CheckCgroups looks for the controllers that a container needs, in cgroups of
// either version, on the machine whose files are below root.
func CheckCgroups(root string) error {
	dir := filepath.Join(root, cgroupRoot)
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err == nil {
		return missingControllers(root, strings.Fields(string(data)), []string{"cpu", "cpuset", "memory", "pids"})
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	var present []string
	for _, c := range []string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"} {
		if exists(filepath.Join(dir, c, "cgroup.procs")) {
			present = append(present, c)
		}
	}
	if len(present) == 0 {
		return fmt.Errorf("control groups are missing: nothing is mounted on %s; mount cgroup2 there", cgroupRoot)
	}
	return missingControllers(root, present, []string{"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"})
}

func missingControllers(root string, present, needed []string) error {
	var missing []string
	for _, c := range needed {
		if !slices.Contains(present, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	remedy := "enable it in the kernel"
	if slices.Contains(missing, "memory") {
		remedy = "add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line" + commandLine(root) + " and reboot"
	}
	return fmt.Errorf("cgroup controller %s is missing; %s", strings.Join(missing, ", "), remedy)
}

// commandLine says where the kernel's command line is kept. A Raspberry Pi has it
// in a file of one line, where all must stay on that line.
func commandLine(root string) string {
	for _, file := range []string{"/boot/firmware/cmdline.txt", "/boot/cmdline.txt"} {
		// Since Debian 12 the second only says that it is the first.
		if exists(filepath.Join(root, file)) {
			return ", at the end of the only line of " + file + ","
		}
	}
	if exists(filepath.Join(root, "/etc/default/grub")) {
		return ", in GRUB_CMDLINE_LINUX of /etc/default/grub, run update-grub (or grub2-mkconfig)"
	}
	return ""
}

// HasCapability reads the effective set of a process from its file in /proc.
func HasCapability(statusFile string, bit uint) bool {
	data, err := os.ReadFile(statusFile)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set&(1<<bit) != 0
		}
	}
	return false
}

// Feature is one of the kernel without which no pod has a network.
type Feature struct{ Module, Option, Path string }

// Features is those that show by a file.
var Features = []Feature{
	{"br_netfilter", "CONFIG_BRIDGE_NETFILTER", "/proc/sys/net/bridge/bridge-nf-call-iptables"},
	{"nf_conntrack", "CONFIG_NF_CONNTRACK", "/proc/sys/net/netfilter/nf_conntrack_max"},
}

// Err says that the kernel has it not.
func (f Feature) Err() error {
	return fmt.Errorf("kernel feature %s is missing (no %s); load it with `modprobe %s` or use a kernel built with %s", f.Module, f.Path, f.Module, f.Option)
}

// loadFeatures loads the modules of features that are missing, where that is
// possible.
func loadFeatures() error {
	var errs []error
	for _, f := range Features {
		if exists(f.Path) {
			continue
		}
		// What counts is whether the file is there afterwards.
		_ = exec.Command("modprobe", f.Module).Run()
		if !exists(f.Path) {
			errs = append(errs, f.Err())
		}
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// CheckRuntime finds what is wrong with the files that tell containerd what to do.
func CheckRuntime(c *config.Config) error {
	err := containerd.CheckRegistries(c.PrivateRegistry)
	if c.ContainerRuntimeEndpoint == "" {
		err = errors.Join(err, containerd.CheckDropIns(c.Layout().Data.Agent().Containerd()), containerd.CheckDevices("/"))
	}
	return err
}

// CheckDisk refuses to start on a disk that is all but full: a datastore that
// runs out of room in the middle of a write is harder to mend than one that
// was not opened.
func CheckDisk(dataDir string) error {
	dir := dataDir
	for !exists(dir) {
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("ask for the room on %s: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < MinimumFreeDisk {
		return fmt.Errorf("data-dir %s: only %d MiB are free and %d MiB are needed to start; free some room or choose another --data-dir", dataDir, free>>20, MinimumFreeDisk>>20)
	}
	return nil
}
