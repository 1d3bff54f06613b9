package machine

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/versions"
)

// installed is the life of an installation on a machine.
type installed struct {
	*guest
	was []string // what the machine was like before it
	old string
}

// TestInstall is the life of lite on a machine without a network: it is installed
// from a bundle, survives a reboot, becomes another version, refuses a broken one,
// and leaves no trace.
func TestInstall(t *testing.T) {
	need(t)
	dir := t.TempDir()
	bundle, broken := filepath.Join(dir, "lite.tar"), filepath.Join(dir, "broken")
	if out, err := exec.Command(binary(), "bundle", "create", "--image-file", "../../dist/test-images/busybox.tar", "--output", bundle).CombinedOutput(); err != nil {
		t.Fatalf("make a bundle: %v\n%s", err, out)
	}
	out, err := exec.Command(binary(), "version", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pose versions.Pose
	if err := json.Unmarshal(out, &pose.Version); err != nil {
		t.Fatal(err)
	}
	i := &installed{old: pose.Version.Version}
	pose.Version.Version = "v99.1.0"
	pose.Make(t, broken)

	start := time.Now()
	i.guest = boot(t,
		file{bundle, "root/lite.tar", 0o600},
		file{versions.Build(t), "root/next", 0o755},
		file{broken, "root/broken", 0o755},
		file{"testdata/pods.yaml", "root/pods.yaml", 0o644},
		file{"testdata/names.yaml", "root/names.yaml", 0o644},
		file{"testdata/dns.sh", "root/dns.sh", 0o644},
		file{"testdata/trace.sh", "root/trace.sh", 0o644})
	t.Cleanup(func() { i.keep(t, "journalctl --no-pager -o cat -u lite", "lite.log") })
	t.Logf("booted in %s: %s", time.Since(start).Round(time.Second), i.Output(t, "uname -r; systemctl --version | head -n 1"))
	i.equal(t, "cgroup2fs", "stat -fc %%T /sys/fs/cgroup")
	i.Output(t, "sh /root/trace.sh >/dev/null") // which makes the kernel load modules
	i.was = i.trace(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"install", i.testInstall},
		{"reboot", i.testReboot},
		{"upgrade", i.testUpgrade},
		{"broken upgrade", i.testBroken},
		{"uninstall", i.testUninstall},
	} {
		start := time.Now()
		ok := t.Run(step.name, step.run)
		t.Logf("%s took %s", step.name, time.Since(start).Round(time.Second))
		if !ok {
			return
		}
	}
}

// trace is what the machine is like.
func (i *installed) trace(t *testing.T) []string {
	t.Helper()
	lines := strings.Split(i.Output(t, "sh /root/trace.sh"), "\n")
	slices.Sort(lines)
	return slices.Compact(lines)
}

// long runs what takes as long as a start of lite, or two.
func (i *installed) long(t *testing.T, command string) string {
	t.Helper()
	out, err := i.RunFor(2*readyTimeout, command)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	return out
}

func (i *installed) testInstall(t *testing.T) {
	// Five minutes, after which the installer does not wait any more, may be too short here.
	i.long(t, "cd /root && tar -xf lite.tar install.sh && { INSTALL_LITE_ARTIFACT=/root/lite.tar sh install.sh >said 2>&1 || grep 'the service is running, but it is not ready' said; } && cat said")
	i.Eventually(t, time.Minute, "kubectl apply -f /root/pods.yaml -f /root/names.yaml")
	i.works(t)
	i.equal(t, "active\nenabled", "systemctl is-active lite; systemctl is-enabled lite")
	// systemd makes the cgroups of pods here.
	i.Output(t, "systemctl is-active kubepods.slice && ls -d /sys/fs/cgroup/kubepods.slice/*/cri-containerd-*.scope")
	// And ends them in order when the machine is shut down, not 90 s later.
	const ofContainers = "systemctl show -p %s --value $(systemctl list-units --plain --no-legend 'cri-containerd-*.scope' | cut -d ' ' -f 1) | grep . | sort -u"
	i.equal(t, "30s", ofContainers, "TimeoutStopUSec")
	i.equal(t, "shutdown.target", ofContainers, "Conflicts")
}

// works waits until the node is ready and its pods are, and looks up names in one.
func (i *installed) works(t *testing.T) {
	t.Helper()
	i.Eventually(t, readyTimeout, "lite status && kubectl wait --for=condition=Ready node/machine --timeout=1s")
	i.Eventually(t, readyTimeout, "kubectl wait --for=condition=Ready pod/web pod/names --timeout=1s")
	i.Eventually(t, readyTimeout, "kubectl exec -i names -- sh </root/dns.sh | grep 0a2b0050") // 10.43.0.80
	i.reach(t)
}

func (i *installed) testReboot(t *testing.T) {
	start := time.Now()
	if err := i.Reboot(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the machine is back after %s", time.Since(start).Round(time.Second))
	i.works(t)
}

// containers are those of the pods that run, with their restarts.
func (i *installed) containers(t *testing.T) string {
	t.Helper()
	return i.Eventually(t, readyTimeout, "kubectl get pod web names burstable -o jsonpath='{range .items[*].status.containerStatuses[*]}{.containerID} {.restartCount}{\"\\n\"}{end}'")
}

// is checks that the service runs a version.
func (i *installed) is(t *testing.T, want string) {
	t.Helper()
	i.equal(t, "active", "systemctl is-active lite")
	if got := i.Output(t, "lite version; /proc/$(systemctl show -p MainPID --value lite)/exe version"); strings.Count(got, "lite "+want) != 2 {
		t.Errorf("it is\n%s\nwant %s", got, want)
	}
}

func (i *installed) testUpgrade(t *testing.T) {
	before, pid := i.containers(t), i.Output(t, "systemctl show -p MainPID lite")
	i.long(t, "lite upgrade --artifact /root/next --sha256 $(sha256sum </root/next | cut -c 1-64) --health-timeout 20m")
	i.is(t, versions.Next)
	if i.Output(t, "systemctl show -p MainPID lite") == pid {
		t.Error("it is the same process")
	}
	i.works(t)
	i.same(t, before)
}

func (i *installed) same(t *testing.T, before string) {
	t.Helper()
	if after := i.containers(t); after != before {
		t.Errorf("containers and their restarts were\n%s\nand are\n%s", before, after)
	}
}

func (i *installed) testBroken(t *testing.T) {
	before := i.containers(t)
	out, err := i.RunFor(2*readyTimeout, "lite upgrade --artifact /root/broken --sha256 $(sha256sum </root/broken | cut -c 1-64) --health-timeout 20m")
	t.Log(out)
	if err == nil || !strings.Contains(out, "was rolled back to "+versions.Next) {
		t.Errorf("%v", err)
	}
	i.is(t, versions.Next)
	i.works(t)
	i.same(t, before)
}

func (i *installed) testUninstall(t *testing.T) {
	i.long(t, "lite uninstall --yes")
	var lines []string
	is := i.trace(t)
	for _, line := range is {
		// Settings of modules that the kernel has loaded by itself are new. So are those of
		// systemd's processes that still hear of the interfaces which are gone.
		if _, found := slices.BinarySearch(i.was, line); !found && !i.newSetting(line) && line != "process: (udev-worker)" {
			lines = append(lines, "left: "+line)
		}
	}
	for _, line := range i.was {
		if _, found := slices.BinarySearch(is, line); !found {
			lines = append(lines, "gone: "+line)
		}
	}
	if len(lines) > 0 {
		t.Errorf("the machine is not as it was before lite:\n%s", strings.Join(lines, "\n"))
	}
}

// newSetting reports whether a line is a setting of the kernel that was not there
// at all before.
func (i *installed) newSetting(line string) bool {
	name, _, ok := strings.Cut(line, " = ")
	if !ok || !strings.HasPrefix(line, "setting: ") {
		return false
	}
	at, _ := slices.BinarySearch(i.was, name+" = ")
	return at == len(i.was) || !strings.HasPrefix(i.was[at], name+" = ")
}
