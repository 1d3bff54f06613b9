package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// hierarchy is one mounted hierarchy of cgroups: one of several of version 1, or
// the one of version 2.
type hierarchy struct {
	mount string // where it is mounted
	root  string // the cgroup that is seen there
}

func hierarchies() []hierarchy {
	mounts, _ := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	var all []hierarchy
	for _, m := range mounts {
		root := m.Root
		if strings.HasPrefix(root, "/..") {
			root = "/" // above our cgroup namespace
		}
		all = append(all, hierarchy{m.Mountpoint, root})
	}
	return all
}

// tops is the names that the kubelet gives to the cgroup of all pods, directly and through
// systemd.
var tops = []string{layout.PodCgroup, layout.PodSlice}

// removeCgroups removes those of pods, and those above them once they are empty.
func (w *work) removeCgroups(ctx context.Context) {
	if w.hasRun {
		w.stopSlices(ctx)
	}
	reported := false
	for _, h := range hierarchies() {
		var dirs []string
		for _, top := range tops {
			if !w.hasRun {
				break
			}
			dirs = append(dirs, tree(filepath.Join(h.mount, top))...)
		}
		for group := range w.seen.groups {
			// Of a kubelet with another cgroup-root.
			if rel, ok := within(h.root, group); ok {
				dirs = append(dirs, tree(filepath.Join(h.mount, rel))...)
				dirs = append(dirs, above(filepath.Join(h.mount, rel))...)
			}
		}
		slices.Sort(dirs)
		dirs = slices.Compact(dirs)
		if len(dirs) > 0 && !reported {
			w.Step("Removing cgroups of pods")
			reported = true
		}
		for _, dir := range slices.Backward(dirs) { // children come after their parents
			w.removeCgroup(dir)
		}
	}
}

// removeServiceCgroup removes the cgroup of the service, in which the shims were. OpenRC
// leaves it behind, and with cgroup v1, systemd in a container does not notice that they
// have ended.
func (w *work) removeServiceCgroup(manager service.Manager) {
	groups := []string{"system.slice/" + layout.Service + ".service"}
	var dirs []string
	if manager.Name() == "OpenRC" {
		groups = []string{layout.Service, "openrc." + layout.Service}
		dirs = tree("/sys/fs/cgroup/openrc/" + layout.Service) // which may be in no hierarchy
	}
	for _, h := range hierarchies() {
		for _, group := range groups {
			dirs = append(dirs, tree(filepath.Join(h.mount, group))...)
		}
	}
	for _, dir := range slices.Backward(dirs) {
		w.removeCgroup(dir)
	}
}

// above is the cgroups of the kubelet that a pod's is in.
func above(dir string) []string {
	var dirs []string
	for dir = filepath.Dir(dir); dir != "/"; dir = filepath.Dir(dir) {
		name := filepath.Base(dir)
		if name == "burstable" || name == "besteffort" || strings.HasPrefix(name, layout.PodCgroup+"-") || slices.Contains(tops, name) {
			if exists(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// removeCgroup removes an empty cgroup. The kernel takes a moment to notice that the last
// process has ended.
func (w *work) removeCgroup(dir string) {
	deadline := time.Now().Add(killTimeout)
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
			return
		case errors.Is(err, unix.EBUSY) && len(tree(dir)) > 1:
			return // what is in it was left, and reported
		case errors.Is(err, unix.EBUSY) && len(processes(dir)) > 0:
			pid := processes(dir)[0]
			if !w.isOurs(pid) {
				w.Leave("cgroup %s contains process %d (%s), which is not lite's", dir, pid, nameOf(pid))
				return
			}
		case !errors.Is(err, unix.EBUSY):
			w.Fail(fmt.Errorf("remove cgroup %s: %w", dir, err))
			return
		}
		if time.Now().After(deadline) {
			w.Fail(fmt.Errorf("remove cgroup %s: it is still in use", dir))
			return
		}
		time.Sleep(pollEvery)
	}
}

func processes(dir string) []int {
	var pids []int
	data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, field := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// tree is a cgroup and all below it, none if it does not exist.
func tree(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone
		}
		if entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// stopSlices makes systemd forget the cgroups that it has created for the kubelet and runc,
// if all processes in them are gone.
func (w *work) stopSlices(ctx context.Context) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return
	}
	for _, h := range hierarchies() {
		for _, dir := range tree(filepath.Join(h.mount, layout.PodSlice)) {
			if len(processes(dir)) > 0 {
				return // removeCgroup reports whose
			}
		}
	}
	if out, err := w.programs.Run(ctx, nil, "systemctl", "list-units", "--all", "--no-legend", "--plain", layout.PodSlice); err != nil || strings.TrimSpace(out) == "" {
		return
	}
	_, err := w.programs.Run(ctx, nil, "systemctl", "stop", layout.PodSlice)
	w.Fail(err)
}
