package approver

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/kube"
)

// ready makes a node ready.
func (c *cluster) ready(name string) {
	c.t.Helper()
	n := node(name)
	n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}
	if _, err := c.CoreV1().Nodes().UpdateStatus(c.t.Context(), n, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

func (c *cluster) deleteNode(name string) {
	c.t.Helper()
	if err := c.CoreV1().Nodes().Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

// refused checks whether a key is good, and why not.
func (c *cluster) refused(name, key string, want roll.Why) {
	c.t.Helper()
	synctest.Wait()
	r := must(roll.RefusalOf(c.t.Context(), c, name))
	switch {
	case want == "" && !r.Admits(key):
		c.t.Errorf("%s is refused: %+v", name, r)
	case want != "" && (r.Admits(key) || r.Why != want):
		c.t.Errorf("%s: got %+v, want it to be refused as %s", name, r, want)
	}
}

// admitted checks what is on record for the token.
func (c *cluster) admitted(want ...string) {
	c.t.Helper()
	synctest.Wait()
	all := must(roll.ListJoined(c.t.Context(), c))
	got := map[string]bool{}
	for name := range roll.Current(all) {
		got[name] = true
	}
	for _, name := range want {
		if !got[name] {
			c.t.Errorf("%s is not on record", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		c.t.Errorf("%v are on record", got)
	}
}

// join is a machine that becomes a ready node.
func (c *cluster) join(name string) *ask {
	c.t.Helper()
	a := joins(name)
	c.ask(name+"-"+a.keyName()[:8], a)
	c.want(name+"-"+a.keyName()[:8], approvedKind, name)
	c.register(name)
	c.ready(name)
	return a
}

func TestADeletedNodeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, node("old")) // joined before there was a record
		defer c.start()()
		a := c.join("n1")
		c.admitted("n1")
		for _, name := range []string{"n1", "old"} {
			time.Sleep(time.Second)
			c.deleteNode(name)
		}
		c.refused("n1", a.keyName(), roll.Deleted)
		c.refused("old", "any", roll.Deleted)
		c.admitted()
		// It comes again, at once, by a token; the old key stays refused.
		b := c.join("n1")
		c.refused("n1", b.keyName(), "")
		c.refused("n1", a.keyName(), roll.Deleted)
		c.admitted("n1")
	})
}

// While the watch was interrupted, a Node was deleted and made again.
func TestAnotherNodeOfThatNameIsNoticed(t *testing.T) {
	var changed int
	s := &nodes{byName: map[string]known{}, gone: map[string]time.Time{}, changed: func() { changed++ }}
	h := s.handler()
	first, second, heartbeat := node("n1"), node("n1"), node("n1")
	first.UID, second.UID, heartbeat.UID = "1", "2", "2"
	h.Changed(kube.Change[*v1.Node]{Key: cache.ObjectName{Name: "n1"}, After: first, Came: true})
	if len(s.deleted()) > 0 {
		t.Error("a node that has come is gone")
	}
	before := changed
	h.Changed(kube.Change[*v1.Node]{Key: cache.ObjectName{Name: "n1"}, Before: first, After: second})
	if _, there := s.get("n1"); !there || len(s.deleted()) != 1 || changed == before {
		t.Errorf("gone: %v, there: %v", s.deleted(), there)
	}
	s.seenTo("n1", s.deleted()["n1"])
	h.Changed(kube.Change[*v1.Node]{Key: cache.ObjectName{Name: "n1"}, Before: second, After: heartbeat})
	if len(s.deleted()) > 0 {
		t.Error("a heartbeat is a deletion")
	}
}

// A server's Node comes back by itself, with keys that no token has admitted.
func TestADeletedServerIsNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		labelled := node("further")
		labelled.Labels = map[string]string{kube.ServerLabel: "true"}
		c := newCluster(t, node("server1"), labelled)
		defer c.start()()
		for _, name := range []string{"server1", "further"} {
			c.deleteNode(name)
			c.refused(name, "any", "")
		}
	})
}

// The server ended between the deletion and the note of it.
func TestADeletionIsNoticedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.start()
		a, b := c.join("n1"), c.join("n2")
		stop()
		c.deleteNode("n1")
		defer c.start()()
		c.refused("n1", a.keyName(), roll.Deleted)
		c.refused("n2", b.keyName(), "")
		c.admitted("n2")
	})
}

// A dead node is deleted while a machine that was installed anew takes its place.
func TestWhoWasJustAdmittedSurvivesADeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		a := c.join("n1")
		time.Sleep(10 * time.Minute)
		c.report("n1") // it is ready no more, as the node controller has found by then
		b := joins("n1")
		c.ask("again", b)
		c.want("again", approvedKind, "n1")
		c.deleteNode("n1")
		c.refused("n1", a.keyName(), roll.Deleted)
		c.refused("n1", b.keyName(), "")
		c.admitted("n1")
	})
}

// What somebody said by hand is not undone by what follows from it.
func TestADeletionSparesNobodyWhoWasRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		a := joins("n1")
		c.ask("csr", a)
		c.register("n1")
		if err := roll.Refuse(t.Context(), c, "n1", roll.Revoked, time.Now()); err != nil {
			t.Fatal(err)
		}
		c.deleteNode("n1")
		c.refused("n1", a.keyName(), roll.Revoked)
	})
}

// A token made certificates that were good for a year and of which no node came.
func TestWhoBecomesNoNodeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.start()
		never, dead, lives, good := joins("never"), joins("dead"), joins("lives"), c.join("good")
		for name, a := range map[string]*ask{"never": never, "dead": dead, "lives": lives} {
			c.ask(name, a)
			c.want(name, approvedKind, name)
		}
		c.register("dead")
		c.register("lives") // it waits for a pod network
		for range 6*50 - 1 {
			time.Sleep(10 * time.Second)
			c.renew("lives")
		}
		c.refused("never", never.keyName(), "")
		// While no server runs nobody can become ready.
		stop()
		time.Sleep(5 * time.Hour)
		defer c.start()()
		for i := range 6 * 63 {
			time.Sleep(10 * time.Second)
			c.renew("lives")
			if i == 6*57 {
				c.refused("never", never.keyName(), "")
			}
		}
		c.refused("never", never.keyName(), roll.Unused)
		c.refused("dead", dead.keyName(), roll.Unused)
		c.refused("lives", lives.keyName(), "")
		c.refused("good", good.keyName(), "")
		c.admitted("lives", "good")
		c.ready("lives")
		time.Sleep(3 * time.Hour)
		c.refused("lives", lives.keyName(), "")
	})
}

// The record of a token that has ended is there for as long as one of its nodes is.
func TestTheRecordOfATokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.join("n1")
		must(roll.End(t.Context(), c, "abcdef", time.Now()))
		c.admitted("n1")
		c.deleteNode("n1")
		time.Sleep(2 * time.Minute)
		if all := must(roll.ListJoined(t.Context(), c)); len(all) != 0 {
			t.Errorf("%d records are left", len(all))
		}
	})
}

// Of two tokens that have admitted one name, the last one has.
func TestTheLastTokenCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.token("zzzzzz")
		defer c.start()()
		c.join("n1")
		time.Sleep(10 * time.Minute)
		c.ask("again", joins("n1").by("zzzzzz"))
		c.want("again", approvedKind, "zzzzzz")
		c.ready("n1")
		for _, j := range must(roll.ListJoined(t.Context(), c)) {
			if _, ok := j.Nodes["n1"]; ok != (j.Token == "zzzzzz") {
				t.Errorf("token %s has %v", j.Token, j.Nodes)
			}
		}
	})
}
