package restart

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
)

// TestDiskFull lets the disk of the data directory get full while objects are
// written: at some time a write is refused, or lite ends and says why in one
// line. With room again it works as before, and has all that it acknowledged.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	node := cluster.NewNode(t)
	node.Output(t, "mount", "-t", "tmpfs", "-o", "size=600m,mode=700", "tmpfs", cluster.DataDir)
	node.Start(t)
	written := map[string]string{}
	if err := writeLarge(t, node, written, 3); err != nil {
		t.Fatal(err)
	}

	before := strings.Count(node.Log(), "\n")
	const filler = cluster.DataDir + "/filler"
	node.Output(t, "sh", "-c", "cat /dev/zero >"+filler+" 2>/dev/null; true")
	// The log has room of its own for a while, 64 MB at a time.
	err := writeLarge(t, node, written, 400)
	if err == nil {
		t.Fatalf("%d objects went onto a full disk", len(written))
	}
	t.Logf("with %d objects: %v", len(written), err)
	// It may need a moment to find out that it cannot go on.
	if ended := endsWithin(node, 5*time.Second); ended {
		if message := refused(t, node); !strings.Contains(message, "MiB") {
			t.Errorf("on the full disk a start says:\n%s", message)
		}
	}
	for _, line := range strings.Split(node.Log(), "\n")[before:] {
		if strings.HasPrefix(line, "goroutine ") {
			t.Errorf("lite has crashed: %s", line)
		}
	}

	if err := os.Remove(node.Path(filler)); err != nil {
		t.Fatal(err)
	}
	// As systemd would, should it end only now.
	cluster.Eventually(t, time.Minute, func() error {
		if !node.Running() {
			node.Launch(t)
		}
		return writeLarge(t, node, written, 1)
	})
	node.WaitReady(t)
	for name, want := range written {
		object, err := node.Client(t).CoreV1().ConfigMaps("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Errorf("was acknowledged: %v", err)
		} else if object.Data["key"] != want {
			t.Errorf("%s has changed", name)
		}
	}
	node.Stop(t)
	node.Start(t)
}

// endsWithin waits for lite to end, but not longer than d.
func endsWithin(node *cluster.Node, d time.Duration) bool {
	for deadline := time.Now().Add(d); node.Running() && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	return !node.Running()
}

// writeLarge creates a number of objects of half a megabyte and adds those that
// were acknowledged to written. It returns the first error.
func writeLarge(t *testing.T, node *cluster.Node, written map[string]string, number int) error {
	t.Helper()
	client := node.Client(t)
	for range number {
		content := make([]byte, 256<<10)
		_, _ = rand.Read(content)
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "large-"},
			Data:       map[string]string{"key": hex.EncodeToString(content)},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		made, err := client.CoreV1().ConfigMaps("default").Create(ctx, object, metav1.CreateOptions{})
		cancel()
		if err != nil {
			return fmt.Errorf("create an object: %w", err)
		}
		written[made.Name] = object.Data["key"]
	}
	return nil
}
