package probe

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"

	"lite.io/lite/pkg/file"
)

// Feature is one of the kernel without which no pod has a network.
type Feature struct{ Module, Option, Path string }

// Features is those that show by a file, those first whose modules need others.
func Features() []Feature {
	return []Feature{
		{"br_netfilter", "CONFIG_BRIDGE_NETFILTER", "/proc/sys/net/bridge/bridge-nf-call-iptables"},
		{"nf_conntrack", "CONFIG_NF_CONNTRACK", "/proc/sys/net/netfilter/nf_conntrack_max"},
	}
}

// Err is the error that the kernel does not have it.
func (f Feature) Err() error {
	return fmt.Errorf("kernel feature %s is missing (no %s); load it with `modprobe %s` or use a kernel built with %s", f.Module, f.Path, f.Module, f.Option)
}

// LoadFeatures loads the modules of features that are missing, where that is
// possible.
func LoadFeatures() error {
	var errs []error
	for _, f := range Features() {
		if This.exists(f.Path) {
			continue
		}
		// What matters is whether the file exists afterwards.
		_ = exec.Command("modprobe", f.Module).Run()
		if !This.exists(f.Path) {
			errs = append(errs, f.Err())
		}
	}
	return errors.Join(errs...)
}

// LoadedModules is sorted.
func (r Root) LoadedModules() []string {
	all := map[string]bool{}
	for line := range strings.Lines(r.text("/proc/modules")) {
		if fields := strings.Fields(line); len(fields) > 0 {
			all[fields[0]] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Modules is the directory with the modules of a release of the kernel, "" if there is none.
func (r Root) Modules(release string) string {
	for _, dir := range []string{"/lib/modules/", "/usr/lib/modules/"} {
		if dir += release; r.exists(dir + "/modules.dep") {
			return dir
		}
	}
	return ""
}

// HasModule finds a module of a release of the kernel in the lists of depmod.
func (r Root) HasModule(release, module string) bool {
	dir := r.Modules(release)
	if dir == "" {
		return false
	}
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		for l := range strings.Lines(r.text(dir + "/" + list)) {
			file, _, _ := strings.Cut(strings.TrimSpace(l), ":")
			name, _, _ := strings.Cut(path.Base(file), ".ko")
			if strings.ReplaceAll(name, "-", "_") == module {
				return true
			}
		}
	}
	return false
}

// KernelOptions reads the build options of a release of the kernel, and returns where they are from; nil if
// they are unknown.
func (r Root) KernelOptions(release string) (options map[string]string, source string) {
	for _, name := range []string{"/proc/config.gz", "/boot/config-" + release, "/lib/modules/" + release + "/config",
		"/usr/lib/modules/" + release + "/config"} {
		data, err := file.ReadRegular(r.path(name))
		if err != nil {
			continue
		}
		var in io.Reader = bytes.NewReader(data)
		if strings.HasSuffix(name, ".gz") {
			if in, err = gzip.NewReader(in); err != nil {
				continue
			}
		}
		options := map[string]string{}
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			if key, value, ok := strings.Cut(scanner.Text(), "="); ok && strings.HasPrefix(key, "CONFIG_") {
				options[key] = value
			}
		}
		if len(options) > 0 {
			return options, name
		}
	}
	return nil, ""
}
