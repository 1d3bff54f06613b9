package join

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestTheLastHundredMarksAreKept(t *testing.T) {
	ctx, c := t.Context(), newCluster(t)
	for i := range 105 {
		if err := MarkEnded(ctx, c, fmt.Sprintf("id%04d", i), Expired, noon.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	data := published(t, c)
	if len(data) != 101 || data["kubeconfig"] == "" {
		t.Errorf("%d keys, want the kubeconfig and 100 marks", len(data))
	}
	for id, want := range map[string]bool{"id0004": false, "id0005": true, "id0104": true} {
		if _, ok := data["ended-"+id]; ok != want {
			t.Errorf("%s is there: %t", id, ok)
		}
	}
}

func TestMarksThatCannotBeReadAreTheOldest(t *testing.T) {
	data := map[string]string{"ended-broken": "yesterday", "jws-kubeconfig-abcdef": "x"}
	for i := range mostMarks {
		data[fmt.Sprintf("ended-%06d", i)] = "expired " + stamp(noon)
	}
	dropOldest(data)
	if _, ok := data["ended-broken"]; ok || len(data) != mostMarks+1 {
		t.Errorf("%d keys are left", len(data))
	}
}

func TestReadMark(t *testing.T) {
	for mark, want := range map[string]Ending{
		"expired 2026-01-02T12:00:00Z": Expired,
		"deleted 2026-01-02T12:00:00Z": Deleted,
		"eaten 2026-01-02T12:00:00Z":   "",
		"expired":                      "",
		"expired yesterday":            "",
		"":                             "",
	} {
		how, when := readMark(mark)
		if how != want || want != "" && !when.Equal(noon) || want == "" && !when.IsZero() {
			t.Errorf("%q: got %q, %s", mark, how, when)
		}
	}
}

func TestMarkingNeedsNoClusterInfo(t *testing.T) {
	c := fake.NewClientset()
	if err := MarkEnded(t.Context(), c, "abcdef", Expired, noon); err != nil {
		t.Error(err)
	}
	if err := Create(t.Context(), c, sample, Settings{Role: Agent}); err != nil {
		t.Error(err)
	}
}

func TestMarkingTwiceWritesOnce(t *testing.T) {
	c := newCluster(t)
	for range 2 {
		if err := MarkEnded(t.Context(), c, "abcdef", Expired, noon); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(c, "update"); n != 1 {
		t.Errorf("%d updates", n)
	}
}

func count(c *fake.Clientset, verb string) (n int) {
	for _, a := range c.Actions() {
		if a.GetVerb() == verb {
			n++
		}
	}
	return n
}

// The signer writes cluster-info at the same moments.
func TestMarkingTriesAgainAfterAConflict(t *testing.T) {
	c := newCluster(t)
	conflicts := 2
	c.PrependReactor("update", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		conflicts--
		return conflicts >= 0, nil, apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, "cluster-info", nil)
	})
	if err := MarkEnded(t.Context(), c, "abcdef", Deleted, noon); err != nil {
		t.Fatal(err)
	}
	if got := published(t, c)["ended-abcdef"]; got != "deleted 2026-01-02T12:00:00Z" {
		t.Errorf("marked %q", got)
	}
}

func TestSweep(t *testing.T) {
	ctx, c := t.Context(), newCluster(t)
	put := func(id string, ttl time.Duration, change func(*corev1.Secret)) {
		s := Secret(Token{ID: id, Secret: "0123456789abcdef"}, Settings{Role: Agent, TTL: ttl, Now: noon})
		if change != nil {
			change(s)
		}
		if _, err := c.CoreV1().Secrets("kube-system").Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put("ended1", time.Hour, nil)
	put("ended2", 0, func(s *corev1.Secret) { s.Data["expiration"] = []byte("soon") })
	put("others", time.Hour, func(s *corev1.Secret) { delete(s.Data, "auth-extra-groups") })
	put("later1", 4*time.Hour, nil)
	put("later2", 3*time.Hour, nil)
	put("always", 0, nil)

	now := noon.Add(time.Hour)
	next, err := Sweep(ctx, c, now)
	if err != nil || !next.Equal(noon.Add(3*time.Hour)) {
		t.Errorf("next %s, %v", next, err)
	}
	var left []string
	list, err := List(ctx, c)
	for _, i := range list {
		left = append(left, i.ID)
	}
	if got := strings.Join(left, " "); err != nil || got != "always later1 later2 others" {
		t.Errorf("left: %s, %v", got, err)
	}
	data := published(t, c)
	for _, id := range []string{"ended1", "ended2"} {
		if got := data["ended-"+id]; got != "expired "+stamp(now) {
			t.Errorf("%s is marked %q", id, got)
		}
	}

	if next, err = Sweep(ctx, c, noon.Add(5*time.Hour)); err != nil || !next.IsZero() {
		t.Errorf("next %s, %v, though none will expire", next, err)
	}
}

func TestSweepLeavesATokenThatHasBeenGivenAnew(t *testing.T) {
	c := newCluster(t)
	if err := Create(t.Context(), c, sample, Settings{Role: Agent, TTL: time.Hour, Now: noon}); err != nil {
		t.Fatal(err)
	}
	c.PrependReactor("delete", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if p := a.(clienttesting.DeleteAction).GetDeleteOptions().Preconditions; p == nil || p.UID == nil || p.ResourceVersion == nil {
			t.Error("deletes whatever has the name now")
		}
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, "x", nil)
	})
	if _, err := Sweep(t.Context(), c, noon.Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := c.CoreV1().Secrets("kube-system").Get(t.Context(), "bootstrap-token-abcdef", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
