package containerd

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
)

// known is the ways to run containers that are used where their program is on the
// machine. A pod asks for one by a RuntimeClass.
var known = []struct{ name, program, kind string }{
	// NVIDIA's toolkit: programs that are called like runc, and call runc.
	{"nvidia", "nvidia-container-runtime", runcV2},
	{"nvidia-cdi", "nvidia-container-runtime.cdi", runcV2},
	{"nvidia-legacy", "nvidia-container-runtime.legacy", runcV2},
	{"crun", "crun", runcV2},
	// These bring a shim of their own.
	{"kata", "containerd-shim-kata-v2", "io.containerd.kata.v2"},
	{"runsc", "containerd-shim-runsc-v1", "io.containerd.runsc.v1"},
	{"spin", "containerd-shim-spin-v2", "io.containerd.spin.v2"},
	{"wasmtime", "containerd-shim-wasmtime-v1", "io.containerd.wasmtime.v1"},
	{"wasmedge", "containerd-shim-wasmedge-v1", "io.containerd.wasmedge.v1"},
	{"wasmer", "containerd-shim-wasmer-v1", "io.containerd.wasmer.v1"},
}

// runtimeDirs is where their installers put them, beside PATH.
var runtimeDirs = []string{"/usr/local/nvidia/toolkit", "/opt/kata/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"}

// found is an installed runtime; its texts are quoted for TOML.
type found struct {
	Name, Type, Binary, Shim, Root string
}

// findRuntimes looks for the known ones in directories.
func (c Config) findRuntimes(dirs []string) (all []found) {
	for _, k := range known {
		i := slices.IndexFunc(dirs, func(dir string) bool { return filepath.IsAbs(dir) && executable(filepath.Join(dir, k.program)) })
		if i < 0 {
			continue
		}
		path := filepath.Join(dirs[i], k.program)
		f := found{Name: k.name, Type: k.kind, Shim: quote(path)}
		if k.kind == runcV2 {
			f.Shim, f.Binary = quote(c.Helpers.Shim()), quote(path)
			f.Root = quote(c.stateOf(k.name, path))
		}
		all = append(all, f)
	}
	return all
}

// stateOf is the directory of a runtime's state: NVIDIA's calls runc, whose state it
// is; others write theirs in their own way.
func (c Config) stateOf(name, binary string) string {
	base := filepath.Base(binary)
	if binary == "" || base == "runc" || strings.HasPrefix(base, "nvidia-container-runtime") {
		return c.StateDir.Runc()
	}
	return c.StateDir.Runtime(name)
}

// describeRuntimes is which runtimes there are, for people.
func describeRuntimes(cfg *srvconfig.Config) string {
	settings := table(cfg.Plugins, criRuntime, "containerd")
	names := slices.Sorted(maps.Keys(table(settings, "runtimes")))
	usual, _ := settings["default_runtime_name"].(string)
	if usual == "" {
		usual = "runc"
	}
	if i := slices.Index(names, usual); i >= 0 && len(names) > 1 {
		names[i] += " (default)"
	}
	return "runs containers by " + strings.Join(names, ", ")
}
