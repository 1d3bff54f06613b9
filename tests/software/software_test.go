// Package software runs on lite what others have written, as they have written it:
// Helm, cert-manager and PostgreSQL, built or fetched by scripts/test/software.
//
// What takes long, to build the first time or to run, has to be asked for:
//
//	make test-long
package software

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is for what a controller does after it was started, on a busy machine.
const soon = time.Minute

// made returns where scripts/test/software has put a software; it makes it first if
// it is not there.
func made(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.Command("../../scripts/test/software", name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	path, err := cmd.Output()
	if err != nil {
		t.Fatalf("make %s: %v\n%s", name, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(path))
}

// importImages imports an archive of images on a node.
func importImages(t *testing.T, n *cluster.Node, archive string) {
	t.Helper()
	n.Output(t, "lite", "images", "import", archive)
}

// helm is Helm on a node, with a namespace for what it installs.
type helm struct {
	*cluster.Namespace
	program string
}

func newHelm(t *testing.T, ns *cluster.Namespace) helm {
	t.Helper()
	return helm{ns, made(t, "helm")}
}

// err runs helm and returns what it prints.
func (h helm) err(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := h.Node.Command(t.Context(), h.program, append([]string{"--namespace", h.Name, "--kubeconfig", cluster.Kubeconfig}, args...)...)
	c.Env = append(c.Env, "HELM_CACHE_HOME=/tmp/helm", "HELM_CONFIG_HOME=/tmp/helm", "HELM_DATA_HOME=/tmp/helm")
	out, err := c.CombinedOutput()
	return string(out), err
}

func (h helm) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.err(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// put copies a directory of the machine to where the node has room for it.
func put(t *testing.T, n *cluster.Node, dir, to string) string {
	t.Helper()
	from, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", from, n.Path(to)).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
	return to
}

// holder returns who holds a lease of kube-system, and an error if nobody does.
func holder(t *testing.T, n *cluster.Node, lease string) (string, error) {
	t.Helper()
	out, err := n.KubectlErr(t, "--namespace", "kube-system", "get", "lease", lease, "-o", "jsonpath={.spec.holderIdentity}")
	if err == nil && out == "" {
		err = fmt.Errorf("nobody holds lease %s", lease)
	}
	return out, err
}

// TestLong runs what takes long on one node, one after the other: each goes on when the
// next takes the node from under it.
func TestLong(t *testing.T) {
	cluster.Long(t)
	node := cluster.New(t).Server()
	t.Run("cert-manager", func(t *testing.T) { testCertManager(t, node) })
	t.Run("PostgreSQL", func(t *testing.T) { testPostgreSQL(t, node) })
}
