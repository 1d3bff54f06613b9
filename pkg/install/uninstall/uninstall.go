// Package uninstall removes lite from a machine, or stops all of it: the service, pods,
// mounts, network, cgroups, files and kernel settings that lite and its Kubernetes
// components have created, and nothing of others. How each thing is known to be lite's is
// in docs/uninstall.md.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"lite.io/lite/pkg/host/changes"
	"lite.io/lite/pkg/host/netfilter"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// Installation is what lite has on this machine, and where.
type Installation struct {
	DataDirs   []string   // of every lite that has run since boot, the configured one first
	DefaultDir string     // a data directory that is named after lite, so that all in it is lite's
	RunDir     layout.Run // what a reboot makes worthless
	ConfigDir  layout.Config
	KubeletDir string      // which a user may have named
	Host       layout.Host // in directories of the machine's
	Kubeconfig string      // "" = none is written
	// Volumes and AuditLog are the paths that users have set for them.
	Volumes  string
	AuditLog string
	OwnLog   string // the default path of the audit log
	Agent    bool
	Name     string // of the Node object

	Bridge   string // of the pod network
	Tunnels  []string
	Protocol int    // of routes to other nodes
	Network  string // its name in descriptions of the CNI
}

// Options is what a user may choose.
type Options struct {
	// Grace is how long containers may take to end on their own.
	Grace    time.Duration
	KeepData bool
}

// work is one killall or uninstall.
type work struct {
	Installation
	Options
	*Report
	record changes.Record
	seen   containers
	holds  []*service.Hold
	// programs are the machine's, or the bundled ones.
	programs netfilter.Programs
	// used are the data directories that a lite has used. Others may have files of somebody
	// else with names that lite uses, too.
	used map[string]bool
	// hasRun: lite has run here, so that what a kubelet creates in its directory and for
	// its pods is lite's. hadRun: it has since boot, so that what Kubernetes creates under
	// names that others use, too, is lite's.
	hasRun, hadRun bool
	// other is the socket of another kubelet, whose pods cannot be distinguished from
	// lite's.
	other string
}

// Kill stops lite and all its pods and removes what they have set up on the machine. Data
// stays, and lite can start again on it.
func Kill(ctx context.Context, n Installation, o Options, r *Report) error {
	return change(ctx, n, o, r, func(w *work) error {
		if !w.present() {
			r.Step("Nothing to do: lite is not on this machine.")
			return nil
		}
		if err := w.kill(ctx); err != nil {
			return err
		}
		return r.end()
	})
}

// Remove is Kill, and then removes lite from the machine; with KeepData, its configuration
// and data stay.
func Remove(ctx context.Context, n Installation, o Options, r *Report) error {
	return change(ctx, n, o, r, func(w *work) error {
		if !w.present() {
			r.Step("Nothing to do: lite is not on this machine.")
			w.removeFiles()
			return r.end()
		}
		if err := w.kill(ctx); err != nil {
			return err
		}
		w.undoFixes(ctx)
		w.restoreKernel()
		w.removeService(ctx)
		w.removeFiles()
		return r.end()
	})
}

// change does something that nobody else may do at the same time.
func change(ctx context.Context, n Installation, o Options, r *Report, do func(*work) error) error {
	if err := checkNamespaces("/proc/self/ns", "/proc/1/ns"); err != nil {
		return err
	}
	before, err := begin(n, o, NewReport(io.Discard))
	if err != nil {
		return err
	}
	c, err := service.BeginChange(ctx, func(text string) { r.Step("%s", text) }, append([]string{string(n.ConfigDir)}, before.DataDirs...)...)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := begin(n, o, r) // the process that was waited for may have removed something
	if err != nil {
		return err
	}
	defer w.release()
	return do(w)
}

// checkNamespaces refuses to work where mounts, processes or interfaces are not
// those of the machine.
func checkNamespaces(own, machine string) error {
	for _, name := range []string{"mnt", "pid", "net", "cgroup"} {
		is, err := os.Readlink(filepath.Join(own, name))
		want, errWant := os.Readlink(filepath.Join(machine, name))
		if err == nil && errWant == nil && is != want {
			return fmt.Errorf("this runs in a namespace of its own (%s), for example in a container, and does not see the whole machine; run it on the machine itself, or as `nsenter --all -t 1 lite ...`", name)
		}
	}
	return nil
}

// Present reports whether there is anything of lite on the machine but its
// program.
func Present(n Installation) bool {
	w, err := begin(n, Options{}, NewReport(io.Discard))
	return err != nil || w.present()
}

func (w *work) present() bool {
	if exists(string(w.RunDir)) || exists(string(w.ConfigDir)) {
		return true
	}
	for _, dir := range w.DataDirs {
		for _, name := range layout.Data(dir).Names() {
			if exists(filepath.Join(dir, name)) {
				return true
			}
		}
	}
	_, err := w.manager()
	return !errors.Is(err, service.ErrNone)
}

func begin(n Installation, o Options, r *Report) (*work, error) {
	w := &work{Installation: n, Options: o, Report: r, hadRun: exists(string(n.RunDir)), used: map[string]bool{}}
	w.hasRun = w.hadRun
	var err error
	if w.record, err = changes.Read(n.RunDir); err != nil {
		r.Fail(err)
	}
	for _, dir := range w.record.DataDirs {
		if !slices.Contains(w.DataDirs, dir) {
			w.DataDirs = append(w.DataDirs, dir)
		}
	}
	for _, dir := range w.DataDirs {
		if err := checkDataDir(dir); err != nil {
			return nil, err
		}
		if exists(layout.Data(dir).Lock()) {
			w.used[dir], w.hasRun = true, true
		}
	}
	return w, nil
}

// kill fails only if lite still runs: then nothing else is changed.
func (w *work) kill(ctx context.Context) error {
	w.findHelpers()
	w.seen = w.findContainers()
	if w.isOurs(os.Getpid()) {
		return errors.New("this runs in a pod of the node that it would stop; run it on the machine itself")
	}
	if err := w.stopLite(ctx); err != nil {
		return err
	}
	w.findOther()
	w.seen = w.findContainers() // more may have been started meanwhile
	if err := w.stopPods(ctx); err != nil {
		return err
	}
	w.unmount()
	w.removeLinks()
	w.removeRoutes()
	w.removeRules(ctx)
	w.removeCgroups(ctx)
	w.removeState()
	return ctx.Err()
}

// stopLite stops lite, and keeps every other from starting.
func (w *work) stopLite(ctx context.Context) error {
	manager, err := w.manager()
	if err != nil && !errors.Is(err, service.ErrNone) {
		return fmt.Errorf("look for the service: %w", err)
	}
	if err == nil {
		active, err := manager.Active(ctx)
		if err != nil {
			return err
		}
		if active {
			w.Step("Stopping the service %s (%s)", layout.Service, manager.Name())
			if err := manager.Stop(ctx); err != nil {
				return err
			}
		}
	}
	for _, dir := range w.DataDirs {
		if !w.used[dir] {
			continue
		}
		hold, other, err := service.TryHold(dir)
		if other != nil {
			w.Step("Stopping lite (pid %d)", other.PID)
			hold, err = other.Stop(ctx, dir)
		}
		if hold != nil {
			w.holds = append(w.holds, hold)
		}
		if err == nil && other != nil {
			err = other.End(ctx)
		}
		if err != nil {
			return err
		}
		// An upgrade that has died may have stopped one that waits to start again.
		if err := service.EndOpeners(ctx, layout.Data(dir).Driver()); err != nil {
			return err
		}
	}
	return nil
}

// manager is the init system that lite is a service of. Others may have a service of the
// same name.
func (w *work) manager() (service.Manager, error) {
	m, err := service.Find()
	if err != nil || slices.Contains(w.installed(), m.Unit()) {
		return m, err
	}
	if text := readText(m.Unit()); text != "" && !ourUnit.MatchString(text) {
		return nil, service.ErrNone
	}
	return m, nil
}

// ourUnit is how a service starts lite.
var ourUnit = regexp.MustCompile(`\blite\S*["']?\s+(server|agent)\b`)

// findOther finds another kubelet that uses the same directory. Call it when that of lite
// has ended.
func (w *work) findOther() {
	dirs := []string{w.KubeletDir}
	if real, err := filepath.EvalSymlinks(w.KubeletDir); err == nil {
		dirs = append(dirs, real)
	}
	for line := range strings.Lines(readText("/proc/net/unix")) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 8)
		path := strings.TrimSpace(fields[len(fields)-1])
		for _, dir := range dirs {
			if path == dir+"/pod-resources/kubelet.sock" || path == dir+"/device-plugins/kubelet.sock" {
				w.other = path
			}
		}
	}
	if w.other == "" {
		return
	}
	w.hasRun, w.hadRun = false, false
	w.Leave("%s, logs of pods, kernel settings, and interfaces, rules and cgroups with names of Kubernetes: another kubelet is running on this machine (%s is its); if they are lite's, stop it and run this again", w.KubeletDir, w.other)
}

func (w *work) release() {
	for _, h := range w.holds {
		h.Close()
	}
}

// findHelpers finds the bundled programs for the packet filter, of whichever version: a
// machine without nft or iptables has only these.
func (w *work) findHelpers() {
	for _, dir := range w.DataDirs {
		for _, name := range []string{"nft", "bin"} {
			found, _ := filepath.Glob(filepath.Join(layout.Data(globQuote(dir)).Helpers("*").Netfilter(), name))
			w.programs.Dirs = append(w.programs.Dirs, found...)
		}
	}
}
