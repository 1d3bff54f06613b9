package uninstall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/layout"
)

// record is what the machine was like before lite ran on it for the first time
// since boot. A reboot makes it worthless, and what it is about too.
type record struct {
	Boot string `json:"boot"`
	// DataDirs are of all that have run since boot.
	DataDirs []string `json:"dataDirs"`
	// Settings are those of the kernel, by their paths below /proc/sys.
	Settings map[string]string `json:"settings"`
	// Set is what lite has made of those that it has changed; nil if none has been
	// ready since boot.
	Set     map[string]string `json:"set"`
	Modules []string          `json:"modules"`
	// Tables and chains of nftables that programs named iptables have made. Nil
	// if that is not known.
	Tables []string `json:"tables"`
}

const (
	sysDir   = "/proc/sys"
	bootFile = sysDir + "/kernel/random/boot_id"
)

// Before is how the machine is before a start of lite.
type Before struct {
	runDir layout.Run
	now    record
	// tables is done when those of nftables are known: to list them takes longer than
	// all else.
	tables <-chan []string
	// settings are those that this start has found.
	settings map[string]string
}

// Look looks at the machine, unless that has been done since boot. Call it before
// anything is changed. Packet filter rules may be changed after Keep.
func Look(runDir layout.Run) *Before {
	b := &Before{runDir: runDir}
	if r, err := readRecord(runDir); err == nil && r.Boot != "" {
		return b
	}
	b.now = record{Boot: readText(bootFile), Settings: readSettings(), Modules: loadedModules()}
	tables := make(chan []string, 1)
	b.tables = tables
	go func() {
		w := &work{Report: NewReport(io.Discard)}
		tables <- w.tablesBefore(context.Background())
	}()
	return b
}

// tablesBefore is nil if they cannot be found out.
func (w *work) tablesBefore(ctx context.Context) []string {
	tables := []string{}
	if _, ok := w.find("nft"); ok {
		tables = append(tables, listTables(w.nft(ctx, "list", "tables"))...)
		tables = append(tables, listTables(w.nft(ctx, "list", "chains"))...)
	} else {
		for _, f := range w.fronts(ctx) {
			if !f.legacy {
				saved, err := w.run(ctx, nil, f.save)
				w.Fail(err)
				tables = append(tables, savedTables(f.family, saved)...)
			}
		}
	}
	if len(w.failed) > 0 {
		return nil
	}
	return tables
}

// Changed reports whether a module has been loaded since.
func (b *Before) Changed() bool {
	return b.now.Boot != "" && !slices.Equal(b.now.Modules, loadedModules())
}

// Keep writes down how the machine was, unless a start since boot has done so
// already, for an uninstall to bring back. It is to be called before the settings
// of the kernel are changed. dataDir is noted too; "" if it is none yet.
func (b *Before) Keep(dataDir string) error {
	if b.tables != nil {
		b.now.Tables, b.tables = <-b.tables, nil
	}
	r, err := readRecord(b.runDir)
	first := err != nil || r.Boot == ""
	if first {
		if r = b.now; r.Boot == "" {
			return nil // it was there a moment ago; an uninstall is under way
		}
	}
	// Those that came with a module are as the module has made them. Interfaces that
	// came later are as lite has made the kernel make them.
	b.settings = readSettings()
	for path, value := range b.settings {
		if _, known := r.Settings[path]; !known && (first || !strings.Contains(path, "/conf/")) {
			r.Settings[path] = value
		}
	}
	if dataDir != "" && !slices.Contains(r.DataDirs, dataDir) {
		r.DataDirs = append(r.DataDirs, dataDir)
	}
	return r.write(b.runDir)
}

// Ready writes down which settings of the kernel this start has changed, once lite is
// ready: only what is still so is lite's to undo. What differs from the start before
// was changed by somebody else. After starts that did not get as far, all that
// differs from the time before lite counts as lite's.
func (b *Before) Ready() error {
	r, err := readRecord(b.runDir)
	if err != nil || r.Boot == "" {
		return err
	}
	was := b.settings
	if r.Set == nil {
		was, r.Set = r.Settings, map[string]string{}
	}
	for path, value := range readSettings() {
		if before, known := was[path]; known && value != before {
			r.Set[path] = value
		}
	}
	return r.write(b.runDir)
}

func (r record) write(runDir layout.Run) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(runDir), file.Passable); err != nil {
		return fmt.Errorf("write down what the machine is like: %w", err)
	}
	if err := file.Write(runDir.Before(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write down what the machine is like: %w", err)
	}
	return nil
}

// readRecord returns an empty one if there is none of this boot.
func readRecord(runDir layout.Run) (record, error) {
	var r record
	data, err := os.ReadFile(runDir.Before())
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return record{}, fmt.Errorf("read what the machine was like: %w", err)
	}
	if r.Boot != readText(bootFile) {
		return record{}, nil
	}
	return r, nil
}

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

// readSettings is the values of all of them that there are.
func readSettings() map[string]string {
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

// restoreKernel brings back the settings that are still what lite has made them,
// and unloads the modules that it has loaded.
func (w *work) restoreKernel() {
	if w.other != "" {
		return // it needs them as they are
	}
	if w.record.Boot == "" {
		if w.hadRun {
			w.Leave("settings of the kernel: what they were before is not known; they last until the next boot (docs/files.md lists them)")
		}
		return
	}
	was, now, configured := w.record.Settings, readSettings(), readSysctls("/")
	want := map[string]string{}
	for path, value := range now {
		before, known := was[path]
		switch {
		case !known || value == before:
		case configured.says(path, value):
			w.Leave("%s = %s, as the machine's configuration says; it was %s before lite", dotted(path), value, before)
		case configured.says(governor(path), now[governor(path)]):
			// The kernel has set it for that one's sake.
		case value == w.record.Set[path] || value == settingOf(path):
			want[path] = before
		default:
			w.Leave("%s = %s, which somebody has set since; it was %s before lite", dotted(path), value, before)
		}
	}
	restore := slices.SortedFunc(maps.Keys(want), func(a, b string) int { return strings.Compare(order(a), order(b)) })
	if len(restore) > 0 {
		w.Step("Restoring %d settings of the kernel", len(restore))
	}
	for _, path := range restore {
		w.restoreSetting(path, want[path])
	}
	// To switch forwarding off has changed more.
	for path, value := range readSettings() {
		if value == now[path] || value == want[path] {
			continue
		}
		if before, ours := want[path]; ours {
			w.restoreSetting(path, before)
		} else {
			w.restoreSetting(path, now[path])
		}
	}
	w.unloadModules()
}

func (w *work) restoreSetting(path, value string) {
	if value == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(sysDir, path), []byte(value), 0o600); err != nil {
		w.Fail(fmt.Errorf("restore %s to %s: %w", dotted(path), value, err))
	}
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

// modules are those that lite asks the kernel to load, those first that need
// others.
var modules = []string{"br_netfilter", "nf_conntrack"}

// unloadModules unloads what lite has loaded and nobody uses.
func (w *work) unloadModules() {
	now := loadedModules()
	for _, name := range modules {
		if slices.Contains(w.record.Modules, name) || !slices.Contains(now, name) {
			continue
		}
		if err := unloadModule(name); err != nil {
			w.Leave("module %s, which lite has loaded: %v", name, err)
			continue
		}
		w.Step("Unloaded module %s", name)
	}
}

// loadedModules is sorted.
func loadedModules() []string {
	all := map[string]bool{}
	for line := range strings.Lines(readText("/proc/modules")) {
		if fields := strings.Fields(line); len(fields) > 0 {
			all[fields[0]] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func readText(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}
