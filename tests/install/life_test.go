package install

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/trace"
	"lite.io/lite/tests/harness/versions"
)

// life is an installation that is upgraded, stopped and removed.
type life struct {
	*cluster.Machine
	was trace.Snapshot // what the machine was like before it
	old string         // the version that was installed
}

// lifeArgs are what lite is told. Whether the disk of whoever runs this test is
// nearly full is none of the pods' business.
const lifeArgs = "--disable metrics --kubelet-arg 'eviction-hard=nodefs.available<1%'"

// TestLife is the life of an installation with systemd until there is no trace of
// it any more: one machine, in this order.
func TestLife(t *testing.T) {
	t.Parallel()
	l := newLife(t, cluster.Systemd)
	l.Sh(t, "%s", fromRelease+installer+lifeArgs)
	l.old = l.version(t)
	l.deploy(t)
	for _, step := range []struct {
		name string
		run  func(*life, *testing.T)
	}{
		{"upgrade", (*life).testUpgradeOfOpen},
		{"rollback", (*life).testRollback},
		{"broken upgrade", (*life).testBroken},
		{"killed upgrade", (*life).testKilledUpgrade},
		{"killall", (*life).testKillall},
		{"keep data", (*life).testKeepData},
		{"uninstall", (*life).testUninstall},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(l, t) }) {
			return
		}
	}
}

// newLife makes a machine and the versions that it is going to have, and looks
// at it.
func newLife(t *testing.T, init cluster.Init) *life {
	t.Helper()
	next := versions.Build(t)
	l := &life{Machine: newMachine(t, init)}
	l.Push(t, next, "/root/next")
	// A machine that people log in to.
	l.Sh(t, "mkdir -p /usr/share/bash-completion/completions")
	trace.OwnSettings(t, l.Host)
	l.was = trace.Take(t, l.Host)
	return l
}

// deploy runs pods with all that pods make on a machine.
func (l *life) deploy(t *testing.T) {
	t.Helper()
	l.WriteFile(t, "/root/pods.yaml", pods)
	l.Eventually(t, readyTimeout, "kubectl apply -f /root/pods.yaml")
	l.rolledOut(t)
	l.Sh(t, "kubectl exec claim-0 -- sh -c 'echo kept >/data/file'")
	l.Eventually(t, readyTimeout, "nft list ruleset | grep lite-policy && nft list ruleset | grep 'dport 8088'")
}

func (l *life) rolledOut(t *testing.T) {
	t.Helper()
	for _, workload := range []string{"deployment/many", "statefulset/claim", "daemonset/port"} {
		l.Eventually(t, readyTimeout, "kubectl rollout status %s --timeout=60s", workload)
	}
}

const pods = `
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {key: value}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 4
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      containers:
      - name: c
        image: lite.test/busybox:1
        command: [sleep, inf]
        resources: {limits: {memory: 32Mi}}
        volumeMounts:
        - {name: scratch, mountPath: /part, subPath: a/b}
        - {name: memory, mountPath: /memory}
        - {name: config, mountPath: /config/key, subPath: key}
      volumes:
      - {name: scratch, emptyDir: {}}
      - {name: memory, emptyDir: {medium: Memory}}
      - {name: config, configMap: {name: config}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: claim}
spec:
  replicas: 1
  serviceName: claim
  selector: {matchLabels: {app: claim}}
  template:
    metadata: {labels: {app: claim}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: lite.test/busybox:1
        command: [sleep, inf]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: port}
spec:
  selector: {matchLabels: {app: port}}
  template:
    metadata: {labels: {app: port}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: lite.test/busybox:1
        command: [httpd, -f, -p, "80"]
        ports: [{containerPort: 80, hostPort: 8088}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: many}}, policyTypes: [Ingress, Egress]}
`

// containers are those of all pods, with their restarts.
func (l *life) containers(t *testing.T) string {
	t.Helper()
	lines := strings.Split(l.Eventually(t, readyTimeout, "kubectl get pods -A -o jsonpath='{range .items[*].status.containerStatuses[*]}{.containerID} {.restartCount}{\"\\n\"}{end}'"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// unchanged does something that leaves all containers and the inventory alone.
func (l *life) unchanged(t *testing.T, do func()) {
	t.Helper()
	const inventory = "cat /etc/lite/installed"
	before, installed := l.containers(t), l.Sh(t, inventory)
	do()
	cluster.Eventually(t, readyTimeout, func() error {
		if after := l.containers(t); after != before {
			return fmt.Errorf("containers and their restarts were\n%s\nand are\n%s", before, after)
		}
		return nil
	})
	if now := l.Sh(t, inventory); now != installed {
		t.Errorf("the inventory was\n%s\nand is\n%s", installed, now)
	}
	for _, path := range []string{"/usr/local/bin/.lite.upgrade", "/var/lib/lite/rollback.new", "/var/lib/lite/rollback.old", "/etc/lite/upgrading"} {
		if _, err := os.Lstat(l.Path(path)); err == nil {
			t.Errorf("%s was left behind", path)
		}
	}
}

// process is the number of the lite that runs.
func (l *life) process(t *testing.T) string {
	t.Helper()
	return l.Sh(t, "lite status -o json | sed -n 's/^ *\"pid\": \\([0-9]*\\),*$/\\1/p'")
}

// version is that of the program on the disk.
func (l *life) version(t *testing.T) string {
	t.Helper()
	return l.Sh(t, "lite version -o json | sed -n 's/^ *\"version\": \"\\(.*\\)\",*$/\\1/p'")
}

// is checks that a version is installed, and that the service runs it.
func (l *life) is(t *testing.T, want string) {
	t.Helper()
	if got := l.version(t); got != want {
		t.Errorf("%s is installed, want %s", got, want)
	}
	if got := l.Sh(t, "/proc/%s/exe version", l.process(t)); !strings.HasPrefix(got, "lite "+want) {
		t.Errorf("what runs is %q, want %s", got, want)
	}
	if l.Init == cluster.OpenRC {
		l.Sh(t, "rc-service lite status")
		return
	}
	if got := l.Sh(t, "systemctl is-active lite && systemctl show -p MainPID --value lite"); got != "active\n"+l.process(t) {
		t.Errorf("systemd says:\n%s", got)
	}
}

func (l *life) testUpgrade(t *testing.T) {
	before := l.process(t)
	l.unchanged(t, func() {
		t.Log(l.Sh(t, "lite upgrade --artifact /root/next --sha256 $(sha256sum </root/next | cut -c 1-64)"))
	})
	l.is(t, versions.Next)
	if l.process(t) == before {
		t.Error("it is the same process")
	}
}

// testUpgradeOfOpen upgrades what an earlier installer has left, whose file of the
// service everybody could read.
func (l *life) testUpgradeOfOpen(t *testing.T) {
	const unit = "/etc/systemd/system/lite.service"
	l.Sh(t, "chmod 644 %s", unit)
	l.testUpgrade(t)
	if mode := l.Sh(t, "stat -c %%a %s", unit); mode != "600" {
		t.Errorf("the service's file has mode %s", mode)
	}
}

func (l *life) testRollback(t *testing.T) {
	l.unchanged(t, func() { t.Log(l.Sh(t, "lite rollback --yes")) })
	l.is(t, l.old)
}

// pose puts a program on the machine that ends at once.
func (l *life) pose(t *testing.T, path string) {
	t.Helper()
	var p versions.Pose
	if err := json.Unmarshal([]byte(l.Sh(t, "lite version -o json")), &p.Version); err != nil {
		t.Fatal(err)
	}
	p.Version.Version = "v99.1.0"
	p.Make(t, l.Path(path))
}

// testBroken upgrades to a program that ends at once.
func (l *life) testBroken(t *testing.T) {
	l.pose(t, "/root/broken")
	l.unchanged(t, func() {
		out, err := l.Run("lite upgrade --artifact /root/broken --sha256 $(sha256sum </root/broken | cut -c 1-64) --health-timeout 100s")
		t.Log(out)
		if err == nil {
			t.Error("it succeeded")
		}
		for _, words := range []string{"was rolled back to " + l.old, "this lite cannot start"} {
			if !strings.Contains(out, words) {
				t.Errorf("it does not say %q", words)
			}
		}
	})
	l.is(t, l.old)
}

// testKilledUpgrade kills the upgrade when the program has been replaced, while the
// service is stopped. The service is started all the same, and what it runs before
// each start puts the old program back.
func (l *life) testKilledUpgrade(t *testing.T) {
	const dir = "/run/systemd/system/lite.service.d"
	if l.Init == cluster.OpenRC {
		l.Sh(t, "sed -i s/^respawn_delay=.*/respawn_delay=1/ /etc/init.d/lite")
	} else {
		l.Sh(t, "mkdir -p %s && printf '[Service]\nRestartSec=500ms\n' >%s/test.conf && systemctl daemon-reload", dir, dir)
	}
	l.unchanged(t, func() {
		l.killSwapped(t, "lite", "upgrade", "--artifact", "/root/broken", "--sha256", l.Sh(t, "sha256sum </root/broken | cut -c 1-64"))
		l.Eventually(t, readyTimeout, "lite status")
		l.Eventually(t, readyTimeout, "grep rolled-back /var/lib/lite/upgrade.json")
	})
	l.is(t, l.old)
	if l.Init == cluster.OpenRC {
		l.Sh(t, "grep 'Rolling back' /var/log/lite.log")
		return
	}
	l.Sh(t, "journalctl -u lite -o cat | grep 'Rolling back'")
	l.Sh(t, "rm -r %s && systemctl daemon-reload", dir)
}

// killSwapped starts an upgrade and kills it when it has replaced the program.
func (l *life) killSwapped(t *testing.T, command ...string) {
	t.Helper()
	c := l.Command(context.Background(), command[0], command[1:]...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	swapped := func() bool {
		journal, _ := os.ReadFile(filepath.Join(l.Dir, "lib", "lite", "upgrade.json"))
		_, err := os.Lstat(l.Path("/usr/local/bin/.lite.upgrade"))
		return (strings.Contains(string(journal), `"state": "swapped"`) || strings.Contains(string(journal), `"state": "started"`)) && os.IsNotExist(err)
	}
	for !swapped() {
		select {
		case err := <-ended:
			t.Fatalf("it ended before the program was replaced: %v", err)
		case <-time.After(100 * time.Microsecond):
		}
	}
	_ = c.Process.Kill()
	<-ended
}

// testKillall stops the service and all pods; a start brings them back.
func (l *life) testKillall(t *testing.T) {
	t.Log(l.Sh(t, "lite-killall.sh"))
	l.Sh(t, "! systemctl is-active lite && ! pgrep -x containerd-shim && systemctl is-enabled lite")
	l.back(t, "systemctl start lite")
}

// back brings lite and its pods back.
func (l *life) back(t *testing.T, command string) {
	t.Helper()
	l.Sh(t, "%s", command)
	l.Eventually(t, readyTimeout, "lite status && kubectl exec claim-0 -- grep kept /data/file")
	l.rolledOut(t)
}

// testKeepData installs again on the data of before: it is the same cluster.
func (l *life) testKeepData(t *testing.T) {
	const cluster = "kubectl get namespace kube-system -o jsonpath={.metadata.uid}"
	before, settings := l.Sh(t, cluster), l.ReadFile(t, dropIn)
	t.Log(l.Sh(t, "lite uninstall --keep-data --yes"))
	l.Sh(t, "! [ -e /usr/local/bin/lite ] && ! [ -e /etc/lite/installed ] && systemctl show -p LoadState lite | grep not-found")
	l.back(t, fromRelease+installer)
	if now := l.Sh(t, cluster); now != before {
		t.Errorf("kube-system was %s and is %s", before, now)
	}
	if now := l.ReadFile(t, dropIn); now != settings {
		t.Errorf("%s was\n%s\nand is\n%s", dropIn, settings, now)
	}
}

func (l *life) testUninstall(t *testing.T) {
	t.Log(l.Sh(t, "lite-uninstall.sh --yes"))
	trace.Compare(t, l.was, trace.Take(t, l.Host))
}
