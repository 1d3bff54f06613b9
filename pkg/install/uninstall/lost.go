package uninstall

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// EndLost ends the containers whose shims nobody can reach any more, and returns how many these are. If
// somebody removes RunDir while lite is stopped, the sockets of running shims are gone; containerd (2.4)
// then forgets their containers, and the kubelet recreates the pods beside processes that keep running,
// with the same volumes and ports. Call it when the data directory is claimed and before containerd
// runs.
//
// root is containerd's directory that outlives a reboot. It has a directory for each container, named by
// 32 random bytes, as are the cgroups of the container: a container without one in root is not of this
// lite.
func EndLost(root string, runDir layout.Run, grace time.Duration) (int, error) {
	l := lost{ids: lostIDs(root, runDir), address: runDir.Containerd().Socket()}
	if len(l.ids) == 0 {
		return 0, nil
	}
	hierarchies := hierarchies()
	found := map[string]bool{}
	for _, dir := range l.groups(hierarchies) {
		found[idOf(filepath.Base(dir))] = true
	}
	if len(found) == 0 {
		return 0, nil // all have ended, as after a reboot
	}
	l.ids = found
	l.ask(hierarchies, grace)
	left := l.kill(hierarchies)
	for _, dir := range slices.Backward(l.groups(hierarchies)) {
		removeEmpty(dir)
	}
	if len(left) > 0 {
		return len(found), stuck(left[0])
	}
	return len(found), nil
}

// lost is the containers without a way to their shims.
type lost struct {
	ids     map[string]bool
	address string // of containerd, as shims get it
}

// lostIDs is the containers of root whose shim containerd will not find, among them all that have
// ended.
func lostIDs(root string, runDir layout.Run) map[string]bool {
	ids := map[string]bool{}
	// Of tasks, and of sandboxes that a shim creates itself.
	bundles, _ := filepath.Glob(filepath.Join(runDir.Containerd().State(), "*/k8s.io"))
	for _, kind := range []string{"sandboxes", "containers"} {
		for _, id := range names(filepath.Join(root, "io.containerd.grpc.v1.cri", kind)) {
			if idOf(id) == id && !slices.ContainsFunc(bundles, func(dir string) bool { return reachable(filepath.Join(dir, id)) }) {
				ids[id] = true
			}
		}
	}
	return ids
}

// reachable reports whether a bundle has the address of a shim, and the socket exists. Without
// one, containerd kills the container, and the shim keeps running.
func reachable(bundle string) bool {
	var params struct {
		Address string `json:"address"`
	}
	data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err == nil {
		err = json.Unmarshal(data, &params)
	} else if data, err = os.ReadFile(filepath.Join(bundle, "address")); err == nil { // of older versions
		params.Address = strings.TrimSpace(string(data))
	}
	if err != nil {
		return false
	}
	path, isPath := strings.CutPrefix(params.Address, "unix://")
	return !isPath || !filepath.IsAbs(path) || exists(path)
}

// containerGroup is the last element of the path of a container's cgroup, as containerd creates it
// directly and through systemd.
var containerGroup = regexp.MustCompile(`^(?:cri-containerd-)?([0-9a-f]{64})(?:\.scope)?$`)

// idOf is the container that a cgroup is named after, "" if it is not a container's.
func idOf(name string) string {
	if m := containerGroup.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// groups is the directories of the cgroups, and of those that containers have made in them.
func (l lost) groups(hierarchies []hierarchy) []string {
	var dirs []string
	for _, h := range hierarchies {
		for _, top := range tops {
			for _, dir := range tree(filepath.Join(h.mount, top)) {
				if l.ids[idOf(filepath.Base(dir))] {
					dirs = append(dirs, tree(dir)...)
				}
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func (l lost) processes(hierarchies []hierarchy) []int {
	var pids []int
	for _, dir := range l.groups(hierarchies) {
		pids = append(pids, processes(dir)...)
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// has reports whether a process is in one of the cgroups.
func (l lost) has(pid int) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for element := range strings.FieldsFuncSeq(string(data), func(r rune) bool { return r == '/' || r == '\n' || r == ':' }) {
		if l.ids[idOf(element)] {
			return true
		}
	}
	return false
}

// signal signals a process if it is still the one that was found.
func (l lost) signal(pid int, s unix.Signal, still func(int) bool) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer p.Release()
	return still(pid) && p.Signal(s) == nil
}

// ask sends SIGTERM to the first process of each container that handles it, and gives it time.
func (l lost) ask(hierarchies []hierarchy, grace time.Duration) {
	pids := l.processes(hierarchies)
	var asked []int
	for _, pid := range pids {
		if !slices.Contains(pids, parentOf(pid)) && handles(pid, unix.SIGTERM) && l.signal(pid, unix.SIGTERM, l.has) {
			asked = append(asked, pid)
		}
	}
	for deadline := time.Now().Add(grace); slices.ContainsFunc(asked, l.has) && time.Now().Before(deadline); {
		time.Sleep(pollEvery)
	}
}

// kill kills what is left, and the shims, and returns what does not end.
func (l lost) kill(hierarchies []hierarchy) []int {
	deadline := time.Now().Add(killTimeout)
	for {
		pids := slices.DeleteFunc(l.processes(hierarchies), func(pid int) bool { return !l.has(pid) })
		for _, pid := range pids {
			l.signal(pid, unix.SIGKILL, l.has)
		}
		if len(pids) == 0 || time.Now().After(deadline) {
			for _, name := range names("/proc") {
				if pid, err := strconv.Atoi(name); err == nil && l.isShim(pid) {
					l.signal(pid, unix.SIGKILL, l.isShim)
				}
			}
			return pids
		}
		time.Sleep(pollEvery)
	}
}

// isShim reports whether a process is the shim of one of the containers, by its arguments: the
// container's ID, and the address of lite's containerd.
func (l lost) isShim(pid int) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(string(data), "\x00")
	value := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	return l.ids[value("-id")] && value("-address") == l.address && value("-namespace") == "k8s.io"
}

// parentOf is the process that has started another, 0 if that is not known.
func parentOf(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The second field, the name, may contain anything; the fourth is the parent.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// removeEmpty removes a cgroup whose last process has ended a moment ago. Where systemd has made it,
// systemd removes it too.
func removeEmpty(dir string) {
	for deadline := time.Now().Add(time.Second); unix.Rmdir(dir) == unix.EBUSY && time.Now().Before(deadline); {
		time.Sleep(pollEvery)
	}
}
