package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a light machine: namespaces, cgroups and files of its own.
type Host struct {
	Name string
	IP   string // its address on the network; the bridge is the default gateway
	Dir  string // on the machine, holds what the host writes to /var/lib and /var/log

	id      string // what its cgroups are named
	bind    map[string]string
	root    string   // its root file system on the machine; "" = the machine's own
	program []string // what becomes PID 1; empty = the harness
	network *Network
	disk    *disk // its own, if it has one, with what is below /var/lib
	cgroups cgroups
	init    *exec.Cmd
	// lifeline is the pipe that the host's PID 1 reads; closing it ends the host.
	lifeline *os.File
	// gone, when closed, lets the thread end that has started PID 1.
	gone chan struct{}
	// pidfd stands for the host's PID 1 and thereby for its namespaces.
	pidfd     int
	closeOnce sync.Once
}

// HostOption changes how a host is made.
type HostOption func(*hostOptions)

type hostOptions struct {
	network *Network
	bind    map[string]string
	root    string
	program []string
	disk    int64
}

// On attaches the host to a network that others are on too. Without it a host
// has one for itself.
func On(n *Network) HostOption {
	return func(o *hostOptions) { o.network = n }
}

// Root gives the host a root file system of its own: the files below a directory,
// which itself stays as it is. What the host writes is on the disk.
func Root(dir string) HostOption {
	return func(o *hostOptions) { o.root = dir }
}

// Install makes a file of the machine appear at another path in the host.
func Install(machinePath, hostPath string) HostOption {
	return func(o *hostOptions) { o.bind[hostPath] = machinePath }
}

// Network returns the network that the host is on.
func (h *Host) Network() *Network { return h.network }

// NewHost makes a host without lite. It ends with the test.
func NewHost(t testing.TB, options ...HostOption) *Host {
	t.Helper()
	needRoot(t)
	o := hostOptions{bind: map[string]string{}}
	for _, option := range options {
		option(&o)
	}
	if o.network == nil {
		o.network = NewNetwork(t)
	}

	id, number := nextID(), o.network.nextNumber()
	h := &Host{
		Name:    fmt.Sprintf("host%d", number),
		IP:      numbered(number),
		Dir:     filepath.Join(workDir(), id),
		id:      id,
		bind:    o.bind,
		root:    o.root,
		program: o.program,
		network: o.network,
		pidfd:   -1,
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Errorf("remove host %s: %v", h.Name, err)
		}
	})
	if err := h.makeDirs(); err != nil {
		t.Fatal(err)
	}
	if o.disk > 0 {
		var err error
		if h.disk, err = newDisk(filepath.Join(h.Dir, "disk"), o.disk); err != nil {
			t.Fatalf("make host %s: %v", h.Name, err)
		}
	}
	if err := h.boot(); err != nil {
		t.Fatalf("make host %s: %v", h.Name, err)
	}
	return h
}

// makeDirs makes what the host has on the disk: /var/lib and /var/log, and all
// that it writes if it has a root file system of its own.
func (h *Host) makeDirs() error {
	for _, dir := range []string{"lib", "log"} {
		if err := os.MkdirAll(filepath.Join(h.Dir, dir), 0o755); err != nil {
			return err
		}
		if h.root == "" {
			continue
		}
		from := filepath.Join(h.root, "var", dir)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := copyTree(from, filepath.Join(h.Dir, dir)); err != nil {
			return err
		}
	}
	return nil
}

// needRoot skips a test that cannot do without.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a host is made of namespaces, mounts and cgroups")
	}
}

// boot starts PID 1 of the host, waits until it has arranged its files, and
// plugs in the cable.
func (h *Host) boot() error {
	var err error
	if h.cgroups, err = newCgroups(h.id); err != nil {
		return err
	}
	visible := slices.Clone(h.cgroups.hierarchies)
	if len(h.program) > 0 && len(visible) > 1 {
		// systemd would take the one of version 2, which has no controllers here, for
		// its own, and leave that empty which the kubelet expects it to use.
		visible = slices.DeleteFunc(visible, func(h hierarchy) bool { return h.Type == "cgroup2" })
	}
	life, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer life.Close()
	h.lifeline = lifeline
	report, reporter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()
	defer reporter.Close()
	described := initSpec{Name: h.Name, IP: h.IP, Dir: h.Dir, Bind: h.bind, Hierarchies: visible, Root: h.root, Program: h.program}
	if h.disk != nil {
		if err := h.disk.await(); err != nil {
			return err
		}
		described.Disk = h.disk.device.Name()
	}
	spec, err := json.Marshal(described)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}

	h.init = exec.Command(self)
	h.init.Env = append(os.Environ(), initEnv+"="+string(spec))
	h.init.ExtraFiles = []*os.File{life, reporter} // file descriptors 3 and 4 there
	h.init.Stderr = os.Stderr
	h.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		// A cgroup namespace is rooted where its maker is at that moment, so it
		// is made after the process has moved.
		Unshareflags: unix.CLONE_NEWCGROUP,
		PidFD:        &h.pidfd,
	}
	if err := h.startInit(); err != nil {
		return fmt.Errorf("start its PID 1: %w", err)
	}
	reporter.Close()
	trouble, err := io.ReadAll(report)
	if err != nil {
		return err
	}
	if len(trouble) > 0 {
		return fmt.Errorf("in its PID 1: %s", trouble)
	}
	if len(visible) == len(h.cgroups.hierarchies) {
		h.cgroups.enterLeaf()
	}
	if err := h.network.connect(h); err != nil {
		return err
	}
	if len(h.program) > 0 {
		_, err = h.lifeline.Write([]byte{'\n'}) // all is there: it may begin
	}
	return err
}

// startInit starts PID 1 in the cgroups of the host. A program that has become PID 1
// does not read the lifeline: the kernel kills it when the thread ends that has
// started it.
func (h *Host) startInit() error {
	h.gone = make(chan struct{})
	gone, started := h.gone, make(chan error, 1)
	go func() {
		_ = onOwnThread(func() error {
			done, err := h.cgroups.join(h.init.SysProcAttr)
			if err != nil {
				started <- err
				return err
			}
			err = h.init.Start()
			done()
			started <- err
			if err == nil && len(h.program) > 0 {
				<-gone
			}
			return err
		})
	}()
	return <-started
}

// close ends all processes of the host and removes what it consisted of.
func (h *Host) close() (err error) {
	h.closeOnce.Do(func() { err = h.remove() })
	return err
}

func (h *Host) remove() error {
	if err := h.halt(); err != nil {
		return err
	}
	if h.disk != nil {
		if err := errors.Join(h.disk.await(), h.disk.close()); err != nil {
			return err
		}
	}
	return retry(10*time.Second, func() error { return os.RemoveAll(h.Dir) })
}

// halt ends all processes of the host. Its mounts, its network and its memory
// go with them.
func (h *Host) halt() error {
	_ = h.cgroups.freeze(false) // what is frozen does not die
	if h.lifeline != nil {
		h.lifeline.Close()
	}
	if h.init != nil && h.init.Process != nil {
		if len(h.program) > 0 {
			_ = h.init.Process.Kill()
		}
		// PID 1 goes at once when its pipe closes; should it hang, force it.
		force := time.AfterFunc(5*time.Second, func() { h.init.Process.Kill() })
		// Wait returns when the last process of the PID namespace is gone.
		_ = h.init.Wait()
		force.Stop()
		close(h.gone)
	}
	if h.pidfd >= 0 {
		unix.Close(h.pidfd)
		h.pidfd = -1
	}
	return h.cgroups.remove()
}

// Reboot cuts the host's power and boots it again. /var/lib, /var/log and /etc
// are as they were, but for what was not synced to a [Disk]; all else is as on a
// new host.
func (h *Host) Reboot(t testing.TB) {
	t.Helper()
	// On a real machine /etc is on the disk, not in memory.
	etc := filepath.Join(h.Dir, "etc")
	if h.root == "" {
		if err := copyTree(h.Path("/etc"), etc); err != nil {
			t.Fatalf("save /etc of %s: %v", h.Name, err)
		}
	}
	if h.disk != nil {
		if err := h.disk.cut(h.Path("/var/lib")); err != nil {
			t.Fatalf("cut the power of %s: %v", h.Name, err)
		}
	}
	if err := h.init.Process.Kill(); err != nil { // and the kernel kills all others, all at once
		t.Fatalf("cut the power of %s: %v", h.Name, err)
	}
	h.bootAgain(t)
	if h.root != "" {
		return
	}
	if err := copyTree(etc, h.Path("/etc")); err != nil {
		t.Fatalf("bring /etc of %s back: %v", h.Name, err)
	}
}

// bootAgain boots a host whose PID 1 has ended, or is about to.
func (h *Host) bootAgain(t testing.TB) {
	t.Helper()
	if err := h.halt(); err != nil {
		t.Fatalf("halt %s: %v", h.Name, err)
	}
	if err := h.network.disconnect(h); err != nil {
		t.Fatalf("unplug %s: %v", h.Name, err)
	}
	if err := h.boot(); err != nil {
		t.Fatalf("boot %s: %v", h.Name, err)
	}
}

// copyTree copies what is below a directory over what is below another.
func copyTree(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// Path returns where a file of the host is found from outside of it, as long
// as the host lives. Absolute symbolic links are followed on the machine.
func (h *Host) Path(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", h.init.Process.Pid), path)
}

// WriteFile writes a file of the host and the directories above it.
func (h *Host) WriteFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.Path(path)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Path(path), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ReadFile returns the content of a file of the host.
func (h *Host) ReadFile(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(h.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// workDir returns the directory that the hosts' directories are made in:
// LITE_TEST_DIR, else dist/tests of the repository. It should be on a real
// disk, not on an overlay, as a container store cannot live on one.
func workDir() string {
	if dir := os.Getenv("LITE_TEST_DIR"); dir != "" {
		return dir
	}
	return filepath.Join(repository(), "dist", "tests")
}

// repository returns the directory of go.mod, at or above the current one.
func repository() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	panic("no go.mod at or above the current directory")
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// MountWhole lets pods have users of their own. The kernel lets other users mount only
// what is to be seen already; a host has mounts on parts of its /proc and /sys, a
// machine has not.
func (h *Host) MountWhole(t testing.TB) {
	t.Helper()
	for _, kind := range []string{"proc", "sysfs"} {
		h.Output(t, "mkdir", "-p", "/var/lib/whole/"+kind)
		h.Output(t, "mount", "-t", kind, kind, "/var/lib/whole/"+kind)
	}
}
