// Package images shows that a node without a network gets images, keeps them, and
// passes them on.
package images

import (
	"testing"

	"lite.io/lite/tests/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func TestScratch(t *testing.T) {
	n := cluster.NewNode(t)
	t.Log(string(run(t, n, "lite", "images", "list")))
	n.Start(t)
	t.Log(string(run(t, n, "lite", "images", "list")))
	t.Log(string(run(t, n, "lite", "images", "export", "-o", "/var/log/b.tar.zst", "lite.test/busybox:1")))
	t.Log(string(run(t, n, "ls", "-l", "/var/log")))
	t.Log(string(run(t, n, "lite", "images", "remove", "lite.test/busybox:1", "lite.test/agnhost:2")))
	t.Log(string(run(t, n, "lite", "images", "remove", "lite.test/busybox:1")))
	t.Log(string(run(t, n, "lite", "images", "list")))
	t.Log(string(run(t, n, "lite", "images", "import", "/var/log/b.tar.zst")))
	t.Log(string(run(t, n, "lite", "images", "import", "/usr/bin/ls")))
	t.Log(string(run(t, n, "lite", "images", "import", "/nowhere")))
	t.Log(string(run(t, n, "lite", "images", "list")))
	t.Log(string(run(t, n, "ls", "-l", "/var/lib/lite/agent/images")))
	t.Log(string(run(t, n, "lite", "bundle", "create", "-o", "/var/log/x.tar", "--image", "lite.test/busybox:1", "--image-file", "/var/lib/lite/agent/images/agnhost.tar")))
	t.Log(string(run(t, n, "tar", "tvf", "/var/log/x.tar")))
	t.Log(string(run(t, n, "lite", "bundle", "list", "/var/log/x.tar")))
	t.Log(string(run(t, n, "lite", "images", "export", "busybox", "busibox:1")))
	t.Log(n.Log())
}

func run(t *testing.T, n *cluster.Node, args ...string) []byte {
	out, err := n.Command(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		out = append(out, ("\n" + err.Error())...)
	}
	return out
}
