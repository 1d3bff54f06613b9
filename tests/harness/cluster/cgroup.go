package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// leaf is the cgroup of a version 2 host in which its processes run: only a
// cgroup without processes can hand its controllers on to its children.
const leaf = "init"

// hierarchy is one mounted cgroup hierarchy: one of several of version 1, or
// the one of version 2.
type hierarchy struct {
	Mount   string // where the machine has it, and the host gets it
	Type    string // cgroup or cgroup2
	Options string // what makes it this one: "cpu", "none,name=systemd"; empty in version 2
}

// hierarchies returns those that are mounted on the machine.
func hierarchies() ([]hierarchy, error) {
	var found []hierarchy
	mounts, err := mounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if !strings.HasPrefix(m.point, "/sys/fs/cgroup") || (m.fstype != "cgroup" && m.fstype != "cgroup2") {
			continue
		}
		h := hierarchy{Mount: m.point, Type: m.fstype}
		if m.fstype == "cgroup" {
			h.Options = hierarchyOptions(m.super)
		}
		found = append(found, h)
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup")
	}
	return found, nil
}

// hierarchyOptions picks from the options of a mounted hierarchy those that say
// which one it is.
func hierarchyOptions(super string) string {
	var options []string
	for option := range strings.SplitSeq(super, ",") {
		switch {
		case strings.HasPrefix(option, "name="):
			options = append([]string{"none"}, option)
		case slices.Contains([]string{"rw", "ro", "xattr", "noprefix", "clone_children"}, option),
			strings.HasPrefix(option, "release_agent="):
		default:
			options = append(options, option)
		}
	}
	return strings.Join(options, ",")
}

// cgroups are those of one host, one in every hierarchy.
type cgroups struct {
	hierarchies []hierarchy
	name        string
	// leaf is empty until the host has made its own.
	leaf string
}

// newCgroups makes them, and fills what the kernel leaves empty.
func newCgroups(name string) (cgroups, error) {
	c := cgroups{name: name}
	all, err := hierarchies()
	if err != nil {
		return c, err
	}
	for _, h := range all {
		dir := filepath.Join(h.Mount, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return c, err
		}
		c.hierarchies = append(c.hierarchies, h)
		if h.Type == "cgroup2" {
			err = delegate(h.Mount)
		} else if slices.Contains(strings.Split(h.Options, ","), "cpuset") {
			err = fillCpuset(h.Mount, dir)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// delegate hands all controllers of a version 2 cgroup on to its children.
func delegate(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller); err != nil {
			return err
		}
	}
	return nil
}

// fillCpuset lets a version 1 cgroup use what its parent may: a process cannot
// enter one without processors and memory nodes.
func fillCpuset(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, file), strings.TrimSpace(string(value))); err != nil {
			return err
		}
	}
	return nil
}

// join moves the calling thread into the version 1 cgroups and makes attr put
// the process that it will start into the version 2 cgroup. The caller calls
// done after the start.
func (c cgroups) join(attr *syscall.SysProcAttr) (done func(), err error) {
	done = func() {}
	for _, h := range c.hierarchies {
		dir := filepath.Join(h.Mount, c.name)
		if h.Type == "cgroup" {
			if err := writeFile(filepath.Join(dir, "tasks"), "0"); err != nil {
				return done, err
			}
			continue
		}
		fd, err := unix.Open(filepath.Join(dir, c.leaf), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return done, fmt.Errorf("open cgroup %s: %w", dir, err)
		}
		attr.UseCgroupFD, attr.CgroupFD = true, fd
		done = func() { unix.Close(fd) }
	}
	return done, nil
}

// enterLeaf lets processes from now on start in the leaf, which the host has made.
func (c *cgroups) enterLeaf() { c.leaf = leaf }

// remove kills what still runs in them and removes them, the innermost first.
func (c cgroups) remove() error {
	var failed []error
	for _, h := range c.hierarchies {
		dir := filepath.Join(h.Mount, c.name)
		failed = append(failed, retry(10*time.Second, func() error { return removeCgroup(dir) }))
	}
	return errors.Join(failed...)
}

func removeCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) { // children come after their parents
		for _, pid := range processes(dir) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// processes returns those of one cgroup. The test itself is not one of them,
// though a thread of it that starts a command is there for a moment.
func processes(dir string) []int {
	var pids []int
	content, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, field := range strings.Fields(string(content)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// writeFile writes to a file of the kernel, which must exist already.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
