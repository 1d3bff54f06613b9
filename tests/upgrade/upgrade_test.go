package upgrade

import (
	"testing"

	"lite.io/lite/tests/cluster"
)

func TestUpgradeAndRollback(t *testing.T) {
	artifact := nextBinary(t)
	b := install(t, cluster.NewNode(t))
	b.put(t, artifact, "/var/lib/next")
	b.Start(t)
	old, _ := b.versions(t)
	ns := b.Namespace(t)
	ns.Apply(t, web)
	ns.WaitRollout(t, "deployment/web")
	before := containers(t, ns)
	b.Kubectl(t, "create", "configmap", "early")

	b.must(t, "upgrade", "--artifact", "/var/lib/next")
	b.is(t, next)
	b.clean(t)
	b.WaitReady(t)
	same(t, ns, before)
	b.Kubectl(t, "create", "configmap", "late")

	b.must(t, "rollback", "--yes")
	b.is(t, old)
	b.clean(t)
	b.WaitReady(t)
	same(t, ns, before)
	b.Kubectl(t, "get", "configmap", "early")
	if out, err := b.KubectlErr(t, "get", "configmap", "late"); err == nil {
		t.Errorf("what was written after the upgrade is there after the rollback: %s", out)
	}
}
