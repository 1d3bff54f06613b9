package machine

import (
	"os"
	"strings"
	"testing"
	"time"
)

// readyTimeout is far above what a start takes on an emulated processor.
const readyTimeout = 10 * time.Minute

func TestMachine(t *testing.T) {
	need(t)
	start := time.Now()
	g := boot(t,
		file{binary(), "usr/local/bin/lite", 0o755},
		file{"../../dist/test-images/busybox.tar", "var/lib/lite/agent/images/busybox.tar", 0o644},
		file{"testdata/lite.service", "etc/systemd/system/lite.service", 0o644},
		file{"testdata/pods.yaml", "root/pods.yaml", 0o644})
	t.Cleanup(func() { g.keep(t, "journalctl --no-pager -o cat -u lite", "lite.log") })
	t.Logf("booted in %s: %s", time.Since(start).Round(time.Second), g.Output(t, "uname -r; systemctl --version | head -n 1"))
	g.equal(t, "cgroup2fs", "stat -fc %%T /sys/fs/cgroup")
	g.equal(t, "systemd", "ps -o comm= -p 1")

	g.start(t)
	t.Log(g.Output(t, "lite kubectl get nodes -o wide"))
	g.Eventually(t, time.Minute, "lite kubectl apply -f /root/pods.yaml")
	g.Output(t, "lite kubectl wait --for=condition=Ready pod/web pod/burstable --timeout=150s")
	for name, test := range map[string]func(*testing.T){
		"cgroups": g.testCgroups, "out of memory": g.testOutOfMemory, "exec": g.testExec, "service": g.testService,
	} {
		t.Run(name, test)
	}
	t.Run("daemon-reload", func(t *testing.T) { // systemd writes the properties of its units anew
		g.Output(t, "systemctl daemon-reload")
		g.testCgroups(t)
	})
	t.Run("restart", g.testRestart)
	t.Run("log", g.testLog)
	t.Run("reboot", g.testReboot)
	t.Run("delete", g.testDelete)
	t.Run("clock", g.testClock)
	t.Run("WireGuard", g.testWireGuard)
}

// binary is the lite that is tested.
func binary() string {
	if path := os.Getenv("LITE_BINARY"); path != "" {
		return path
	}
	return "../../dist/lite"
}

// start starts lite and waits until all its parts are ready.
func (g *guest) start(t *testing.T) {
	t.Helper()
	start := time.Now()
	g.Output(t, "systemctl start lite")
	g.Eventually(t, readyTimeout, "lite status")
	t.Logf("lite is ready after %s", time.Since(start).Round(time.Second))
}

func (g *guest) equal(t *testing.T, want, format string, args ...any) {
	t.Helper()
	if got := g.Output(t, format, args...); got != want {
		t.Errorf("%s: got %q, want %q", format, got, want)
	}
}

func (g *guest) field(t *testing.T, pod, path string) string {
	t.Helper()
	return g.Output(t, "lite kubectl get pod %s -o jsonpath='{%s}'", pod, path)
}

// units returns the slice of a pod and the scope of its container, as systemd
// names them, of a pod that is in the slice above.
func (g *guest) units(t *testing.T, pod, above string) (slice, scope string) {
	t.Helper()
	uid := g.field(t, pod, ".metadata.uid")
	id := g.field(t, pod, ".status.containerStatuses[0].containerID")
	return above + "-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice", "cri-containerd-" + strings.TrimPrefix(id, "containerd://") + ".scope"
}

// Pods and containers are units of systemd, and their limits are the kernel's.
func (g *guest) testCgroups(t *testing.T) {
	slice, scope := g.units(t, "web", "kubepods")
	dir := "/sys/fs/cgroup/kubepods.slice/" + slice
	for _, cgroup := range []string{dir, dir + "/" + scope} {
		g.equal(t, "67108864\n50000 100000", "cd %s; cat memory.max cpu.max", cgroup)
	}
	g.equal(t, "CPUQuotaPerSecUSec=500ms\nMemoryMax=67108864\nActiveState=active", "systemctl show -p CPUQuotaPerSecUSec,MemoryMax,ActiveState %s", scope)
	g.equal(t, "sh\nhttpd", "ps -o comm= -p $(paste -sd, %s/%s/cgroup.procs)", dir, scope)

	slice, scope = g.units(t, "burstable", "kubepods-burstable")
	g.equal(t, "active\nactive", "systemctl is-active %s %s", slice, scope)
	t.Log(g.Output(t, "systemd-cgls --no-pager --full --xattr=no --cgroup-id=no --unit kubepods.slice"))
}

func (g *guest) testOutOfMemory(t *testing.T) {
	g.Output(t, "lite kubectl wait --for=jsonpath={.status.phase}=Failed pod/hungry --timeout=150s")
	g.equal(t, "OOMKilled 137", "lite kubectl get pod hungry -o jsonpath='{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}'")
}

func (g *guest) testExec(t *testing.T) {
	g.equal(t, "hello", "lite kubectl exec web -- cat /tmp/w/index.html")
	g.equal(t, "67108864", "lite kubectl exec web -- cat /sys/fs/cgroup/memory.max")
	g.equal(t, "hello", "echo hello | lite kubectl exec -i burstable -- cat")
}

// The host reaches a Service at its address and at the node's port, by nftables.
func (g *guest) testService(t *testing.T) {
	g.reach(t)
	g.Output(t, "nft list table ip kube-proxy | grep -q 30080")
}

func (g *guest) reach(t *testing.T) {
	t.Helper()
	for _, address := range []string{"10.43.0.80/80", "10.0.2.15/30080"} {
		got := g.Eventually(t, time.Minute, "exec 3<>/dev/tcp/%s; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; timeout 20 cat <&3", address)
		if !strings.HasSuffix(got, "hello") {
			t.Errorf("%s: %q", address, got)
		}
	}
}

// A pod outlives lite, which takes it over as it is.
func (g *guest) testRestart(t *testing.T) {
	slice, scope := g.units(t, "web", "kubepods")
	processes := func() string {
		return g.Output(t, "cat /sys/fs/cgroup/kubepods.slice/%s/%s/cgroup.procs", slice, scope)
	}
	before := processes()
	start := time.Now()
	g.Output(t, "systemctl stop lite")
	t.Logf("lite stopped in %s", time.Since(start).Round(time.Second))
	g.equal(t, "Result=success\nExecMainStatus=0", "systemctl show -p Result,ExecMainStatus lite")
	g.reach(t)
	g.start(t)
	if got := processes(); got != before {
		t.Errorf("the processes were %q and are %q", before, got)
	}
	if _, got := g.units(t, "web", "kubepods"); got != scope {
		t.Errorf("the container was %s and is %s", scope, got)
	}
	g.testCgroups(t)
	g.testExec(t)
}

// The clock may be set to any time: lite starts anew by itself if that is far
// away, and what pods have of the cluster is valid again. The machine comes from
// 1970, where a board without a clock boots, by a time two years ahead; each start
// takes minutes here.
func (g *guest) testClock(t *testing.T) {
	starts := func() string { return g.Output(t, "journalctl --no-pager -o cat -u lite | grep -c 'Starting lite'") }
	set := func(to time.Time, why string) {
		t.Helper()
		before := starts()
		g.Output(t, "date -s @%d", to.Unix())
		g.Eventually(t, readyTimeout, "test $(journalctl --no-pager -o cat -u lite | grep -c 'Starting lite') -gt %s && journalctl --no-pager -o cat -u lite | grep 'Restarting lite' | tail -n 1 | grep '%s' && lite status", before, why)
		g.Eventually(t, readyTimeout, whoami)
		g.reach(t)
		g.Output(t, "! lite status | grep clock")
	}
	g.Output(t, "systemctl stop lite")
	g.Output(t, "date -s @$(($(cut -d. -f1 /proc/uptime) + 3600))")
	g.start(t)
	g.Output(t, "lite status | grep 'the clock is wrong: it shows 1970'")
	g.reach(t)

	pid := g.Output(t, "systemctl show -p MainPID lite")
	set(time.Now().AddDate(2, 0, 0), "set ahead by")
	set(time.Now(), "set back by")
	g.equal(t, pid, "systemctl show -p MainPID lite")
}

// whoami asks the API with the token that a pod has.
const whoami = `lite kubectl --kubeconfig /dev/null --server https://127.0.0.1:6443 --certificate-authority /var/lib/lite/server/pki/ca.crt ` +
	`--token "$(lite kubectl exec web -- cat /var/run/secrets/kubernetes.io/serviceaccount/token)" auth whoami | grep system:serviceaccount:default:default`

// Nothing of a deleted pod is left with systemd.
func (g *guest) testDelete(t *testing.T) {
	slice, scope := g.units(t, "burstable", "kubepods-burstable")
	g.Output(t, "lite kubectl delete pod burstable hungry")
	g.Eventually(t, time.Minute, "! systemctl is-active %s %s && ! ls -d /sys/fs/cgroup/kubepods.slice/*/%s", slice, scope, slice)
}

// Neither systemd nor lite has anything to complain of. The kubelet (1.37) may
// look for the cgroup of a pod that has just ended.
func (g *guest) testLog(t *testing.T) {
	if failed := g.Output(t, "systemctl --failed --plain --no-legend"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
	complaints := g.Output(t, "journalctl --no-pager -o cat -u lite | grep -E 'level=(WARN|ERROR)' | grep -v 'cgroup.*no such file or directory' || true")
	for line := range strings.Lines(complaints) {
		t.Log(strings.TrimSpace(line))
		for _, word := range []string{"cgroup", "systemd", "dbus", "oom"} {
			if strings.Contains(strings.ToLower(line), word) {
				t.Errorf("lite complains of %s", word)
			}
		}
	}
	t.Logf("the kernel's errors and what systemd warns of:\n%s", g.Output(t, "dmesg --level=emerg,alert,crit,err; journalctl --no-pager -o cat -p warning _PID=1"))
}

// Enabled, lite comes back with the machine, and so do its pods.
func (g *guest) testReboot(t *testing.T) {
	g.Output(t, "systemctl --quiet enable lite")
	start := time.Now()
	if err := g.Reboot(); err != nil {
		t.Fatal(err)
	}
	g.Eventually(t, readyTimeout, "lite status")
	t.Logf("rebooted and ready after %s", time.Since(start).Round(time.Second))
	g.Eventually(t, readyTimeout, "lite kubectl wait --for=condition=Ready pod/web pod/burstable --timeout=1s && lite kubectl get pod web -o jsonpath={.status.containerStatuses[0].restartCount} | grep -x 1")
	g.testCgroups(t)
	g.testService(t)
}

// The backend that a server begins with next time is WireGuard, which the kernel
// loads when it is asked for.
func (g *guest) testWireGuard(t *testing.T) {
	g.Output(t, "systemctl stop lite")
	g.Output(t, "mkdir /etc/systemd/system/lite.service.d && printf '[Service]\\nEnvironment=LITE_FLANNEL_BACKEND=wireguard-native\\n' >/etc/systemd/system/lite.service.d/backend.conf && systemctl daemon-reload")
	g.start(t)
	g.equal(t, "1420", "cat /sys/class/net/lite-wg/mtu && ip link show up dev lite-wg >/dev/null")
	g.equal(t, "", "ls /sys/class/net | grep vxlan || true")
	g.equal(t, "600", "stat -c %%a /var/lib/lite/agent/overlay.key")
	g.Output(t, `lite kubectl get node machine -o jsonpath='{.metadata.annotations.lite\.io/overlay}' | grep '"backend":"wireguard-native".*"publicKey":".*"port":51820'`)
	g.reach(t)
	g.Output(t, "lite kubectl delete pod web && lite kubectl apply -f /root/pods.yaml && lite kubectl wait --for=condition=Ready pod/web --timeout=150s")
	g.equal(t, "1420", "lite kubectl exec web -- cat /sys/class/net/eth0/mtu")
}
