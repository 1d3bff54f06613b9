package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// controllersOf lists the controllers of cgroups of version 2.
	controllersOf = cgroupRoot + "/cgroup.controllers"
)

// HasCgroup2 reports whether cgroups are of version 2, and not of version 1 or missing.
func (r Root) HasCgroup2() bool { return r.exists(controllersOf) }

// CheckCgroups finds missing controllers that a container needs, in cgroups of either version.
func (r Root) CheckCgroups() error {
	data, err := os.ReadFile(r.path(controllersOf))
	if err == nil {
		return r.missingControllers(strings.Fields(string(data)), []string{"cpu", "cpuset", "memory", "pids"})
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	var present []string
	for _, c := range []string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"} {
		if r.exists(filepath.Join(cgroupRoot, c, "cgroup.procs")) {
			present = append(present, c)
		}
	}
	if len(present) == 0 {
		return fmt.Errorf("control groups are missing: nothing is mounted on %s; mount cgroup2 there", cgroupRoot)
	}
	return r.missingControllers(present, []string{"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"})
}

func (r Root) missingControllers(present, needed []string) error {
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
		remedy = "add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line" + r.commandLine() + " and reboot"
	}
	return fmt.Errorf("cgroup controller %s is missing; %s", strings.Join(missing, ", "), remedy)
}

// commandLine is where the kernel's command line is configured. A Raspberry Pi has it in a
// file with one line, which must remain one.
func (r Root) commandLine() string {
	for _, file := range []string{"/boot/firmware/cmdline.txt", "/boot/cmdline.txt"} {
		// Since Debian 12, the second only refers to the first.
		if r.exists(file) {
			return ", at the end of the only line of " + file + ","
		}
	}
	if r.exists("/etc/default/grub") {
		return ", in GRUB_CMDLINE_LINUX of /etc/default/grub, run update-grub (or grub2-mkconfig)"
	}
	return ""
}
