// Package probe reads what the machine is and what it can do: interfaces and routes, memory, cgroups,
// capabilities, features of the kernel. It has one reader for each fact, so that a start, the defaults of the
// configuration and `lite check` cannot disagree. It changes nothing, except that [LoadFeatures] loads modules.
// Name servers are package resolver's, and what writes packet filter rules is package netfilter's.
package probe

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lite.io/lite/pkg/file"
)

// Root is the directory with the files of a machine. Tests make up others than This.
type Root string

// This is the machine that the process runs on.
const This Root = "/"

func (r Root) path(name string) string { return filepath.Join(string(r), name) }

func (r Root) exists(name string) bool {
	_, err := os.Stat(r.path(name))
	return err == nil
}

// text is what a file holds, "" if it cannot be read.
func (r Root) text(name string) string {
	data, _ := file.ReadRegular(r.path(name))
	return strings.TrimSpace(string(data))
}

// HasSystemd reports whether systemd is PID 1, and so the one that makes cgroups.
func HasSystemd() bool { return This.exists("/run/systemd/system") }

// HasCapability reports whether this process has one of capabilities(7) in effect.
func (r Root) HasCapability(bit uint) bool {
	for line := range strings.Lines(r.text("/proc/self/status")) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set&(1<<bit) != 0
		}
	}
	return false
}

// Memory is how many bytes the machine has; false if unknown.
func (r Root) Memory() (total uint64, ok bool) {
	for line := range strings.Lines(r.text("/proc/meminfo")) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			n, err := strconv.ParseUint(f[1], 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// BootID is another one after each boot.
func (r Root) BootID() string { return r.text("/proc/sys/kernel/random/boot_id") }
