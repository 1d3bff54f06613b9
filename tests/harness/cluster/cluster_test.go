package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// TestHosts shows what a host is: two of them talk over their network, and
// each has names, files and processes of its own.
func TestHosts(t *testing.T) {
	network := NewNetwork(t)
	one, two := NewHost(t, On(network)), NewHost(t, On(network))

	for _, h := range []*Host{one, two} {
		if got := strings.TrimSpace(h.Output(t, "hostname")); got != h.Name {
			t.Errorf("hostname is %q, want %q", got, h.Name)
		}
		if got := h.Output(t, "ls", "/var/lib", "/run"); got != "/run:\n\n/var/lib:\n" {
			t.Errorf("not empty:\n%s", got)
		}
	}

	listener, err := two.Listen("tcp", two.IP+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "hello from "+two.Name)
			conn.Close()
		}
	}()
	for from, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"a host": one.DialContext, "the host itself": two.DialContext, "outside": network.DialContext,
	} {
		conn, err := dial(t.Context(), "tcp", two.IP+":7000")
		if err != nil {
			t.Fatalf("from %s: %v", from, err)
		}
		if got, _ := io.ReadAll(conn); string(got) != "hello from host2" {
			t.Errorf("from %s: %q", from, got)
		}
		conn.Close()
	}
}

// TestFiles shows that what a host writes does not reach the machine, but
// /var/lib does reach the disk.
func TestFiles(t *testing.T) {
	h := NewHost(t)
	h.Output(t, "sh", "-c", "touch /etc/lite-test-file /usr/lite-test-file /var/lib/lite-test-file")
	for _, path := range []string{"/etc/lite-test-file", "/usr/lite-test-file", "/var/lib/lite-test-file"} {
		if _, err := os.Stat(h.Path(path)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is on the machine", path)
		}
	}
	var machine, host syscall.Stat_t
	if err := syscall.Stat(h.Dir, &machine); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Stat(h.Path("/var/lib"), &host); err != nil {
		t.Fatal(err)
	}
	if machine.Dev != host.Dev {
		t.Error("/var/lib is not on the disk of the machine")
	}
	h.WriteFile(t, "/etc/lite/config.yaml", "a: b\n")
	if got := h.Output(t, "cat", "/etc/lite/config.yaml"); got != "a: b\n" {
		t.Errorf("wrote a file, read %q", got)
	}
}

// TestCgroups shows that a host has all of its cgroup hierarchies to itself,
// sees itself at their root, and can make cgroups in them.
func TestCgroups(t *testing.T) {
	h := NewHost(t)
	for line := range strings.Lines(h.Output(t, "cat", "/proc/self/cgroup")) {
		path := strings.SplitN(strings.TrimSpace(line), ":", 3)[2]
		if path != "/" && path != "/"+leaf {
			t.Errorf("a command runs in %s", line)
		}
	}
	for _, hierarchy := range h.cgroups.hierarchies {
		h.Output(t, "mkdir", "-p", hierarchy.Mount+"/a/b")
		if _, err := os.Stat(filepath.Join(hierarchy.Mount, h.cgroups.name, "a", "b")); err != nil {
			t.Error(err)
		}
	}
}

// TestReap shows that orphans do not remain as zombies.
func TestReap(t *testing.T) {
	h := NewHost(t)
	h.Output(t, "sh", "-c", "(sleep 0.1 &) ; (true &)")
	Eventually(t, 10*time.Second, func() error {
		if got := h.Output(t, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true"); strings.Contains(got, "sleep") || strings.Contains(got, ") Z ") {
			return fmt.Errorf("not reaped:\n%s", got)
		}
		return nil
	})
}

// TestCommand shows that a command of a host is an ordinary child: it can be
// signalled, its exit code is known, and a cancelled context ends it.
func TestCommand(t *testing.T) {
	h := NewHost(t)
	c := h.Command(t.Context(), "sh", "-c", "exit 3")
	if err := c.Run(); c.ProcessState == nil || c.ProcessState.ExitCode() != 3 {
		t.Errorf("exit 3: %v", err)
	}
	sleep := h.Command(t.Context(), "sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	sleep.Process.Signal(syscall.SIGTERM)
	if err := sleep.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("after SIGTERM: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := h.Command(ctx, "sleep", "100").Run(); err == nil {
		t.Error("a command outlived its context")
	}
	if err := h.Command(t.Context(), "no-such-program").Run(); err == nil {
		t.Error("a program that does not exist ran")
	}
}

// TestRemoved shows that nothing of a host remains when it is closed, though
// processes run, mounts are there and cgroups are nested.
func TestRemoved(t *testing.T) {
	before := survey()
	var dir string
	t.Run("host", func(t *testing.T) {
		h := NewHost(t)
		dir = h.Dir
		makeMess(t, h)
	})
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
	if lines := difference(before, survey()); len(lines) > 0 {
		t.Error(strings.Join(lines, "\n"))
	}
}

// TestKilled shows that a host does not outlive a test process that is killed,
// and that the next run removes what remains of it.
func TestKilled(t *testing.T) {
	if os.Getenv("LITE_TEST_VICTIM") != "" {
		h := NewHost(t)
		makeMess(t, h)
		fmt.Printf("victim %d\n", h.init.Process.Pid)
		select {}
	}
	needRoot(t)
	victim := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	victim.Env = append(os.Environ(), "LITE_TEST_VICTIM=1")
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var init int
	if _, err := fmt.Fscanf(stdout, "victim %d\n", &init); err != nil {
		t.Error(err)
	}
	victim.Process.Kill()
	victim.Wait()

	Eventually(t, 10*time.Second, func() error {
		if owner(init) != "" {
			return fmt.Errorf("PID 1 of the host, %d, is still alive", init)
		}
		return nil
	})
	if err := removeAbandoned(workDir()); err != nil {
		t.Error(err)
	}
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s%d.", prefix, victim.Process.Pid)
	for _, h := range append(all, hierarchy{Mount: workDir()}) {
		for _, child := range children(h.Mount) {
			if strings.HasPrefix(child, name) {
				t.Errorf("%s is still in %s", child, h.Mount)
			}
		}
	}
}

// makeMess does in a host what lite does there.
func makeMess(t *testing.T, h *Host) {
	t.Helper()
	h.Output(t, "sh", "-ec", `
		mkdir -p /var/lib/a/b /run/netns
		mount -t tmpfs tmpfs /var/lib/a/b
		ip netns add pod 2>/dev/null || true
		for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
			if [ -e $hierarchy/cgroup.procs ]; then mkdir -p $hierarchy/kubepods/pod1; fi
		done
		if [ -e /sys/fs/cgroup/freezer ]; then
			(sleep 1000 & echo $! >/sys/fs/cgroup/freezer/kubepods/pod1/cgroup.procs) >/dev/null 2>&1
		fi
		setsid sleep 1000 >/dev/null 2>&1 &
	`)
}

func TestHierarchyOptions(t *testing.T) {
	for super, want := range map[string]string{
		"rw,cpu,cpuacct":        "cpu,cpuacct",
		"rw,memory":             "memory",
		"rw,xattr,name=systemd": "none,name=systemd",
	} {
		if got := hierarchyOptions(super); got != want {
			t.Errorf("%s: got %q, want %q", super, got, want)
		}
	}
}

// TestReboot shows that a host comes back with its files on the disk, and with
// nothing that was in memory.
func TestReboot(t *testing.T) {
	h := NewHost(t)
	makeMess(t, h)
	h.Output(t, "sh", "-ec", "touch /var/lib/kept /etc/kept /run/lost /tmp/lost; ip link add lost type bridge")
	before := h.Output(t, "cat", "/etc/machine-id")
	booted := h.Output(t, "cat", "/proc/sys/kernel/random/boot_id")

	h.Reboot(t)

	h.Output(t, "ls", "/var/lib/kept", "/etc/kept")
	for _, lost := range []string{"/run/lost", "/tmp/lost", "/sys/class/net/lost", "/run/netns"} {
		if _, err := os.Stat(h.Path(lost)); err == nil {
			t.Errorf("%s is still there", lost)
		}
	}
	if got := h.Output(t, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null"); strings.Contains(got, "sleep") {
		t.Errorf("a process is still there:\n%s", got)
	}
	if after := h.Output(t, "cat", "/etc/machine-id"); after != before {
		t.Errorf("the machine's ID is %s, was %s", after, before)
	}
	if again := h.Output(t, "cat", "/proc/sys/kernel/random/boot_id"); again == booted {
		t.Errorf("the boot's ID is still %s", again)
	}
	listener, err := h.Listen("tcp", h.IP+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := h.network.DialContext(t.Context(), "tcp", h.IP+":7000")
	if err != nil {
		t.Fatalf("from outside: %v", err)
	}
	conn.Close()
}

// TestReaddress shows that a host is reached by its new address and no more by
// the old one, and reaches others itself.
func TestReaddress(t *testing.T) {
	network := NewNetwork(t)
	one, two := NewHost(t, On(network)), NewHost(t, On(network))
	old := one.IP
	network.Readdress(t, one)
	if one.IP == old || one.IP == two.IP {
		t.Errorf("the address is %s, was %s", one.IP, old)
	}
	for _, to := range []*Host{one, two} {
		listener, err := to.Listen("tcp", "0.0.0.0:7000")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
	for from, address := range map[*Host]string{one: two.IP, two: one.IP} {
		conn, err := from.DialContext(t.Context(), "tcp", address+":7000")
		if err != nil {
			t.Fatalf("%s to %s: %v", from.Name, address, err)
		}
		conn.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if conn, err := two.DialContext(ctx, "tcp", old+":7000"); err == nil {
		conn.Close()
		t.Errorf("%s still answers", old)
	}
	if route := one.Output(t, "ip", "route", "show", "default"); !strings.Contains(route, Gateway) {
		t.Errorf("the default route is %q", route)
	}
}

// TestMachines shows what a machine is: an init system, and a disk that outlives
// the power.
func TestMachines(t *testing.T) {
	for _, init := range []Init{Systemd, OpenRC} {
		t.Run(string(init), func(t *testing.T) {
			m := NewMachine(t, init)
			m.Sh(t, "echo kept >/opt/file; echo gone >/run/file")
			if init == Systemd {
				if got := m.Sh(t, "systemctl list-units --failed --plain --no-legend"); got != "" {
					t.Errorf("failed units: %s", got)
				}
				m.Restart(t)
			}
			m.Reboot(t)
			m.Sh(t, "grep kept /opt/file; test ! -e /run/file")
			if _, err := os.Stat("/opt/file"); err == nil {
				t.Error("what a machine wrote is on ours")
			}
			m.Sh(t, "ip -br addr show eth0 | grep -w %s/24", m.IP)
		})
	}
}

// A program that is given another time reads that.
func TestClock(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the code is for x86-64 processors")
	}
	h := NewHost(t)
	for _, by := range []time.Duration{-50 * 365 * 24 * time.Hour, 0, 2 * 365 * 24 * time.Hour} {
		c := h.Command(t.Context(), "date", "+%s")
		c.clock = by
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Until(time.Unix(seconds, 0)) - by; off.Abs() > time.Hour {
			t.Errorf("by %s: read %s, off by %s", by, out, off)
		}
	}
}
