package upgrade

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/tests/harness/cluster"
)

// TestServers upgrades three servers, one after the other, while somebody writes: none goes
// while the others cannot do without it, and one that goes back has lost nothing.
func TestServers(t *testing.T) {
	t.Parallel()
	artifact := nextBinary(t)
	c := cluster.New(t, cluster.Servers(3), cluster.Prepare(func(n *cluster.Node) {
		install(t, n).put(t, artifact, "/var/lib/next")
	}))
	a, b, last := bed{c.Servers[0]}, bed{c.Servers[1]}, bed{c.Servers[2]}
	old, _ := a.versions(t)
	upgrade := []string{"upgrade", "--artifact", "/var/lib/next"}

	t.Run("another is down", func(t *testing.T) {
		last.Stop(t)
		a.refused(t, upgrade, last.Name)
		last.Start(t)
		a.is(t, old)
	})
	t.Run("another has its turn", func(t *testing.T) {
		b.turn(t, last.Name, time.Now())
		b.refused(t, upgrade, "server "+last.Name+" is being upgraded or rolled back", "kubectl delete lease -n kube-system lite-upgrade")
		b.is(t, old)
		b.clean(t)
		// It was killed, and its turn has expired.
		b.turn(t, last.Name, time.Now().Add(-2*time.Hour))
	})
	t.Run("first", func(t *testing.T) {
		stop := writes(t, b)
		a.must(t, upgrade...)
		stop()
		a.is(t, next)
		a.clean(t)
		a.votes(t, 3)
		if out, err := a.KubectlErr(t, "get", "lease", "-n", "kube-system", "lite-upgrade"); err == nil {
			t.Errorf("the turn was not given back: %s", out)
		}
	})
	t.Run("second fails", func(t *testing.T) {
		// Its etcd may have written what the old one cannot read.
		fails := b.pose(t, "/var/lib/fails", func(p *pose) {
			p.Version.Version, p.Version.Etcd, p.Exec = next, minors(p.Version.Etcd, 1), "/var/lib/next"
			p.Write, p.Content = "/etc/lite/config.yaml.d/90-broken.yaml", "disable: [cni]\n"
		})
		before := b.votes(t, 3)
		stop := writes(t, a)
		// The new program ends at once, and nobody starts the old one again here.
		b.refused(t, []string{"upgrade", "--health-timeout=25s", "--artifact", fails}, "the old program and data are restored", "start it by hand")
		b.Start(t)
		stop()
		b.is(t, old)
		b.clean(t)
		b.ReadFile(t, cluster.DataDir+"/rollback/dropped/etcd/snap/db")
		if after := b.votes(t, 3); after == before {
			t.Errorf("it has the data that it had, as member %s", after)
		}
	})
	t.Run("second, and back", func(t *testing.T) {
		before := b.votes(t, 3)
		b.must(t, upgrade...)
		b.is(t, next)
		a.Kubectl(t, "create", "configmap", "since")
		token := a.ReadFile(t, cluster.DataDir+"/server/token")
		if out := b.must(t, "rollback", "--dry-run"); !strings.Contains(out, "the cluster's data stay") {
			t.Errorf("the plan:\n%s", out)
		}
		stop := writes(t, a)
		if out := b.must(t, "rollback", "--yes"); !strings.Contains(out, "nothing that was written is lost") {
			t.Errorf("it says:\n%s", out)
		}
		stop()
		b.is(t, old)
		b.WaitReady(t)
		b.Kubectl(t, "get", "configmap", "since")
		if after := b.votes(t, 3); after != before {
			t.Errorf("it was member %s and is %s", before, after)
		}
		if now := a.ReadFile(t, cluster.DataDir+"/server/token"); now != token {
			t.Error("the token of the other server has changed")
		}
	})
	t.Run("all", func(t *testing.T) {
		b.must(t, upgrade...)
		last.must(t, upgrade...)
		for _, s := range []bed{a, b, last} {
			s.is(t, next)
			s.votes(t, 3)
			s.Kubectl(t, "get", "configmap", "since")
		}
	})
}

// turn gives a server its turn to be upgraded.
func (b bed) turn(t *testing.T, holder string, since time.Time) {
	t.Helper()
	b.KubectlStdin(t, fmt.Sprintf(`{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: lite-upgrade, namespace: kube-system},
		spec: {holderIdentity: %s, leaseDurationSeconds: 1800, renewTime: %q}}`, holder, since.UTC().Format("2006-01-02T15:04:05.000000Z")), "apply", "-f", "-")
}

// votes checks that there are so many members, all of which vote, and returns which of them the server is.
func (b bed) votes(t *testing.T, want int) (id string) {
	t.Helper()
	var all []etcd.Member
	if err := json.Unmarshal([]byte(b.Kubectl(t, "get", "--raw", "/lite/v1/members")), &all); err != nil {
		t.Fatal(err)
	}
	voters := 0
	for _, m := range all {
		if !m.Learner && m.Name != "" {
			voters++
		}
		if m.Self {
			id = m.ID
		}
	}
	if len(all) != want || voters != want || id == "" {
		t.Errorf("the members are %+v, want %d that vote", all, want)
	}
	return id
}
