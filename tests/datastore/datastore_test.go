// Package datastore runs lite on datastores that are not its own etcd: a file of SQLite, and the real servers of others.
package datastore

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
	"lite.io/lite/tests/harness/stores"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// ledger is what was acknowledged, by name.
type ledger map[string]string

// write creates n objects, and changes each.
func (l ledger) write(t *testing.T, node *cluster.Node, n int) {
	t.Helper()
	maps := node.Client(t).CoreV1().ConfigMaps("default")
	for range n {
		name := fmt.Sprintf("entry-%d", len(l))
		made, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": "1"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l[name] = "1"
		made.Data["v"] = "2"
		if _, err := maps.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		l[name] = "2"
	}
}

// check finds all that was acknowledged.
func (l ledger) check(t *testing.T, node *cluster.Node) {
	t.Helper()
	all, err := node.Client(t).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	have := ledger{}
	for _, m := range all.Items {
		have[m.Name] = m.Data["v"]
	}
	for name, value := range l {
		if have[name] != value {
			t.Errorf("%s is %q, and %q was acknowledged", name, have[name], value)
		}
	}
}

// startPod runs a pod, and returns what stays the same while nobody touches it.
func startPod(t *testing.T, node *cluster.Node) func() string {
	t.Helper()
	cluster.Eventually(t, time.Minute, func() error { // the namespace gets its service account soon
		_, err := node.KubectlErr(t, "run", "still", "--image=lite.test/busybox:1", "--restart=Always", "--command", "--", "sleep", "100000")
		return err
	})
	node.Kubectl(t, "wait", "--for=condition=Ready", "--timeout=120s", "pod/still")
	return func() string {
		return node.Kubectl(t, "get", "pod", "still", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}")
	}
}

// keeps starts lite on a store, and shows that objects and pods are as before after it was restarted, and killed.
func keeps(t *testing.T, node *cluster.Node, written ledger) {
	t.Helper()
	node.Start(t)
	state := startPod(t, node)
	before := state()
	written.write(t, node, 20)
	node.Stop(t)
	node.Start(t)
	written.check(t, node)
	written.write(t, node, 20)
	node.Kill(t)
	node.Start(t)
	written.check(t, node)
	if now := state(); now != before {
		t.Errorf("the pod was %s, and is %s", before, now)
	}
}

// TestSQLite: the smallest store. What concerns all stores that are not the embedded etcd is tested here as well.
func TestSQLite(t *testing.T) {
	t.Parallel()
	node := cluster.NewNode(t)
	node.Env = []string{"LITE_LOG_LEVEL=debug"}
	node.WriteFile(t, "/etc/lite/config.yaml", "datastore-endpoint: sqlite://\n")
	written := ledger{}
	keeps(t, node, written)

	if status := node.Output(t, "lite", "status"); !strings.Contains(status, "SQLite in /var/lib/lite/server/sqlite/state.db") || strings.Contains(status, "etcd") {
		t.Errorf("lite status:\n%s", status)
	}
	for path, mode := range map[string]os.FileMode{"/run/lite/datastore.sock": 0o600, "/var/lib/lite/server/sqlite": 0o700, "/var/lib/lite/server/sqlite/state.db": 0o600} {
		if info, err := os.Stat(node.Path(path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if sockets := node.Output(t, "ss", "-ltnH"); strings.Contains(sockets, ":2379") || strings.Contains(sockets, ":2380") {
		t.Errorf("somebody listens for etcd's clients:\n%s", sockets)
	}

	t.Run("another kind", func(t *testing.T) {
		node.Stop(t)
		node.WriteFile(t, "/etc/lite/config.yaml", "")
		refused(t, node, `datastore-endpoint "etcd" (default), but the cluster has "sqlite"`)
		node.WriteFile(t, "/etc/lite/config.yaml", "datastore-endpoint: sqlite://\n")
		node.Start(t)
		written.check(t, node)
	})
}

// refused starts lite, which has to end with a message, in one line.
func refused(t *testing.T, node *cluster.Node, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := node.Command(ctx, "lite", "server")
	c.Env = append(c.Env, node.Env...)
	out, err := c.CombinedOutput()
	said := strings.ReplaceAll(string(out), `\"`, `"`) // as the log quotes it
	if err == nil || ctx.Err() != nil || !strings.Contains(said, want) {
		t.Errorf("want %s, got %v:\n%s", want, err, out)
	}
	if strings.Contains(string(out), stores.Password) || strings.Contains(string(out), "s3cr3t") {
		t.Errorf("the password is shown:\n%s", out)
	}
}
