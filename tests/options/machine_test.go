package options

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// passesOn is a pod that mounts something for the node.
const passesOn = `
apiVersion: v1
kind: Pod
metadata: {name: driver}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -c, "mkdir -p /shared/volume && mount -t tmpfs volume /shared/volume && touch /shared/volume/mounted && sleep 100000"]
    securityContext: {privileged: true}
    volumeMounts: [{name: shared, mountPath: /shared, mountPropagation: Bidirectional}]
  volumes: [{name: shared, emptyDir: {}}]
`

// TestKubeletFiles has a node without systemd whose kubelet has a disk of its own, which
// is not shared (k3d#1063, k3s#1846), and whose resolv.conf comes late and goes again
// (k3s#5503, kubernetes#103110).
func TestKubeletFiles(t *testing.T) {
	t.Parallel()
	const file = "/run/resolver/resolv.conf"
	node := cluster.NewNode(t)
	node.Output(t, "sh", "-c", "mkdir -p /var/lib/kubelet && mount -t tmpfs kubelet /var/lib/kubelet && mount --make-private /var/lib/kubelet")
	node.Start(t, "--kubelet-arg=resolv-conf="+file)
	note := func(want bool) {
		t.Helper()
		status := node.Output(t, "lite", "status")
		if got := strings.Contains(status, "no pod starts: its resolv-conf cannot be read: stat "+file); got != want {
			t.Errorf("the status says that %s is missing: %t, want %t:\n%s", file, got, want, status)
		}
	}
	note(true)
	node.WriteFile(t, file, "nameserver 192.0.2.53\n")
	note(false)

	ns := node.Namespace(t)
	ns.Apply(t, passesOn)
	ns.WaitFor(t, "condition=Ready", "pod/driver")
	mounted := "/var/lib/kubelet/pods/" + ns.Field(t, "pod/driver", ".metadata.uid") + "/volumes/kubernetes.io~empty-dir/shared/volume/mounted"
	cluster.Eventually(t, time.Minute, func() error {
		if out, err := node.Command(t.Context(), "ls", mounted).CombinedOutput(); err != nil {
			return fmt.Errorf("what the pod has mounted is not on the node: %w: %s", err, out)
		}
		return nil
	})
	if mounts := node.Output(t, "grep", "-c", " /var/lib/kubelet ", "/proc/1/mountinfo"); strings.TrimSpace(mounts) != "1" {
		t.Errorf("%s mounts lie at the kubelet's directory", mounts)
	}
	ns.Kubectl(t, "exec", "driver", "--", "umount", "/shared/volume")
	node.Output(t, "rm", file)
	note(true)
}
