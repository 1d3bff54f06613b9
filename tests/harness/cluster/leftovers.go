package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
)

// Everything the harness makes on the machine is named lite-test-<owner>-<n>,
// where the owner is the test process: its ID and, as IDs are used again, the
// moment of its start.
const prefix = "lite-test-"

var hostCount atomic.Int64

func nextID() string {
	return fmt.Sprintf("%s%s-%d", prefix, owner(os.Getpid()), hostCount.Add(1))
}

// owner returns what identifies a process, or "" if there is none such.
func owner(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field, the name, may contain anything; the 22nd is the start.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if fields[0] == "Z" {
		return "" // dead, not yet buried
	}
	return fmt.Sprintf("%d.%s", pid, fields[19])
}

// abandoned says whether a name is of the harness and its owner dead.
func abandoned(name string) bool {
	of, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	of, _, _ = strings.Cut(of, "-")
	pid, err := strconv.Atoi(strings.Split(of, ".")[0])
	return err == nil && owner(pid) != of
}

// removeAbandoned removes what runs that were killed have left.
func removeAbandoned(workDir string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var failed []error
	for _, h := range all {
		for _, name := range children(h.Mount) {
			if abandoned(name) {
				failed = append(failed, cgroups{hierarchies: []hierarchy{h}, name: name}.remove())
			}
		}
	}
	for _, name := range children(workDir) {
		if abandoned(name) {
			failed = append(failed, os.RemoveAll(filepath.Join(workDir, name)))
		}
	}
	return errors.Join(failed...)
}

// children returns the names in a directory, none if it does not exist.
func children(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// survey lists what a test might leave on the machine, one line each, sorted.
func survey() []string {
	var lines []string
	add := func(kind string, items []string) {
		for _, item := range items {
			lines = append(lines, kind+": "+item)
		}
	}
	mounted, _ := mounts()
	for _, m := range mounted {
		add("mount", []string{m.fstype + " on " + m.point})
	}
	links, _ := netlink.LinkList()
	for _, link := range links {
		add("link", []string{link.Attrs().Name})
	}
	add("rule of nft", ruleset("nft", "-s", "list", "ruleset"))
	add("rule of iptables", ruleset("iptables-save"))
	add("rule of ip6tables", ruleset("ip6tables-save"))
	add("network namespace", children("/run/netns"))
	all, _ := hierarchies()
	for _, h := range all {
		for _, dir := range directories(h.Mount) {
			add("cgroup", []string{dir})
			if strings.HasPrefix(filepath.Base(dir), prefix+owner(os.Getpid())) {
				for _, pid := range processes(dir) {
					add("process", []string{fmt.Sprintf("%d in %s", pid, dir)})
				}
			}
		}
	}
	for _, s := range sysctls() {
		add("sysctl", []string{s.path + " = " + s.value})
	}
	slices.Sort(lines)
	return lines
}

// directories returns those in dir that no other living run has made.
func directories(dir string) []string {
	var dirs []string
	own := prefix + owner(os.Getpid())
	for _, name := range children(dir) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			continue
		}
		if !strings.HasPrefix(name, prefix) || strings.HasPrefix(name, own) || abandoned(name) {
			dirs = append(dirs, path)
		}
	}
	return dirs
}

// counters are the packets and bytes that iptables-save prints with a chain.
var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// ruleset returns the lines of a firewall tool, none if it is not installed.
func ruleset(name string, args ...string) []string {
	output, err := exec.Command(name, args...).Output()
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(counters.ReplaceAllString(line, ""))
		if line != "" && line != "}" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// difference returns the lines that are in only one of two surveys.
func difference(before, after []string) []string {
	var lines []string
	count := map[string]int{}
	for _, line := range after {
		count[line]++
	}
	for _, line := range before {
		count[line]--
	}
	for line, n := range count {
		switch {
		case n > 0:
			lines = append(lines, "left behind: "+line)
		case n < 0:
			lines = append(lines, "gone: "+line)
		}
	}
	slices.Sort(lines)
	return lines
}

// sysctl is a setting of the kernel that namespaces do not separate.
type sysctl struct{ path, value string }

// sysctls returns those that the kubelet and `lite check --fix` set, as they are.
func sysctls() []sysctl {
	var all []sysctl
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom",
		"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
		"fs/inotify/max_user_instances", "fs/inotify/max_user_watches",
	} {
		path := "/proc/sys/" + name
		if value, err := os.ReadFile(path); err == nil {
			all = append(all, sysctl{path, strings.TrimSpace(string(value))})
		}
	}
	return all
}

// mountPoint is a line of /proc/self/mountinfo.
type mountPoint struct{ point, fstype, super string }

func mounts() ([]mountPoint, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mountPoint
	for line := range strings.Lines(string(content)) {
		// 36 35 98:0 /root /point options [optional fields] - type source super
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) > 4 && len(right) > 2 {
			all = append(all, mountPoint{point: left[4], fstype: right[0], super: right[2]})
		}
	}
	return all, nil
}
