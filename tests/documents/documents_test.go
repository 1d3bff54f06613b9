package documents

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

const repository = "../.."

func TestMain(m *testing.M) { cluster.Main(m) }

// files makes what the documents take for granted: the image of README.md in an archive,
// a manifest, and a Deployment.
const files = `
set -e
lite ctr images tag --force lite.test/busybox:1 docker.io/library/busybox:1.37
lite images export -o busybox.tar docker.io/library/busybox:1.37
lite kubectl create configmap app --from-literal=a=b --dry-run=client -o yaml >app.yaml
lite kubectl create deployment web --image=lite.test/busybox:1 --port=8080 -- sleep 1d
`

func read(t *testing.T) []Document {
	t.Helper()
	all, err := Read(repository)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCommands runs, in the order of the documents, all blocks that name it, as root on
// a server. A user who is told that something is not there yet tries again, so each
// command may take a minute to succeed.
func TestCommands(t *testing.T) {
	t.Parallel()
	all := read(t)
	n := cluster.New(t).Server()
	run := func(at, command string) {
		cluster.Eventually(t, time.Minute, func() error {
			out, err := n.Command(t.Context(), "sh", "-c", "cd /root\n"+command).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %s: %w\n%s", at, command, err, out)
			}
			t.Logf("%s: %s\n%s", at, command, out)
			return nil
		})
	}
	run("what is taken for granted", files)
	if Follow(all, "TestCommands", run) == 0 {
		t.Fatal("no document has commands for this test")
	}
	// What README.md has made answers.
	cluster.Eventually(t, time.Minute, func() error {
		out, err := n.KubectlErr(t, "get", "--raw", "/api/v1/namespaces/default/services/hello:80/proxy/")
		if err == nil && strings.TrimSpace(out) != "hello" {
			t.Errorf("the service of README.md answers %q", out)
		}
		return err
	})
}
