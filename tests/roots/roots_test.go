// Package roots tests that a node needs nothing of the machine but its kernel:
// lite runs where no package was installed for it.
package roots

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lite.io/lite/tests/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// busyboxRoot makes a root of busybox alone: no glibc, no bash, none of the
// programs that write packet filter rules.
func busyboxRoot(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	root := t.TempDir()
	for _, dir := range []string{"bin", "sbin", "usr", "etc", "root", "var", "dev", "proc", "sys", "run", "tmp", "lib"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", string(content), 0o755)
	write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	write("etc/group", "root:x:0:\n", 0o644)
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return root
}

func TestBusyboxAlone(t *testing.T) {
	n := cluster.NewNode(t, cluster.Root(busyboxRoot(t)))
	n.Start(t)
	t.Log(n.Output(t, "lite", "status", "-o", "json"))
}
