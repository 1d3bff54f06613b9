package restart

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
)

// stateful has one pod with a file on the node and one with volumes that end
// with the pod, one of them in memory.
const stateful = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: lite.test/busybox:1
        command: [sleep, "100000"]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, hostPath: {path: /var/lib/store, type: DirectoryOrCreate}}]
---
apiVersion: v1
kind: Pod
metadata: {name: cache}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "100000"]
    volumeMounts: [{name: memory, mountPath: /memory}, {name: disk, mountPath: /disk}]
  volumes: [{name: memory, emptyDir: {medium: Memory}}, {name: disk, emptyDir: {}}]
`

// soon is for what is to happen after a start.
const soon = 30 * time.Second

// TestReboot cuts the node's power under running pods: after the boot the same
// pods run again, with what was on the disk and without what was in memory.
func TestReboot(t *testing.T) {
	t.Parallel()
	node := cluster.New(t).Server()
	ns := node.Namespace(t)
	ns.Apply(t, cluster.Web(3)+"---"+stateful)
	ns.WaitRollout(t, "deployment/web")
	ns.WaitRollout(t, "statefulset/store")
	ns.WaitFor(t, "condition=Ready", "pod/cache")
	for _, c := range [][2]string{{"store-0", "touch /data/kept"}, {"cache", "touch /memory/lost /disk/kept"}} {
		ns.Exec(t, c[0], "sh", "-c", c[1]+" && sync")
	}
	before := pods(t, ns)

	node.Reboot(t)
	node.Start(t)

	cluster.Eventually(t, soon, func() error { return runsAgain(t, ns, before) })
	ns.WaitRollout(t, "deployment/web")
	service := "http://" + node.IP + ":" + ns.Field(t, "service/web", ".spec.ports[0].nodePort") + "/hostname"
	cluster.Eventually(t, soon, func() error {
		_, err := cluster.Get(node, service)
		return err
	})
	ns.Exec(t, "store-0", "ls", "/data/kept")
	ns.Exec(t, "cache", "ls", "/disk/kept")
	if got := ns.Exec(t, "cache", "ls", "/memory"); got != "" {
		t.Errorf("what was in memory has outlived the reboot: %s", got)
	}
	ns.Exec(t, "cache", "grep", " /memory tmpfs ", "/proc/mounts")
	checkAddresses(t, ns)
}

// pods returns the pods of a namespace by their name.
func pods(t *testing.T, ns *cluster.Namespace) map[string]corev1.Pod {
	t.Helper()
	list, err := ns.Node.Client(t).CoreV1().Pods(ns.Name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		all[pod.Name] = pod
	}
	return all
}

// runsAgain wants the pods of before, no more and no less, to run in containers
// that were started once more and are not those of before.
func runsAgain(t *testing.T, ns *cluster.Namespace, before map[string]corev1.Pod) error {
	after := pods(t, ns)
	if len(after) != len(before) {
		return fmt.Errorf("%d pods, were %d", len(after), len(before))
	}
	for name, was := range before {
		is := after[name]
		if is.UID != was.UID {
			return fmt.Errorf("pod %s is another: %q, was %q", name, is.UID, was.UID)
		}
		old, now := was.Status.ContainerStatuses[0], is.Status.ContainerStatuses[0]
		if !now.Ready || now.State.Running == nil || now.ContainerID == old.ContainerID {
			return fmt.Errorf("pod %s does not run again: %+v", name, now)
		}
		if now.RestartCount != old.RestartCount+1 {
			return fmt.Errorf("pod %s counts %d restarts, want %d", name, now.RestartCount, old.RestartCount+1)
		}
	}
	return nil
}

// checkAddresses wants each pod to have an address of its own, and those of the
// living to be all that are given out.
func checkAddresses(t *testing.T, ns *cluster.Namespace) {
	t.Helper()
	var have []string
	for _, pod := range pods(t, ns) {
		have = append(have, pod.Status.PodIP)
	}
	slices.Sort(have)
	if len(slices.Compact(slices.Clone(have))) != len(have) {
		t.Errorf("two pods have one address: %v", have)
	}
	// A sandbox that failed gives its address back a moment later.
	cluster.Eventually(t, soon, func() error {
		leases, err := filepath.Glob(ns.Node.Path("/run/lite/cni/lite/*.*.*.*"))
		if err != nil {
			return err
		}
		var leased []string
		for _, lease := range leases {
			leased = append(leased, filepath.Base(lease))
		}
		leased = slices.DeleteFunc(leased, func(name string) bool { return strings.HasPrefix(name, "last_reserved_ip") })
		if slices.Sort(leased); !slices.Equal(have, leased) {
			return fmt.Errorf("pods have %v, given out are %v", have, leased)
		}
		return nil
	})
}

// orderly writes down that it was asked to end.
const orderly = `
apiVersion: v1
kind: Pod
metadata: {name: orderly}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -c, 'trap "echo asked >>/data/orderly; exit" TERM; while :; do sleep 1 & wait; done']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, hostPath: {path: /var/lib/store, type: DirectoryOrCreate}}]
`

// TestStateRemoved removes, while lite is stopped and pods run, what it keeps in /run, or
// a part of it, as a cleaner that knows no better does. The next start ends what runs, since
// nobody could be told of it any more, and begins the pods anew: a program is never there
// twice. It does not enter what is mounted; the directories of mounts stay, being busy.
func TestStateRemoved(t *testing.T) {
	t.Parallel()
	node := cluster.New(t).Server()
	ns := node.Namespace(t)
	ns.Apply(t, cluster.Web(3)+"---"+stateful+"---"+orderly)
	ns.WaitRollout(t, "deployment/web")
	ns.WaitRollout(t, "statefulset/store")
	ns.WaitFor(t, "condition=Ready", "pod/cache", "pod/orderly")
	for _, round := range []struct{ name, remove string }{
		{"all of it", "/run/lite"},
		{"what is known of tasks", "/run/lite/containerd/state/io.containerd.runtime.v2.task"},
		{"the sockets of shims", "/run/lite/containerd/s"},
		{"what containerd and runc know", "/run/lite/containerd"},
	} {
		t.Run(round.name, func(t *testing.T) {
			before, shims := pods(t, ns), shimsOf(t, node)
			node.Stop(t)
			node.Output(t, "sh", "-c", "rm -f /var/lib/store/orderly; rm -rf --one-file-system "+round.remove+" 2>/dev/null; true")
			node.Start(t)
			cluster.Eventually(t, soon, func() error { return begunAnew(pods(t, ns), before) })
			if _, err := os.Stat(node.Path("/var/lib/store/orderly")); err != nil {
				t.Errorf("a container was not asked to end: %v", err)
			}
			cluster.Eventually(t, soon, func() error { return nothingOf(t, node, before, shims) })
			ns.WaitRollout(t, "deployment/web")
			service := "http://" + node.IP + ":" + ns.Field(t, "service/web", ".spec.ports[0].nodePort") + "/hostname"
			cluster.Eventually(t, soon, func() error {
				_, err := cluster.Get(node, service)
				return err
			})
			ns.Exec(t, "store-0", "true")
			checkAddresses(t, ns)
		})
	}
}

// begunAnew wants all pods to run in other containers than before.
func begunAnew(now, before map[string]corev1.Pod) error {
	for name, pod := range now {
		if before[name].UID == "" {
			continue
		}
		// What the API says may be of before the start.
		was, is := before[name].Status.ContainerStatuses[0], pod.Status.ContainerStatuses[0]
		if !is.Ready || is.ContainerID == was.ContainerID {
			return fmt.Errorf("pod %s: %+v", name, is)
		}
	}
	return nil
}

// shimsOf is the sandboxes for which shims run.
func shimsOf(t *testing.T, node *cluster.Node) []string {
	t.Helper()
	return strings.Fields(node.Output(t, "sh", "-c", `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline; echo; done 2>/dev/null | sed -n 's/^[^ ]*containerd-shim.* -id \([0-9a-f]*\) .*/\1/p'`))
}

// nothingOf wants no process, shim or cgroup of earlier containers.
func nothingOf(t *testing.T, node *cluster.Node, before map[string]corev1.Pod, shims []string) error {
	t.Helper()
	if len(shims) < len(before) {
		t.Fatalf("%d shims for %d pods", len(shims), len(before))
	}
	for _, shim := range shimsOf(t, node) {
		if slices.Contains(shims, shim) {
			return fmt.Errorf("the shim of %s runs on", shim)
		}
	}
	ids := slices.Clone(shims)
	for _, pod := range before {
		_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
		ids = append(ids, id)
	}
	any := strings.Join(ids, "\\|")
	if found := node.Output(t, "sh", "-c", "grep -l '"+any+"' /proc/[0-9]*/cgroup 2>/dev/null; find /sys/fs/cgroup -type d | grep '"+any+"'; true"); found != "" {
		return fmt.Errorf("of earlier containers there is %s", found)
	}
	return nil
}
