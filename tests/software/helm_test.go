package software

import (
	"fmt"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestHelm takes a chart with all that charts have through its life: definitions,
// objects of them, jobs before installs and upgrades, and a test.
func TestHelm(t *testing.T) {
	node := cluster.New(t).Server()
	h := newHelm(t, node.Namespace(t))
	chart := put(t, node, "testdata/chart", "/tmp/chart")

	h.run(t, "install", "shop", chart, "--wait", "--timeout", "100s")
	h.expect(t, 1, "deployed", "1", "lite.test/agnhost:2")
	if migrated, made := h.Field(t, "job/shop-migration", ".status.completionTime"), h.Field(t, "deployment/shop", ".metadata.creationTimestamp"); migrated == "" || migrated > made {
		t.Errorf("the job that comes before ended at %q, and the Deployment was made at %s", migrated, made)
	}
	h.serves(t)
	h.run(t, "test", "shop", "--timeout", "100s")

	h.run(t, "upgrade", "shop", chart, "--wait", "--timeout", "100s", "--set", "image=lite.test/agnhost:3,replicas=2,size=5")
	h.expect(t, 2, "deployed", "2", "lite.test/agnhost:3")
	if size := h.Field(t, "shelf/shop", ".spec.size"); size != "5" {
		t.Errorf("after the upgrade the size is %s", size)
	}
	h.serves(t)

	// The definition refuses it, so nothing of it may be there.
	if out, err := h.err(t, "upgrade", "shop", chart, "--reuse-values", "--set", "size=0"); err == nil || !strings.Contains(out, "should be greater than or equal to 1") {
		t.Errorf("what the definition refuses: %v: %s", err, out)
	}
	if out, err := h.err(t, "upgrade", "shop", chart, "--rollback-on-failure", "--timeout", "100s", "--set", "migration=exit 1,replicas=3"); err == nil {
		t.Errorf("a job that fails does not fail the upgrade: %s", out)
	}
	h.expect(t, 5, "deployed", "2", "lite.test/agnhost:3")

	h.run(t, "rollback", "shop", "1", "--wait", "--timeout", "100s")
	h.expect(t, 6, "deployed", "1", "lite.test/agnhost:2")
	h.serves(t)

	h.run(t, "uninstall", "shop", "--wait", "--timeout", "100s")
	if left := h.Kubectl(t, "get", "deployments,replicasets,services,pods", "-l", "app=shop", "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	if left := h.Kubectl(t, "get", "shelves", "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	// Helm leaves definitions where they are, and so all objects of them.
	node.Kubectl(t, "get", "crd", "shelves.shop.example.test")
	if out := h.run(t, "list", "--short"); out != "" {
		t.Errorf("there are still releases: %s", out)
	}
}

// expect wants a revision of the release to be as Helm's history says, and the
// Deployment to have what that revision says.
func (h helm) expect(t *testing.T, revision int, status, replicas, image string) {
	t.Helper()
	out := h.run(t, "history", "shop", "--max", "1")
	last := strings.Fields(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	if len(last) == 0 || last[0] != fmt.Sprint(revision) || !strings.Contains(out, status) {
		t.Errorf("the last revision is not %d, %s: %s", revision, status, out)
	}
	got := h.Field(t, "deployment/shop", ".status.readyReplicas") + " of " + h.Field(t, "deployment/shop", ".spec.template.spec.containers[0].image")
	if want := replicas + " of " + image; got != want {
		t.Errorf("ready are %s, want %s", got, want)
	}
}

// serves asks the chart's Service.
func (h helm) serves(t *testing.T) {
	t.Helper()
	url := "http://" + h.Node.IP + ":" + h.Field(t, "service/shop", ".spec.ports[0].nodePort") + "/hostname"
	cluster.Eventually(t, soon, func() error {
		answer, err := cluster.Get(h.Node, url)
		if err == nil && !strings.HasPrefix(answer, "shop-") {
			err = fmt.Errorf("%s answers %q", url, answer)
		}
		return err
	})
}
