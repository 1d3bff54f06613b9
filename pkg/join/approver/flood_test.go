package approver

import (
	"context"
	"crypto/elliptic"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificates "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/roll"
	"lite.io/lite/pkg/layout"
)

// from reports which address a request comes from.
func (a *ask) from(address string) *ask { a.address = address; return a }

// by reports which token a request is made with.
func (a *ask) by(token string) *ask { a.user = layout.TokenUser + token; return a }

// token makes one more.
func (c *cluster) token(id string) {
	c.t.Helper()
	s := join.Settings{Role: join.Agent, Now: time.Now()}
	if err := join.Create(c.t.Context(), c, join.Token{ID: id, Secret: "0123456789abcdef"}, s); err != nil {
		c.t.Fatal(err)
	}
}

// drain takes all that waits out of a queue.
func drain(t *turns) (names string) {
	for t.Len() > 0 {
		names += t.Pop().name + " "
	}
	return strings.TrimSpace(names)
}

func TestTurns(t *testing.T) {
	for name, test := range map[string]struct {
		items []item
		want  string
	}{
		"none":                                {},
		"one asker":                           {[]item{{"a", "1", "a1"}, {"a", "1", "a2"}, {"a", "1", "a3"}}, "a1 a2 a3"},
		"two tokens":                          {[]item{{"a", "1", "a1"}, {"a", "1", "a2"}, {"a", "1", "a3"}, {"b", "1", "b1"}}, "a1 b1 a2 a3"},
		"two addresses":                       {[]item{{"a", "1", "a1"}, {"a", "1", "a2"}, {"a", "1", "a3"}, {"a", "2", "x"}}, "a1 x a2 a3"},
		"many addresses take no other's turn": {[]item{{"a", "1", "a1"}, {"a", "2", "a2"}, {"a", "3", "a3"}, {"b", "1", "b1"}, {"b", "1", "b2"}}, "a1 b1 a2 b2 a3"},
		"a node":                              {[]item{{"a", "1", "a1"}, {"a", "1", "a2"}, {"system:node:n", "1", "n"}}, "a1 n a2"},
	} {
		q := &turns{}
		for _, i := range test.items {
			q.Push(i)
		}
		if q.Len() != len(test.items) {
			t.Errorf("%s: %d wait", name, q.Len())
		}
		if got := drain(q); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		if len(q.of) > 0 || len(q.order) > 0 {
			t.Errorf("%s: something is remembered", name)
		}
	}
}

// A token had asked 1,794 times, and a machine waited for minutes behind that.
func TestAFloodKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.token("zzzzzz")
		const many = 300
		key := newKey(elliptic.P256())
		for i := range many {
			a := joins(fmt.Sprintf("bad%d", i)).from("192.0.2.66")
			a.key = key
			c.create(fmt.Sprintf("bad%d", i), a)
		}
		c.create("same token", joins("n1").from("192.0.2.1"))
		c.create("other token", joins("n2").by("zzzzzz").from("192.0.2.66"))
		c.create("renewed", renews("n3"))
		var order []string
		c.PrependReactor("update", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
			order = append(order, a.(clienttesting.UpdateAction).GetObject().(*certificates.CertificateSigningRequest).Name)
			return false, nil, nil
		})
		c.ClearActions()
		defer c.start()()
		for _, name := range []string{"same token", "other token", "renewed"} {
			c.want(name, approvedKind, "")
			if at := slices.Index(order, name); at > many/10 {
				t.Errorf("%s was decided after %d others", name, at)
			}
		}
		if len(order) != many+3 {
			t.Errorf("%d were decided", len(order))
		}
		// The watches list once; no decision does.
		lists := 0
		for _, a := range c.Actions() {
			if a.GetVerb() == "list" && a.GetResource().Resource != "secrets" {
				lists++
			}
		}
		if lists > int(watches) {
			t.Errorf("%d lists for %d decisions", lists, many)
		}
	})
}

func TestATokenAdmitsNoMoreThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.approver.config.NodesPerHour = 3
		c.token("zzzzzz")
		defer c.start()()
		for i := range 3 {
			c.ask(fmt.Sprint(i), joins(fmt.Sprintf("n%d", i)))
			c.want(fmt.Sprint(i), approvedKind, "with token abcdef")
			time.Sleep(10 * time.Minute)
		}
		for i, name := range []string{"n3", "n4"} {
			c.ask(fmt.Sprint("more", i), joins(name))
			c.want(fmt.Sprint("more", i), deniedKind, "token abcdef has admitted 3 nodes within an hour")
			c.want(fmt.Sprint("more", i), deniedKind, "lite token revoke --nodes abcdef")
		}
		// One of those that were let in comes again; others come by another token.
		c.ask("again", joins("n1"))
		c.want("again", approvedKind, "n1")
		c.ask("other", joins("n3").by("zzzzzz"))
		c.want("other", approvedKind, "with token zzzzzz")
		// The first one's hour is over.
		time.Sleep(31 * time.Minute)
		c.ask("later", joins("n4"))
		c.want("later", approvedKind, "n4")
		c.ask("later still", joins("n5"))
		c.want("later still", deniedKind, "abcdef")
	})
}

// Whoever has a token that others have as well, and floods, leaves something for them.
func TestAFloodLeavesPlaceForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.approver.config.NodesPerHour = 20
		defer c.start()()
		for i := range 30 {
			c.ask(fmt.Sprint("bad", i), joins(fmt.Sprintf("bad%d", i)).from("192.0.2.66"))
		}
		c.want("bad17", approvedKind, "bad17")
		c.want("bad18", deniedKind, "token abcdef has admitted 18 nodes")
		for i := range 2 {
			c.ask(fmt.Sprint("good", i), joins(fmt.Sprintf("good%d", i)).from(fmt.Sprintf("192.0.2.%d", i)))
			c.want(fmt.Sprint("good", i), approvedKind, "")
		}
		c.ask("late", joins("late").from("192.0.2.9"))
		c.want("late", deniedKind, "token abcdef has admitted 20 nodes")
	})
}

// A server that is started anew has forgotten nothing.
func TestARestartAdmitsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.approver.config.NodesPerHour = 1
		stop := c.start()
		c.ask("1", joins("n1"))
		c.want("1", approvedKind, "n1")
		stop()
		if err := c.CertificatesV1().CertificateSigningRequests().Delete(t.Context(), "1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		defer c.start()()
		c.ask("2", joins("n2"))
		c.want("2", deniedKind, "token abcdef")
	})
}

// What was asked for before a token was taken away was granted after.
func TestATokenThatIsGoneAdmitsNobody(t *testing.T) {
	for name, end := range map[string]func(*cluster) error{
		"deleted by lite": func(c *cluster) error { return join.Delete(c.t.Context(), c, "abcdef", time.Now()) },
		"deleted by hand": func(c *cluster) error {
			return c.CoreV1().Secrets("kube-system").Delete(c.t.Context(), "bootstrap-token-abcdef", metav1.DeleteOptions{})
		},
		"expired by itself": func(c *cluster) error {
			s := must(c.CoreV1().Secrets("kube-system").Get(c.t.Context(), "bootstrap-token-abcdef", metav1.GetOptions{}))
			s.Data["expiration"] = []byte(time.Now().Format(time.RFC3339))
			_, err := c.CoreV1().Secrets("kube-system").Update(c.t.Context(), s, metav1.UpdateOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.ask("csr", joins("n1"))
				if err := end(c); err != nil {
					t.Fatal(err)
				}
				defer c.start()()
				c.want("csr", deniedKind, "token abcdef has expired or was deleted")
			})
		})
	}
}

// Between the look at the token and the decision somebody takes token and nodes away.
func TestATokenIsRevokedInTheMiddleOfADecision(t *testing.T) {
	c := newCluster(t)
	j := judge{client: c, requests: newIndex(), nodes: newCensus(c, time.Now(), nil).nodes, tokens: &locks{}, admitted: func() { t.Error("somebody was admitted") }}
	request, wrong := parse(joins("n1").object("csr"))
	if wrong != nil {
		t.Fatal(wrong)
	}
	joined, v, err := j.byToken(t.Context(), request)
	if v != nil || err != nil {
		t.Fatal(v, err)
	}
	if err := join.Delete(t.Context(), c, "abcdef", time.Now()); err != nil {
		t.Fatal(err)
	}
	if ended, err := roll.End(t.Context(), c, "abcdef", time.Now()); err != nil || len(ended.Nodes) > 0 {
		t.Fatal(ended, err)
	}
	if v, err := j.admit(t.Context(), request, joined, nil); !apierrors.IsConflict(err) {
		t.Errorf("got %+v, %v", v, err)
	}
	if _, v, err := j.byToken(t.Context(), request); err != nil || v == nil || v.kind != deniedKind {
		t.Errorf("the next look comes to %+v, %v", v, err)
	}
}

// The node is on record by now, and is revoked before it is let in again.
func TestANodeIsRevokedInTheMiddleOfADecision(t *testing.T) {
	for name, before := range map[string]roll.Why{"for the first time": "", "again": roll.Revoked, "deleted before": roll.Deleted} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			if before != "" {
				if err := roll.Refuse(t.Context(), c, "n1", before, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			seen := must(roll.RefusalOf(t.Context(), c, "n1"))
			time.Sleep(time.Millisecond)
			if err := roll.Refuse(t.Context(), c, "n1", roll.Revoked, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := roll.Admit(t.Context(), c, "n1", "a key", seen); !apierrors.IsConflict(err) {
				t.Errorf("got %v", err)
			}
			if r := must(roll.RefusalOf(t.Context(), c, "n1")); r.Admits("a key") {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestARevokedNodeRenewsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		first := joins("n1")
		c.ask("first", first)
		c.want("first", approvedKind, "n1")
		c.issue("first")
		// It renews, and the server is about to decide when it is revoked.
		if err := roll.Refuse(t.Context(), c, "n1", roll.Revoked, time.Now()); err != nil {
			t.Fatal(err)
		}
		c.ask("renews", renews("n1").with(first.keyName()))
		c.want("renews", deniedKind, "was revoked")
		c.ask("serves", serves("n1").with(first.keyName()))
		c.want("serves", deniedKind, "was revoked")
		c.ask("renews, unknown key", renews("n1"))
		c.want("renews, unknown key", deniedKind, "was revoked")
		c.ask("with a token, the old key", first)
		c.want("with a token, the old key", deniedKind, "its old key")
		// With a token and another key it is a new machine, and may renew.
		second := joins("n1")
		c.ask("second", second)
		c.want("second", approvedKind, "n1")
		c.ask("second serves", serves("n1").with(second.keyName()))
		c.want("second serves", approvedKind, "n1")
		third := renews("n1").with(second.keyName())
		c.ask("third", third)
		c.want("third", approvedKind, "renewed")
		c.ask("fourth", renews("n1").with(third.keyName()))
		c.want("fourth", approvedKind, "renewed")
		c.ask("old", renews("n1").with(first.keyName()))
		c.want("old", deniedKind, "was revoked")
	})
}

// Of machines at different addresses none can hold up another by asking later.
func TestNobodyIsHeldUpByWhoAsksLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.start()()
		c.register("n1")
		c.renew("n1")
		time.Sleep(30 * time.Second)
		c.ask("honest", joins("n1").from("192.0.2.1"))
		for i := range 9 {
			time.Sleep(time.Second)
			c.ask(fmt.Sprint("bad", i), joins("n1").from("192.0.2.66"))
		}
		time.Sleep(4 * time.Second)
		c.want("honest", approvedKind, "n1")
	})
}

// BenchmarkDecisions measures decisions with two thousand requests pending. The API
// answers as fast as a fake can: what it shows is that a decision does not cost more
// when there are more. `make bench` measures a real one.
func BenchmarkDecisions(b *testing.B) {
	slog.SetLogLoggerLevel(slog.LevelError)
	for _, pending := range []int{20, 200, 2000} {
		b.Run(fmt.Sprintf("pending=%d", pending), func(b *testing.B) {
			j := judge{client: newCluster(nil), requests: newIndex(), nodes: newCensus(nil, time.Now(), nil).nodes, tokens: &locks{}, admitted: func() {}, since: time.Now()}
			key := newKey(elliptic.P256())
			csrs := make([]*certificates.CertificateSigningRequest, pending)
			for i := range csrs {
				a := joins(fmt.Sprintf("n%d", i))
				a.key = key
				csrs[i] = a.object(fmt.Sprint(i))
				j.requests.put(csrs[i])
			}
			b.ResetTimer()
			for i := range b.N {
				if _, err := j.decide(context.Background(), csrs[i%pending]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}
