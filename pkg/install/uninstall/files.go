package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"lite.io/lite/pkg/install/inventory"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// kubeletNames is what a kubelet creates in its directory (1.37, and older ones).
var kubeletNames = []string{
	"pods", "plugins", "plugins_registry", "plugin-containers", "pod-resources", "pods-api", "device-plugins", "checkpoints",
	"image_manager", "usernamespaces", "cpu_manager_state", "memory_manager_state", "dra_manager_state", "dra_health_state",
	"graceful_node_shutdown_state",
	"actuated_pods_state", "allocated_pods_state", "actuated_pod_status_state", "allocated_pod_status_state",
	"pod_status_manager_state",
}

// checkDataDir refuses directories that belong to the machine, whatever they contain.
func checkDataDir(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return fmt.Errorf("data-dir %q must be an absolute path in its shortest form", dir)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	for _, path := range []string{dir, real} {
		if isSystemDir(path) {
			return fmt.Errorf("data-dir %s is a directory of the machine, from which nothing is removed; remove lite's files by hand: docs/files.md lists them", path)
		}
	}
	return nil
}

func isSystemDir(path string) bool {
	switch filepath.Dir(path) {
	case "/":
		// /data may be one for data; those of a machine are known.
		return slices.Contains([]string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32",
			"/lost+found", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var"}, path)
	case "/home":
		return true
	case "/var":
		return slices.Contains([]string{"/var/lib", "/var/log", "/var/run", "/var/tmp", "/var/cache", "/var/spool", "/var/mail", "/var/opt",
			"/var/local"}, path)
	case "/usr":
		return true
	case "/var/lib":
		host := layout.Default().Host
		return slices.Contains([]string{host.Kubelet, host.CNI, "/var/lib/docker", "/var/lib/containerd", "/var/lib/rancher",
			"/var/lib/etcd"}, path)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/boot", "/etc", "/usr/bin", "/usr/sbin", "/usr/lib", "/bin", "/sbin", "/lib"} {
		if _, ok := within(dir, path); ok {
			return true
		}
	}
	return false
}

// removeState removes what a reboot would: containerd's sockets, the state of
// containers, addresses given out, and the caches of our network.
func (w *work) removeState() {
	for _, result := range w.cniResults() {
		if err := os.Remove(result.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.Fail(err)
		}
	}
	for _, name := range names(string(w.RunDir)) {
		if path := filepath.Join(string(w.RunDir), name); path != w.RunDir.Before() {
			w.remove(path)
		}
	}
}

// removeService makes the init system forget lite.
func (w *work) removeService(ctx context.Context) {
	manager, err := w.manager()
	if err != nil {
		if !errors.Is(err, service.ErrNone) {
			w.Fail(err)
		}
		return
	}
	w.Step("Disabling the service %s (%s)", layout.Service, manager.Name())
	if err := manager.Disable(ctx); err != nil {
		w.Fail(err)
	}
	installed := w.installed()
	if !slices.Contains(installed, manager.Unit()) {
		w.Leave("%s, which the installer has not created", manager.Unit())
		return
	}
	w.removeInstalled(slices.DeleteFunc(installed, func(path string) bool {
		return path != manager.Unit() && !strings.HasPrefix(path, manager.Unit()+".d/")
	}))
	w.Fail(manager.Reload(ctx))
	w.removeServiceCgroup(manager)
}

// removeFiles removes files, the program itself last, so that a failed uninstall can be
// repeated.
func (w *work) removeFiles() {
	installed := w.installed()
	if w.KeepData {
		w.Leave("data in %s, configuration in %s, volumes of pods in %s and their logs in %s (--keep-data)",
			strings.Join(w.DataDirs, " and "), w.ConfigDir, w.KubeletDir, w.Host.PodLogs)
		// The directory of configuration has what a user would set again.
		installed = slices.DeleteFunc(installed, func(path string) bool {
			_, config := within(string(w.ConfigDir), path)
			return config
		})
	} else {
		w.removeData()
	}
	w.remove(string(w.RunDir))
	self, _ := os.Executable()
	var program []string
	for _, path := range installed {
		if _, around := within(path, self); around { // the program, or a directory for it
			program = append(program, path)
		}
	}
	if len(installed) > 0 {
		w.Step("Removing what the installer has installed")
	}
	w.removeInstalled(slices.DeleteFunc(slices.Clone(installed), func(path string) bool {
		_, config := within(string(w.ConfigDir), path)
		return slices.Contains(program, path) || config
	}))
	switch {
	case len(w.failed) > 0:
		w.Leave("%s and %s, to run this again", self, w.ConfigDir.Installed())
		return
	case len(program) == 0:
		w.Leave("%s, which the installer has not installed: remove it with `rm %s`", self, self)
	}
	if w.KeepData {
		w.removeInstalled([]string{w.ConfigDir.Installed()})
	} else {
		w.remove(string(w.ConfigDir))
	}
	if len(program) > 0 { // what an upgrade that was killed leaves beside it
		program = append(program, layout.Staged(self))
	}
	w.removeInstalled(program)
}

// removeData removes what a node remembers.
func (w *work) removeData() {
	if w.hasRun {
		if exists(w.KubeletDir) {
			w.Step("Removing %s", w.KubeletDir)
			w.removeNames(w.KubeletDir, kubeletNames)
		}
		w.removeLogs()
		w.removeAuditLog()
		w.removeNames(filepath.Join(w.Host.CNI, "results"), nil)
		w.removeNames(w.Host.CNI, nil)
	}
	// After that, because they show that lite has run here.
	for _, dir := range w.DataDirs {
		w.removeDataDir(dir)
	}
	w.removeServiceLog()
	if w.Kubeconfig != "" && filepath.Dir(w.Kubeconfig) != string(w.ConfigDir) {
		w.removeInstalled([]string{w.Kubeconfig})
	}
	// The directory of configuration, except for the list of what is still to be removed.
	for _, name := range names(string(w.ConfigDir)) {
		if path := filepath.Join(string(w.ConfigDir), name); path != w.ConfigDir.Installed() {
			w.remove(path)
		}
	}
	for _, kept := range []struct{ what, path string }{{"volumes in", w.Volumes}, {"the audit log", w.AuditLog}} {
		if kept.path != "" && kept.path != w.OwnLog && exists(kept.path) &&
			!slices.ContainsFunc(w.DataDirs, func(dir string) bool { _, in := within(dir, kept.path); return in }) {
			w.Leave("%s %s, which you have configured", kept.what, kept.path)
		}
	}
}

// removeDataDir removes what is lite's in a data directory, and the directory unless it is
// a link, a mount, or not empty. It removes the lock last: until then no lite starts there,
// and another uninstall recognizes it as a data directory.
func (w *work) removeDataDir(dir string) {
	if !exists(dir) {
		return
	}
	named := dir != w.DefaultDir
	if named && !w.used[dir] {
		w.removeUnused(dir)
		return
	}
	w.Step("Removing %s", dir)
	at := layout.Data(dir)
	lock, storage := filepath.Base(at.Lock()), filepath.Base(at.Storage())
	all := at.Names()
	info, err := os.Lstat(dir)
	if !named && err == nil && info.IsDir() {
		all = append(all, names(dir)...)
		if mounted, _ := mountinfo.Mounted(dir); mounted {
			all = slices.DeleteFunc(all, func(name string) bool { return name == "lost+found" })
		}
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(name string) bool { return name == lock })
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		w.Fail(err)
		return
	}
	for _, name := range all {
		if named && name == storage {
			// lite has not created anything else in a directory of this name.
			w.removeNames(filepath.Join(real, name), startingWith(layout.VolumeNamesPrefix, names(filepath.Join(real, name))))
			continue
		}
		w.remove(filepath.Join(real, name))
	}
	if slices.ContainsFunc(all, func(name string) bool { return exists(filepath.Join(real, name)) }) {
		w.Leave("%s, until everything of lite's in it can be removed", at.Lock())
		return
	}
	w.removeNames(dir, []string{lock})
}

// removeUnused removes what the installer has put into a data directory that no lite has
// used. It is unknown whose the rest is.
func (w *work) removeUnused(dir string) {
	agent := layout.Data(dir).Agent()
	if !exists(agent.Images()) {
		return
	}
	w.removeNames(string(agent), []string{filepath.Base(agent.Images())})
	w.removeNames(dir, nil)
}

func startingWith(prefix string, all []string) []string {
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// removeLogs removes the logs of pods, and the links to them.
func (w *work) removeLogs() {
	pods, containers := w.Host.PodLogs, w.Host.ContainerLogs
	if exists(pods) {
		w.Step("Removing %s and %s", pods, containers)
		w.removeNames(pods, names(pods))
	}
	var links []string
	for _, name := range names(containers) {
		if to, err := os.Readlink(filepath.Join(containers, name)); err == nil && strings.HasPrefix(to, pods+"/") {
			links = append(links, name)
		}
	}
	w.removeNames(containers, links)
}

// removeAuditLog removes the audit log at its default path, with rotated files.
func (w *work) removeAuditLog() {
	dir, name := filepath.Split(w.OwnLog)
	rotated := startingWith(strings.TrimSuffix(name, filepath.Ext(name))+"-", names(dir))
	w.removeNames(filepath.Clean(dir), append(rotated, name))
}

// Where the installer lets OpenRC write what lite logs. systemd has a journal.
// removeServiceLog removes the log of the service and what logrotate made of it.
func (w *work) removeServiceLog() {
	if !slices.Contains(w.installed(), w.Host.OpenRCScript) {
		return
	}
	rotated, _ := filepath.Glob(w.Host.OpenRCLog + ".[0-9]*")
	for _, path := range append(rotated, w.Host.OpenRCLog) {
		w.remove(path)
	}
}

// removeNames removes entries of a directory, and then the directory if it is empty. Other
// entries stay, and so does a link or a mount.
func (w *work) removeNames(dir string, entries []string) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			w.Fail(err)
		}
		return
	}
	for _, name := range entries {
		w.remove(filepath.Join(real, name))
	}
	if info, err := os.Lstat(dir); err == nil && info.Mode().Type() == fs.ModeSymlink {
		w.Leave("%s, which is a link to %s, and that directory", dir, real)
		return
	}
	if mounted, _ := mountinfo.Mounted(real); mounted {
		w.Leave("%s, which is a mount point", dir)
		return
	}
	if rest := names(real); len(rest) > 0 {
		slices.Sort(rest)
		w.Leave("%s, which contains files of others: %s", dir, summary(rest))
		return
	}
	if err := os.Remove(real); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Fail(err)
	}
}

func summary(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// installed is what the installer has put on the machine. A line that it cannot have
// written is reported and left alone.
func (w *work) installed() []string {
	installed, err := inventory.Read(w.ConfigDir.Installed())
	w.Fail(err)
	var paths []string
	for _, line := range installed {
		path, _, ok := inventory.Path(line)
		switch {
		case path == "":
		case !ok:
			w.Leave("%q, which %s names: it is not an absolute path", path, w.ConfigDir.Installed())
		default:
			paths = append(paths, path)
		}
	}
	return paths
}

// removeInstalled removes files and links, and directories that are empty, those
// below others first.
func (w *work) removeInstalled(paths []string) {
	slices.Sort(paths)
	for _, path := range slices.Backward(paths) {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.IsDir() && len(names(path)) > 0 {
			w.Leave("%s, which is not empty", path)
			continue
		}
		if err == nil && othersProgram(path, info) {
			w.Leave("%s, which is now a program of others", path)
			continue
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.Fail(err)
		}
	}
}

// othersProgram reports whether somebody has replaced what the installer had put there with
// their own program.
func othersProgram(path string, info fs.FileInfo) bool {
	if info.IsDir() {
		return false
	}
	if name := filepath.Base(path); info.Mode().IsRegular() && slices.Contains(layout.ToolLinks(), name) {
		return true // a link, as it was made
	}
	f, err := os.Open(path)
	if err != nil {
		return false // a link to nothing
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, _ := f.Read(magic)
	return string(magic[:n]) == "\x7fELF" && !service.IsProgram(path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
