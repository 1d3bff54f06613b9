package uninstall

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// containers is what is known of the containers of this node, from the state of
// runc and the caches of containerd and the CNI.
type containers struct {
	running []container
	ids     map[string]bool // of containers and sandboxes, also of those that have ended
	groups  map[string]bool // their cgroups and those of their pods, as /proc/PID/cgroup has them
}

// container is runc's record of one.
type container struct {
	ID          string            `json:"id"`
	InitPID     int               `json:"init_process_pid"`
	InitStart   uint64            `json:"init_process_start"`
	CgroupPaths map[string]string `json:"cgroup_paths"`
}

const (
	// killTimeout is how long a killed process may take to end.
	killTimeout = 10 * time.Second
	pollEvery   = 20 * time.Millisecond
)

func (w *work) findContainers() containers {
	c := containers{ids: map[string]bool{}, groups: map[string]bool{}}
	hierarchies := hierarchies()
	states, _ := filepath.Glob(filepath.Join(w.RunDir.Containerd().Runtimes(), "*/*/state.json")) // runc, and programs that are like it
	for _, path := range states {
		var one container
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &one)
		}
		if err != nil {
			continue // it is being made or removed
		}
		c.running = append(c.running, one)
		c.ids[one.ID] = true
		for _, path := range one.CgroupPaths {
			if one.ID == "" || !strings.Contains(filepath.Base(path), one.ID) {
				continue // it shares one with others
			}
			for _, group := range groupsOf(hierarchies, path) {
				c.groups[group] = true
			}
		}
	}
	for _, pattern := range w.idPatterns() {
		found, _ := filepath.Glob(pattern)
		for _, path := range found {
			c.ids[filepath.Base(path)] = true
		}
	}
	for _, result := range w.cniResults() {
		c.ids[result.ContainerID] = true
	}
	for _, uid := range w.podUIDs() {
		for _, group := range podGroups(hierarchies, uid) {
			c.groups[group] = true
		}
	}
	return c
}

// podUIDs are those of the pods that the kubelet has.
func (w *work) podUIDs() []string {
	if !w.hasRun {
		return nil
	}
	return names(filepath.Join(w.KubeletDir, "pods"))
}

// idPatterns is the directories that are named after each container.
func (w *work) idPatterns() []string {
	state := w.RunDir.Containerd().State()
	patterns := []string{
		filepath.Join(state, "io.containerd.runtime.v2.task/*/*"),
		filepath.Join(state, "io.containerd.grpc.v1.cri/sandboxes/*"),
	}
	for _, dir := range w.DataDirs {
		patterns = append(patterns, filepath.Join(layout.Data(globQuote(dir)).Agent().Containerd().Root(),
			"io.containerd.grpc.v1.cri/sandboxes/*"))
	}
	return patterns
}

// podName is the last element of the path of a pod's cgroup, as the kubelet creates it
// directly and through systemd.
var podName = regexp.MustCompile(`^(pod|` + layout.PodCgroup + `(-burstable|-besteffort)?-pod)[0-9a-f]{8}[-_][-_0-9a-f]{27}(\.slice)?$`)

// groupsOf is the cgroup of a container, from its path in the file system, and
// that of its pod.
func groupsOf(hierarchies []hierarchy, path string) []string {
	var groups []string
	for _, h := range hierarchies {
		rel, ok := within(h.mount, path)
		if !ok || rel == "." {
			continue
		}
		group := filepath.Join(h.root, rel)
		groups = append(groups, group)
		if pod := filepath.Dir(group); podName.MatchString(filepath.Base(pod)) {
			groups = append(groups, pod)
		}
	}
	return groups
}

// podGroups is the cgroups of a pod that may have no container left.
func podGroups(hierarchies []hierarchy, uid string) []string {
	found := map[string]bool{}
	for _, h := range hierarchies {
		for _, pattern := range []string{layout.PodCgroup + "/pod" + uid, layout.PodCgroup + "/*/pod" + uid,
			layout.PodSlice + "/" + layout.PodCgroup + "-*pod" + strings.ReplaceAll(uid, "-", "_") + ".slice",
			layout.PodSlice + "/*/" + layout.PodCgroup + "-*pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"} {
			paths, _ := filepath.Glob(filepath.Join(h.mount, pattern))
			for _, path := range paths {
				if rel, ok := within(h.mount, path); ok {
					found[filepath.Join(h.root, rel)] = true
				}
			}
		}
	}
	return slices.Collect(maps.Keys(found))
}

// stopPods asks the containers to end, kills those that do not in time, and all else that
// was started for them.
func (w *work) stopPods(ctx context.Context) error {
	w.seen.running = slices.DeleteFunc(w.seen.running, func(c container) bool { return !c.runs() })
	if n := len(w.seen.running); n > 0 {
		w.Step("Stopping %d containers", n)
	}
	if err := w.askContainers(ctx); err != nil {
		return err
	}
	deadline := time.Now().Add(killTimeout)
	for {
		ours := w.ourProcesses()
		if len(ours) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			for _, pid := range ours {
				w.Fail(stuck(pid))
			}
			return nil
		}
		for _, pid := range ours {
			w.killOurs(pid)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// stuck is the error about a process that was killed and still exists.
func stuck(pid int) error {
	return fmt.Errorf("process %d (%s) was killed but does not end; it may be waiting for a disk or a server that does not answer", pid, nameOf(pid))
}

// killOurs kills a process, if it is still the one that was found.
func (w *work) killOurs(pid int) {
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer p.Release()
	if w.isOurs(pid) {
		_ = p.Kill()
	}
}

// askContainers sends SIGTERM to those that handle it, and gives them time.
func (w *work) askContainers(ctx context.Context) error {
	var asked []container
	for _, c := range w.seen.running {
		p, err := os.FindProcess(c.InitPID)
		if err != nil {
			continue
		}
		// A process without a handler is process 1 of its namespace, and never gets the
		// signal.
		if handles(c.InitPID, unix.SIGTERM) && w.Grace > 0 && p.Signal(unix.SIGTERM) == nil {
			asked = append(asked, c)
		}
		p.Release()
	}
	deadline := time.Now().Add(w.Grace)
	for slices.ContainsFunc(asked, container.runs) && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
	return nil
}

// runs reports whether the first process of a container is still the one that
// runc has started.
func (c container) runs() bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.InitPID))
	if err != nil {
		return false
	}
	// The second field, the name, may contain anything; the 22nd is the start.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	return len(fields) > 19 && fields[0] != "Z" && fields[19] == strconv.FormatUint(c.InitStart, 10)
}

// handles reports whether a process has a handler for a signal.
func handles(pid int, signal unix.Signal) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if hex, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set&(1<<(signal-1)) != 0
		}
	}
	return false
}

func (w *work) ourProcesses() []int {
	var ours []int
	for _, name := range names("/proc") {
		if pid, err := strconv.Atoi(name); err == nil && w.isOurs(pid) {
			ours = append(ours, pid)
		}
	}
	return ours
}

// isOurs reports whether a process was started for a pod of this node: it is in a cgroup of
// one, or lives in the files of one, or is a helper of lite that starts them. Its name does
// not matter. A zombie is nobody's.
func (w *work) isOurs(pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return false // a thread of the kernel, or one that has ended
	}
	return w.inOurGroup(proc) || w.isHelper(proc, exe) || w.livesInImage(proc)
}

func (w *work) inOurGroup(proc string) bool {
	data, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for path := fields[2]; len(path) > 1; path = filepath.Dir(path) {
			if w.seen.groups[path] {
				return true
			}
		}
	}
	return false
}

// isHelper recognizes the programs that lite has unpacked, except for crictl, which people
// run.
func (w *work) isHelper(proc, exe string) bool {
	exe = strings.TrimSuffix(exe, " (deleted)")
	if filepath.Base(exe) == "crictl" {
		return false
	}
	for _, dir := range w.realDirs() {
		if _, ok := within(layout.Data(dir).Bundles(), exe); ok {
			return true
		}
	}
	// A shim of a lite whose data directory is no longer known.
	if filepath.Base(exe) != "containerd-shim-runc-v2" {
		return false
	}
	data, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
	args := strings.Split(string(data), "\x00")
	i := slices.Index(args, "-address")
	return i > 0 && i+1 < len(args) && args[i+1] == w.RunDir.Containerd().Socket()
}

// livesInImage reports whether the root of a process is a container of ours.
func (w *work) livesInImage(proc string) bool {
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return false
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.SingleEntryFilter("/"))
	if err != nil || len(mounts) == 0 || !strings.Contains(mounts[0].FSType, "overlay") {
		return false
	}
	for option := range strings.SplitSeq(mounts[0].VFSOptions, ",") {
		_, value, _ := strings.Cut(option, "=")
		for _, dir := range append(w.realDirs(), w.DataDirs...) {
			if _, ok := within(layout.Data(dir).Agent().Containerd().Root(), value); ok && strings.HasPrefix(option, "upperdir=") {
				return true
			}
		}
	}
	return false
}

// realDirs is the data directories without symbolic links.
func (w *work) realDirs() []string {
	var dirs []string
	for _, dir := range w.DataDirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

func nameOf(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(data))
}

// cniResult is the CNI library's record of a container in a network.
type cniResult struct {
	path        string
	NetworkName string `json:"networkName"`
	ContainerID string `json:"containerId"`
}

// cniResults is those of our network.
func (w *work) cniResults() []cniResult {
	var ours []cniResult
	found, _ := filepath.Glob(filepath.Join(w.Host.CNI, "results", "*"))
	for _, path := range found {
		one := cniResult{path: path}
		data, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(data, &one) == nil && one.NetworkName == w.Network && one.ContainerID != "" {
			ours = append(ours, one)
		}
	}
	return ours
}

// names is the names in a directory, none if it cannot be read.
func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	all, _ := f.Readdirnames(-1)
	return all
}

// within is the path of what is in a directory, relative to it.
func within(dir, path string) (rel string, ok bool) {
	rel, err := filepath.Rel(dir, path)
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// globQuote quotes a path for use in a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
