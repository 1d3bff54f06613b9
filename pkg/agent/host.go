package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what the machine is like, as far as a node has to adapt to it.
type Host struct {
	// Systemd is PID 1 and manages cgroups.
	Systemd bool
	// Limited is a root without CAP_SYS_RESOURCE, as in some containers: it
	// may not lower oom_score_adj.
	Limited bool
	// NFTables is there to carry Services and hostPorts, program and kernel;
	// otherwise iptables does. Package netfilter finds out.
	NFTables bool
}

const (
	cgroupRoot      = "/sys/fs/cgroup"
	capSysResource  = 24 // linux/capability.h
	systemdRunning  = "/run/systemd/system"
	minimumFreeDisk = 100 << 20
)

// Inspect looks at the machine and says what a node could not do without.
func Inspect() (Host, error) {
	if os.Geteuid() != 0 {
		return Host{}, errors.New("must run as root; try `sudo lite server`")
	}
	var h Host
	_, err := os.Stat(systemdRunning)
	h.Systemd = err == nil
	h.Limited = !hasCapability("/proc/self/status", capSysResource)
	return h, errors.Join(checkCgroups(cgroupRoot), checkNetwork())
}

// Watches is how many inotify instances the parts of a node open; a server has
// ServerWatches, most of them for files of the API server (1.36).
const (
	Watches       = 12
	ServerWatches = 32
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

// checkCgroups looks for the controllers that a container needs, in cgroups of
// either version.
func checkCgroups(root string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return fmt.Errorf("control groups are missing: nothing is mounted on %s; mount cgroup2 there", root)
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read cgroup controllers: %w", err)
		}
		return missingControllers(strings.Fields(string(data)), []string{"cpu", "cpuset", "memory", "pids"})
	}
	var present []string
	for _, c := range []string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"} {
		if _, err := os.Stat(filepath.Join(root, c, "cgroup.procs")); err == nil {
			present = append(present, c)
		}
	}
	return missingControllers(present, []string{"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"})
}

func missingControllers(present, needed []string) error {
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
		remedy = "add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line (on a Raspberry Pi /boot/firmware/cmdline.txt) and reboot"
	}
	return fmt.Errorf("cgroup controller %s is missing; %s", strings.Join(missing, ", "), remedy)
}

// hasCapability reads the effective set of this process.
func hasCapability(statusFile string, bit uint) bool {
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

// checkNetwork looks for the kernel features without which no pod has a
// network, loading their modules where that is possible.
func checkNetwork() error {
	features := []struct{ module, option, path string }{
		{"br_netfilter", "CONFIG_BRIDGE_NETFILTER", "/proc/sys/net/bridge/bridge-nf-call-iptables"},
		{"nf_conntrack", "CONFIG_NF_CONNTRACK", "/proc/sys/net/netfilter/nf_conntrack_max"},
	}
	var errs []error
	for _, f := range features {
		if exists(f.path) {
			continue
		}
		// What counts is whether the file is there afterwards.
		_ = exec.Command("modprobe", f.module).Run()
		if !exists(f.path) {
			errs = append(errs, fmt.Errorf("kernel feature %s is missing (no %s); load it with `modprobe %s` or use a kernel built with %s", f.module, f.path, f.module, f.option))
		}
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
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
	if free := fs.Bavail * uint64(fs.Bsize); free < minimumFreeDisk {
		return fmt.Errorf("data-dir %s: only %d MiB are free and %d MiB are needed to start; free some room or choose another --data-dir", dataDir, free>>20, minimumFreeDisk>>20)
	}
	return nil
}
