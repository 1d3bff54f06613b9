package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// initEnv is set, to an initSpec, where the test binary is PID 1 of a host.
const initEnv = "LITE_TEST_INIT"

// initSpec says what a host is to look like.
type initSpec struct {
	Name, IP    string
	Dir         string            // as Host.Dir
	Bind        map[string]string // path in the host to path on the machine
	Hierarchies []hierarchy
	Root        string   // as Host.root
	Program     []string // as Host.program
	Disk        string   // the device to mount at /var/lib; "" = a directory of Dir
}

// runInit is the life of PID 1 of a host. It arranges the files, reports
// trouble or, by closing the pipe, success, then reaps orphans until the test
// lets go of the lifeline.
func runInit(spec string) {
	lifeline, report := os.NewFile(3, "lifeline"), os.NewFile(4, "report")
	// The processes of the host shall inherit neither.
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	if err := arrange(spec); err != nil {
		fmt.Fprint(report, err)
		os.Exit(1)
	}
	report.Close()
	become(spec, lifeline)
	go reap()
	_, _ = io.Copy(io.Discard, lifeline)
	os.Exit(0) // and the kernel kills all others of the PID namespace
}

// become makes the program of the host PID 1, if it has one, once the test says so.
func become(text string, lifeline *os.File) {
	var spec initSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil || len(spec.Program) == 0 {
		return
	}
	if n, _ := lifeline.Read(make([]byte, 1)); n == 0 {
		os.Exit(0)
	}
	// Both are of the thread that calls them, and survive exec: see startInit.
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	if err == nil {
		err = unix.Exec(spec.Program[0], spec.Program, []string{"container=lite-test", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	}
	fmt.Fprintln(os.Stderr, "become PID 1 of a host:", spec.Program[0], err)
	os.Exit(1)
}

func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for range children {
		for {
			if pid, _ := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}

func arrange(text string) error {
	var spec initSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	root, err := spec.mountRoot()
	if err != nil {
		return err
	}
	if err := spec.mountAll(root); err != nil {
		return err
	}
	if err := enterRoot(root); err != nil {
		return err
	}
	if err := spec.arrangeCgroups(); err != nil {
		return err
	}
	return spec.identify()
}

// mountRoot mounts a file system that shows the machine's and keeps what is
// written in memory; or one that shows a root of its own and keeps that on the disk.
func (s initSpec) mountRoot() (string, error) {
	// From here on nothing that is mounted reaches the machine.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	if s.Root != "" {
		root := filepath.Join(s.Dir, "root")
		upper, work := filepath.Join(s.Dir, "upper"), filepath.Join(s.Dir, "work")
		for _, dir := range []string{upper, work} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return "", err
			}
		}
		return root, mount("overlay", root, "overlay", 0, "lowerdir="+s.Root+",upperdir="+upper+",workdir="+work)
	}
	memory := filepath.Join(s.Dir, "root")
	if err := mount("tmpfs", memory, "tmpfs", 0, "mode=755"); err != nil {
		return "", err
	}
	upper, work, root := memory+"/upper", memory+"/work", memory+"/root"
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	return root, mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work)
}

// mountAll mounts what a machine has mounted on its root.
func (s initSpec) mountAll(root string) error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	type m struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}
	table := []m{
		{"proc", "/proc", "proc", plain | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", plain | unix.MS_NOEXEC, ""},
		{"/dev", "/dev", "", unix.MS_BIND, ""},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"},
		{"tmpfs", "/dev/shm", "tmpfs", plain, "mode=1777"},
		{"tmpfs", "/run", "tmpfs", plain, "mode=755"},
		{"tmpfs", "/tmp", "tmpfs", plain, "mode=1777"},
		{filepath.Join(s.Dir, "lib"), "/var/lib", "", unix.MS_BIND, ""},
		{filepath.Join(s.Dir, "log"), "/var/log", "", unix.MS_BIND, ""},
	}
	if s.Disk != "" {
		table[slices.IndexFunc(table, func(m m) bool { return m.target == "/var/lib" })] = m{s.Disk, "/var/lib", "ext4", 0, ""}
	}
	if s.Root != "" {
		// The machine's directory has devices that are none of the host's, and an
		// init system changes what it finds there. /tmp is on the disk.
		table = slices.DeleteFunc(table, func(m m) bool { return m.target == "/tmp" })
		table[slices.IndexFunc(table, func(m m) bool { return m.target == "/dev" })] =
			m{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755"}
	}
	if len(s.Hierarchies) > 1 {
		table = append(table, m{"tmpfs", "/sys/fs/cgroup", "tmpfs", plain | unix.MS_NOEXEC, "mode=755"})
	}
	for _, h := range s.Hierarchies {
		table = append(table, m{h.Type, h.Mount, h.Type, plain | unix.MS_NOEXEC, h.Options})
	}
	for hostPath, machinePath := range s.Bind {
		table = append(table, m{machinePath, hostPath, "", unix.MS_BIND, ""})
	}
	for _, m := range table {
		if err := mount(m.source, filepath.Join(root, m.target), m.fstype, m.flags, m.data); err != nil {
			return err
		}
	}
	if s.Root == "" {
		return nil
	}
	// systemd sets what it can there as it starts, for the whole machine.
	files := filepath.Join(root, "/proc/sys/fs")
	if err := mount(files, files, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", files, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", files, err)
	}
	return makeDevices(filepath.Join(root, "dev"))
}

// makeDevices fills /dev with what programs in a container may expect there, and
// what the node needs beyond that.
func makeDevices(dev string) error {
	for name, number := range map[string][2]uint32{
		"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "kmsg": {1, 11},
		"tty": {5, 0}, "console": {1, 3}, "fuse": {10, 229}, "net/tun": {10, 200},
	} {
		path := filepath.Join(dev, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return fmt.Errorf("create device %s: %w", path, err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// enterRoot makes a mounted file system the root and forgets the old one.
func enterRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// With both the same the old root is stacked upon the new one (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	// Volumes that a pod mounts must be seen by others, as under systemd.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// arrangeCgroups moves the host's only process into a leaf of the version 2
// hierarchy, and hands the controllers on.
func (s initSpec) arrangeCgroups() error {
	for _, h := range s.Hierarchies {
		if h.Type != "cgroup2" {
			continue
		}
		if err := os.Mkdir(filepath.Join(h.Mount, leaf), 0o755); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(h.Mount, leaf, "cgroup.procs"), "0"); err != nil {
			return err
		}
		if err := delegate(h.Mount); err != nil {
			return err
		}
	}
	return nil
}

// identify gives the host what tells machines apart.
func (s initSpec) identify() error {
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	boot := append([]byte(nil), id...)
	if s.Root != "" { // the machine keeps its ID from boot to boot
		sum := sha256.Sum256([]byte(s.Dir))
		id = sum[:16]
	}
	for path, content := range map[string]string{
		"/etc/hostname":    s.Name + "\n",
		"/etc/hosts":       "127.0.0.1 localhost\n::1 localhost\n" + s.IP + " " + s.Name + "\n",
		"/etc/machine-id":  hex.EncodeToString(id) + "\n",
		"/etc/resolv.conf": "nameserver " + Gateway + "\n", // refuses at once, unless the test serves there
	} {
		_ = os.Remove(path) // it may be a link to a file of the machine's /run
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return newBoot(boot)
}

// newBoot gives the host a boot ID of its own: programs tell by it whether the
// machine has booted since they last looked.
func newBoot(id []byte) error {
	const file, kernel = "/run/boot_id", "/proc/sys/kernel/random/boot_id"
	text := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
		return err
	}
	defer os.Remove(file) // the mount holds it
	if err := unix.Mount(file, kernel, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", file, kernel, err)
	}
	return nil
}

// mount mounts on a directory, or binds a file on a file, which it makes if need be.
func mount(source, target, fstype string, flags uintptr, data string) error {
	prepare := func() error { return os.MkdirAll(target, 0o755) }
	if flags&unix.MS_BIND != 0 {
		info, err := os.Stat(source)
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			prepare = func() error { return touch(target) }
		}
	}
	if err := prepare(); err != nil {
		return err
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	return f.Close()
}
