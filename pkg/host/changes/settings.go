package changes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const sysDir = "/proc/sys"

// settings are those that lite and the parts of Kubernetes within it change, and
// the values they give them; "" is one that depends. Switching forwarding on and
// off makes the kernel change those of interfaces too.
var settings = map[string]string{
	"net/ipv4/ip_forward":                                "1",
	"net/ipv4/conf/*/forwarding":                         "1",
	"net/ipv4/conf/*/accept_redirects":                   "",
	"net/ipv4/conf/*/route_localnet":                     "1",
	"net/ipv6/conf/*/forwarding":                         "1",
	"net/ipv6/conf/*/accept_redirects":                   "",
	"net/bridge/bridge-nf-call-iptables":                 "1",
	"net/bridge/bridge-nf-call-ip6tables":                "1",
	"net/netfilter/nf_conntrack_max":                     "",
	"net/netfilter/nf_conntrack_buckets":                 "",
	"net/netfilter/nf_conntrack_tcp_timeout_established": "86400",
	"net/netfilter/nf_conntrack_tcp_timeout_close_wait":  "3600",
	"vm/overcommit_memory":                               "1",
	"vm/panic_on_oom":                                    "0",
	"kernel/panic":                                       "10",
	"kernel/panic_on_oops":                               "1",
	"kernel/keys/root_maxkeys":                           "1000000",
	"kernel/keys/root_maxbytes":                          "25000000",
}

// ReadSettings is the values of all of them that there are.
func ReadSettings() map[string]string {
	values := map[string]string{}
	for pattern := range settings {
		found, _ := filepath.Glob(filepath.Join(sysDir, pattern))
		for _, path := range found {
			if data, err := os.ReadFile(path); err == nil {
				values[strings.TrimPrefix(path, sysDir+"/")] = strings.TrimSpace(string(data))
			}
		}
	}
	return values
}

// settingOf is the value that lite gives a setting.
func settingOf(path string) string {
	for pattern, value := range settings {
		if ok, _ := filepath.Match(pattern, path); ok {
			return value
		}
	}
	return ""
}

// Setting is one of the kernel's, by its path below /proc/sys.
type Setting struct{ Path, Value string }

// Write gives the kernel a setting; one without a value is left as it is.
func (s Setting) Write() error {
	if s.Value == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(sysDir, s.Path), []byte(s.Value), 0o600); err != nil {
		return fmt.Errorf("restore %s to %s: %w", dotted(s.Path), s.Value, err)
	}
	return nil
}

// Undo is what has to be done with settings for the kernel to be as it was before lite.
type Undo struct {
	// Settings are those that are still what lite has made them, those first that change others.
	Settings []Setting
	Left     []string // which others stay, and why

	now, want map[string]string
}

// Undo finds out what to do, and touches nothing.
func (r Record) Undo() Undo {
	u := Undo{now: ReadSettings(), want: map[string]string{}}
	configured := readSysctls("/")
	for path, value := range u.now {
		before, known := r.Settings[path]
		switch {
		case !known || value == before:
		case configured.sets(path, value):
			u.Left = append(u.Left, fmt.Sprintf("%s = %s, which the machine's configuration sets; it was %s before lite", dotted(path), value, before))
		case configured.sets(governor(path), u.now[governor(path)]):
			// The kernel has set it for that one's sake.
		case value == r.Set[path] || value == settingOf(path):
			u.want[path] = before
		default:
			u.Left = append(u.Left, fmt.Sprintf("%s = %s, which somebody has set since then; it was %s before lite", dotted(path), value, before))
		}
	}
	for _, path := range slices.SortedFunc(maps.Keys(u.want), func(a, b string) int { return strings.Compare(order(a), order(b)) }) {
		u.Settings = append(u.Settings, Setting{path, u.want[path]})
	}
	return u
}

// Drifted is what writing Settings has changed besides, as switching forwarding off does.
func (u Undo) Drifted() (all []Setting) {
	for path, value := range ReadSettings() {
		if value == u.now[path] || value == u.want[path] {
			continue
		}
		if before, ours := u.want[path]; ours {
			all = append(all, Setting{path, before})
		} else {
			all = append(all, Setting{path, u.now[path]})
		}
	}
	return all
}

// governor is the setting that changes this one when it is switched, "" if there is none.
func governor(path string) string {
	if name := filepath.Base(path); name != "forwarding" && name != "accept_redirects" {
		return ""
	}
	switch family, _, _ := strings.Cut(strings.TrimPrefix(path, "net/"), "/conf/"); family {
	case "ipv4":
		return "net/ipv4/ip_forward"
	case "ipv6":
		return "net/ipv6/conf/all/forwarding"
	}
	return ""
}

// order puts those first that change others.
func order(path string) string {
	if path == "net/ipv4/ip_forward" || path == "net/ipv6/conf/all/forwarding" || path == "net/ipv4/conf/all/forwarding" ||
		path == "net/netfilter/nf_conntrack_max" {
		return "0" + path
	}
	return "1" + path
}

func dotted(path string) string { return strings.ReplaceAll(path, "/", ".") }
