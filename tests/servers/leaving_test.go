package servers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/tests/harness/cluster"
)

// soon is for what a cluster does by itself; the machine is busy.
const soon = 90 * time.Second

// TestLeaving has servers of one cluster fail, leave and come back, until one is left; each test begins where the one
// before ends.
func TestLeaving(t *testing.T) {
	c := cluster.New(t, cluster.Servers(3))
	l := &leaving{first: c.Servers[0], second: c.Servers[1], third: c.Servers[2]}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Status", l.testStatus},
		{"RefusedWithoutQuorum", l.testRefused},
		{"LostServerIsDeleted", l.testLost},
		{"Rejoin", l.testRejoin},
		{"RunningServerIsDeleted", l.testDeleted},
		{"Uninstall", l.testUninstall},
		{"Reset", l.testReset},
		{"OldMemberComesBack", l.testComesBack},
	} {
		if !t.Run(test.name, test.run) {
			return
		}
	}
}

type leaving struct{ first, second, third *cluster.Node }

func health(t *testing.T, of *cluster.Node) (h etcd.Health) {
	t.Helper()
	if err := json.Unmarshal([]byte(of.Output(t, "lite", "member", "status", "-o", "json")), &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// fails runs lite, which has to say why it does not do it.
func fails(t *testing.T, on *cluster.Node, want []string, args ...string) {
	t.Helper()
	out, err := on.Command(t.Context(), "lite", args...).CombinedOutput()
	if err == nil {
		t.Errorf("lite %s: did it:\n%s", args, out)
	}
	for _, w := range want {
		if !strings.Contains(string(out), w) {
			t.Errorf("lite %s: does not say %q:\n%s", args, w, out)
		}
	}
}

// says waits until a command says something.
func says(t *testing.T, on *cluster.Node, want string, args ...string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		out, _ := on.Command(t.Context(), args[0], args[1:]...).CombinedOutput()
		if !strings.Contains(string(out), want) {
			return fmt.Errorf("%s: does not say %q:\n%s", args, want, out)
		}
		return nil
	})
}

// ended waits until lite has ended by itself.
func ended(t *testing.T, n *cluster.Node, why string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		if n.Running() {
			return errors.New("it runs")
		}
		return nil
	})
	if log := n.Log(); !strings.Contains(log[max(0, len(log)-2000):], why) {
		t.Errorf("%s ended without saying %q:\n%s", n.Name, why, log[max(0, len(log)-2000):])
	}
}

func (l *leaving) testStatus(t *testing.T) {
	for _, s := range []*cluster.Node{l.first, l.second, l.third} {
		h, leaders := health(t, s), 0
		for _, m := range h.Members {
			if m.Leader {
				leaders++
			}
			if !m.Reachable || m.Learner || m.Behind == nil || *m.Behind > 10_000 {
				t.Errorf("%s: %+v", s.Name, m)
			}
		}
		if len(h.Members) != 3 || leaders != 1 || h.MayFail != 1 {
			t.Errorf("%s: %+v", s.Name, h)
		}
		says(t, s, "Quorum: 1 more member may fail", "lite", "status")
		if out := s.Output(t, "lite", "member", "list"); strings.Count(out, ":2380") != 3 {
			t.Errorf("lite member list:\n%s", out)
		}
		if s != l.first && !strings.Contains(l.first.Log()+l.second.Log(), "A cluster of two servers is less available") {
			t.Error("nobody was warned of two servers")
		}
	}
	fails(t, l.first, []string{"no member", "lite member list"}, "member", "remove", "nobody")
	fails(t, l.second, nil, "member", "rejoin")
}

func (l *leaving) testRefused(t *testing.T) {
	l.third.Kill(t)
	says(t, l.first, "the loss of one more server stops the cluster: "+l.third.Name+" is not reachable", "lite", "status")
	condition := `jsonpath={.status.conditions[?(@.type=="lite.io/QuorumAtRisk")].status}`
	says(t, l.first, "True", "lite", "kubectl", "get", "node", l.second.Name, "-o", condition)
	says(t, l.first, "QuorumAtRisk", "lite", "kubectl", "get", "events", "-A", "--field-selector", "involvedObject.name="+l.first.Name)
	for _, s := range []*cluster.Node{l.first, l.second} {
		why := []string{"without " + s.Name + " the datastore has no quorum", l.third.Name + " is not reachable; start lite there first"}
		fails(t, l.first, why, "member", "remove", s.Name)
		fails(t, l.second, why, "kubectl", "delete", "node", s.Name)
		fails(t, l.second, why, "kubectl", "delete", "node", s.Name, "--dry-run=server")
	}
	if out := l.first.Kubectl(t, "get", "nodes", "-o", "name"); strings.Count(out, "node/") != 3 || len(health(t, l.first).Members) != 3 {
		t.Errorf("something was deleted: %s", out)
	}
	l.third.Start(t)
	says(t, l.first, "False", "lite", "kubectl", "get", "node", l.second.Name, "-o", condition)
}

// files is what a server has of the datastore.
func files(t *testing.T, n *cluster.Node) (all string) {
	t.Helper()
	err := filepath.WalkDir(n.Path(cluster.DataDir+"/server/etcd"), func(path string, d os.DirEntry, err error) error {
		if !strings.HasSuffix(path, ".tmp") { // room for the log to grow
			all += path + "\n"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (l *leaving) testLost(t *testing.T) {
	l.third.Kill(t)
	says(t, l.first, "unreachable", "lite", "member", "status")
	l.first.Kubectl(t, "delete", "node", l.third.Name, "--dry-run=server")
	if n := len(health(t, l.first).Members); n != 3 {
		t.Errorf("what was only tried has left %d members", n)
	}
	l.first.Kubectl(t, "delete", "node", l.third.Name)
	if n := len(health(t, l.second).Members); n != 2 {
		t.Errorf("%d members", n)
	}
	says(t, l.second, "two servers are less available than one", "lite", "status")
	before := files(t, l.third)
	for range 2 {
		l.third.Launch(t)
		ended(t, l.third, "this server was removed from the cluster")
	}
	if after := files(t, l.third); after != before {
		t.Errorf("it had\n%sand has\n%s", before, after)
	}
}

func (l *leaving) testRejoin(t *testing.T) {
	l.second.Stop(t)
	fails(t, l.second, []string{"is a member of the datastore: start lite", "nothing was changed"}, "member", "rejoin")
	l.second.Start(t)
	if out := l.third.Output(t, "lite", "member", "rejoin"); !strings.Contains(out, cluster.DataDir+"/server/etcd/member.before-") {
		t.Errorf("lite member rejoin: %s", out)
	}
	fails(t, l.third, []string{"start lite: it joins its cluster by itself"}, "member", "rejoin")
	l.third.Start(t)
	if h := health(t, l.third); len(h.Members) != 3 || h.MayFail != 1 {
		t.Errorf("%+v", h)
	}
}

func (l *leaving) testDeleted(t *testing.T) {
	l.third.Kubectl(t, "delete", "node", l.third.Name) // by the server that it is about
	ended(t, l.third, "this server was removed from the cluster")
	if n := len(health(t, l.first).Members); n != 2 {
		t.Errorf("%d members", n)
	}
	if out := l.first.Kubectl(t, "get", "nodes", "-o", "name"); strings.Contains(out, l.third.Name) {
		t.Errorf("the node is there again: %s", out)
	}
	l.third.Output(t, "lite", "member", "rejoin")
	l.third.Start(t)
}

func (l *leaving) testUninstall(t *testing.T) {
	l.second.Kill(t)
	says(t, l.first, "unreachable", "lite", "member", "status")
	fails(t, l.third, []string{"without " + l.third.Name + " the datastore has no quorum", "nothing was removed", "--force"}, "uninstall", "--yes")
	if !l.third.Running() {
		t.Fatal("it was stopped")
	}
	l.second.Start(t)
	// The program itself cannot be removed: the test bed has mounted it.
	out, _ := l.third.Command(t.Context(), "lite", "uninstall", "--yes").CombinedOutput()
	if _, err := os.Stat(l.third.Path(cluster.DataDir + "/server")); err == nil {
		t.Errorf("the data are there still:\n%s", out)
	}
	if n := len(health(t, l.first).Members); n != 2 {
		t.Errorf("%d members:\n%s", n, out)
	}
}

// testReset loses one of two for good. The other is killed at each step of becoming the only one.
func (l *leaving) testReset(t *testing.T) {
	l.first.Kubectl(t, "create", "configmap", "kept", "--from-literal=a=b")
	l.second.Stop(t)
	fails(t, l.second, []string{l.first.Name, "is up: two servers must not both go on"}, "server", "--reset-to-single")
	l.first.Kill(t)
	for _, sign := range []string{`"began"`, `"forced":true`} {
		l.second.Launch(t, "--reset-to-single")
		cluster.Eventually(t, soon, func() error {
			data, err := os.ReadFile(l.second.Path(cluster.DataDir + "/server/reset.json"))
			if err == nil && !strings.Contains(string(data), sign) {
				err = fmt.Errorf("it has come to %s", data)
			}
			return err
		})
		l.second.Kill(t)
	}
	l.second.Start(t, "--reset-to-single")
	alone := func() {
		t.Helper()
		if h := health(t, l.second); len(h.Members) != 1 || h.Members[0].Name != l.second.Name {
			t.Errorf("%+v", h)
		}
		if got := l.second.Kubectl(t, "get", "configmap", "kept", "-o", "jsonpath={.data.a}"); got != "b" {
			t.Errorf("it reads %q", got)
		}
	}
	alone()
	l.second.Kubectl(t, "create", "configmap", "after", "--from-literal=a=b")
	l.second.Stop(t)
	l.second.Start(t, "--reset-to-single") // a service file has it still
	if !strings.Contains(l.second.Log(), "reset-to-single was done and is not done again") {
		t.Error("the option is left without a word")
	}
	alone()
	l.second.Kubectl(t, "get", "configmap", "after")
}

func (l *leaving) testComesBack(t *testing.T) {
	l.first.Launch(t)
	ended(t, l.first, "this server was removed from the cluster")
	l.first.Output(t, "lite", "member", "rejoin")
	l.first.Start(t)
	l.first.Kubectl(t, "get", "configmap", "after")
	l.second.Stop(t)
	l.second.Start(t, "--reset-to-single")
	for _, s := range []*cluster.Node{l.first, l.second} {
		if n := len(health(t, s).Members); n != 2 {
			t.Errorf("%s knows %d members", s.Name, n)
		}
	}
}
