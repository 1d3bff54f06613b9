// Package trace finds the traces that lite leaves on a machine: it compares what
// the machine is like with what it was like before.
package trace

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// Snapshot is what a machine is like, one line for each thing.
type Snapshot map[string]bool

// Take looks at all of a host that a node might change.
func Take(t testing.TB, h *cluster.Host) Snapshot {
	t.Helper()
	settle(t, h)
	s := Snapshot{}
	for _, c := range []struct{ kind, script string }{
		{"mount", `cut -d' ' -f5-6 /proc/self/mountinfo`},
		{"link", `ip -o link | cut -d: -f2- | sed 's/@if[0-9]*//'`},
		{"address", `ip -o addr | cut -d: -f2-`},
		{"route", `ip -d route show table all; ip -d -6 route show table all`},
		{"neighbour", `ip neigh show nud permanent; ip -6 neigh show nud permanent; bridge fdb`},
		{"ip rule", `ip rule; ip -6 rule`},
		{"namespace", `ls /run/netns 2>/dev/null; true`},
		{"socket", `ss -Hlntu | awk '{print $1, $4, $5}'; ss -Hlx | awk '{print $5}'`},
		{"nft", `nft -s list ruleset`},
		{"iptables", `iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; ip6tables-legacy-save`},
		{"cgroup", `find /sys/fs/cgroup -type d`},
		{"unit", `[ ! -d /run/systemd/system ] || systemctl list-units --all --plain --no-legend --no-pager | awk '$1 !~ /^(network-online.target$|proc-sys-)/ {print $1, $2, $3, $4}'`},
		{"unit file", `[ ! -d /run/systemd/system ] || systemctl list-unit-files --no-legend --no-pager`},
	} {
		s.add(c.kind, h.Output(t, "sh", "-c", c.script))
	}
	s.addProcesses(t, h)
	s.addSettings(h)
	for _, dir := range []string{"/etc", "/boot", "/home", "/opt", "/srv", "/tmp", "/usr/local", "/usr/libexec",
		"/usr/share/bash-completion", "/run", "/dev/shm", "/var"} {
		s.addFiles(h, dir)
	}
	return s
}

// settings are those of the kernel that namespaces do not separate.
var settings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// OwnSettings gives a host files in the place of the settings that it shares with
// the machine, until it reboots. They have values that lite does not give them.
func OwnSettings(t testing.TB, h *cluster.Host) {
	t.Helper()
	for _, name := range settings {
		file := "/etc/settings/" + filepath.Base(name)
		h.Output(t, "sh", "-c", "mkdir -p /etc/settings && printf 7 >"+file+" && mount --bind "+file+" /proc/sys/"+name)
	}
}

// CompleteSettings does what a kernel would have done with a value that a killed
// process was just writing back: it takes all of it or nothing, and a file that
// stands in for a setting is empty in between.
func CompleteSettings(t testing.TB, h *cluster.Host) {
	t.Helper()
	h.Output(t, "sh", "-c", `for f in /etc/settings/*; do [ -s "$f" ] || printf 7 >"$f"; done`)
}

// settle waits until the kernel has made sure that nobody else has the addresses
// of a host.
func settle(t testing.TB, h *cluster.Host) {
	t.Helper()
	cluster.Eventually(t, time.Minute, func() error {
		addrs := h.Output(t, "ip", "-6", "addr", "show", "scope", "link")
		if !strings.Contains(addrs, "fe80:") || strings.Contains(addrs, "tentative") {
			return fmt.Errorf("its addresses: %s", addrs)
		}
		return nil
	})
}

// counters are the packets and bytes that iptables-save prints with a chain.
var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// add takes each line of a text, and how often it is there.
func (s Snapshot) add(kind, text string) {
	count := map[string]int{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(counters.ReplaceAllString(line, ""))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		count[line]++
		s[fmt.Sprintf("%s: %s (%d)", kind, line, count[line])] = true
	}
}

// addProcesses takes the processes of the host but this test's.
func (s Snapshot) addProcesses(t testing.TB, h *cluster.Host) {
	var lines []string
	found, _ := filepath.Glob(h.Path("/proc/[0-9]*/cmdline"))
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			continue
		}
		lines = append(lines, strings.ReplaceAll(string(data), "\x00", " "))
	}
	slices.Sort(lines)
	s.add("process", strings.Join(lines, "\n"))
}

// unstable are settings that change by themselves, are the machine's and not the
// host's, or cannot be read twice alike.
var unstable = regexp.MustCompile(`^(kernel/(random|ns_last_pid|pty/nr|pid_max|sched|perf|panic|keys|tainted|seccomp|threads-max|acct|sem_next_id|core_)|fs/|vm/|debug/|dev/|net/netfilter/nf_conntrack_count|net/core/|.*/stable_secret)`)

// addSettings takes all settings of the kernel that are the host's own.
func (s Snapshot) addSettings(h *cluster.Host) {
	root := h.Path("/proc/sys")
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root+"/")
		if err != nil || entry.IsDir() || unstable.MatchString(name) {
			return nil
		}
		if data, err := os.ReadFile(path); err == nil {
			s.add("setting", name+" = "+string(data))
		}
		return nil
	})
	for _, name := range settings {
		data, _ := os.ReadFile(filepath.Join(root, name))
		s.add("setting", name+" = "+string(data))
	}
}

// addFiles takes the files in a directory and those mounted below it: their
// modes, and what is in them if that is little.
func (s Snapshot) addFiles(h *cluster.Host, dir string) {
	root := h.Path("/")
	_ = filepath.WalkDir(h.Path(dir), func(path string, entry fs.DirEntry, err error) error {
		name := "/" + strings.TrimPrefix(path, root)
		name = filepath.Clean(name)
		if err != nil {
			return nil
		}
		if name == transient {
			return nil
		}
		if elsewhere[name] {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		line := fmt.Sprintf("%s %v", name, info.Mode())
		switch {
		case info.Mode().Type() == fs.ModeSymlink:
			to, _ := os.Readlink(path)
			line += " -> " + to
		case info.Mode().IsRegular() && info.Size() <= 64<<10:
			data, _ := os.ReadFile(path)
			line += fmt.Sprintf(" %x", sha256.Sum256(data))
		case info.Mode().IsRegular():
			line += fmt.Sprintf(" %d bytes", info.Size())
		}
		s.add("file", line)
		return nil
	})
}

// transient is where systemd keeps units that programs have it make. It makes the
// directory for the first one and leaves it. What is in it is looked at.
const transient = "/run/systemd/transient"

// elsewhere is not looked at: a lock that all programs of iptables share, what
// the program mount keeps, the tools of whoever builds lite, and what systemd
// and OpenRC write about whatever runs. Nor is the home of root, where kubectl keeps its
// memory of the API, and people work while the test runs.
var elsewhere = map[string]bool{
	"/run/xtables.lock": true, "/run/mount": true, "/usr/local/go": true,
	"/run/openrc/deptree":  true,
	"/run/systemd/journal": true, "/run/log/journal": true, "/var/log/journal": true,
}

// Forget takes out the files below a path.
func (s Snapshot) Forget(path string) {
	for line := range s {
		if rest, ok := strings.CutPrefix(line, "file: "+path); ok && (rest[0] == ' ' || rest[0] == '/') {
			delete(s, line)
		}
	}
}

// Compare fails the test if a machine is not as it was.
func Compare(t testing.TB, was, is Snapshot) {
	t.Helper()
	var lines []string
	for line := range is {
		if !was[line] {
			lines = append(lines, "left: "+line)
		}
	}
	for line := range was {
		if !is[line] {
			lines = append(lines, "gone: "+line)
		}
	}
	slices.Sort(lines)
	if len(lines) > 60 {
		lines = append(lines[:60], fmt.Sprintf("and %d more", len(lines)-60))
	}
	if len(lines) > 0 {
		t.Errorf("the machine is not as it was before lite:\n%s", strings.Join(lines, "\n"))
	}
}
