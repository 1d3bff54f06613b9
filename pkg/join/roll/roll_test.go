package roll

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/fake"
)

var now = time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)

func save(t *testing.T, j *Joined, client *fake.Clientset) {
	t.Helper()
	if err := j.Save(t.Context(), client); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, client *fake.Clientset, token string) *Joined {
	t.Helper()
	j, err := ReadJoined(t.Context(), client, token)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJoined(t *testing.T) {
	client := fake.NewClientset()
	j := read(t, client, "abcdef")
	j.Nodes["n2"] = Entry{At: now.Add(time.Minute), Key: "k2", From: "192.0.2.2"}
	j.Nodes["n1.example.com"] = Entry{At: now, Key: "k1", Lived: true}
	save(t, j, client)
	if _, err := End(t.Context(), client, "abcdef", now); err != nil {
		t.Fatal(err)
	}
	again := read(t, client, "abcdef")
	if got := fmt.Sprint(again.Nodes); got != fmt.Sprint(j.Nodes) || !again.Ended.Equal(now) {
		t.Errorf("got %s, ended %s", got, again.Ended)
	}
	if got := again.Since(now.Add(-time.Second)); !slices.Equal(got, []string{"n1.example.com", "n2"}) {
		t.Errorf("got %v", got)
	}
	if got := again.Since(now); !slices.Equal(got, []string{"n2"}) {
		t.Errorf("got %v", got)
	}
	other := read(t, client, "zzzzzz")
	other.Nodes["n2"] = Entry{At: now.Add(time.Hour)}
	save(t, other, client)
	if tokens, err := Forget(t.Context(), client, "n2"); err != nil || !slices.Equal(tokens, []string{"abcdef", "zzzzzz"}) {
		t.Errorf("got %v, %v", tokens, err)
	}
	all, err := ListJoined(t.Context(), client)
	if err != nil || len(all) != 2 || len(Current(all)) != 1 {
		t.Errorf("got %v, %v", all, err)
	}
	for _, j := range all {
		if err := j.Close(t.Context(), client); err != nil {
			t.Error(err)
		}
	}
	// Whoever had read one of them before does not bring it back.
	if err := again.Save(t.Context(), client); !apierrors.IsConflict(err) {
		t.Errorf("got %v", err)
	}
}

// Every name that a node may have is a key of a Secret, and the mark is none of them.
func TestNamesAreKeys(t *testing.T) {
	for _, name := range []string{"n", "1", "a.b-c.d", strings.Repeat("a", 63) + "." + strings.Repeat("b", 63), endedKey} {
		if problems := validation.IsConfigMapKey(name); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
	if len(validation.IsDNS1123Subdomain(endedKey)) == 0 {
		t.Errorf("a node may be named %s", endedKey)
	}
}

func TestDamagedRecords(t *testing.T) {
	client := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "lite-joined-abcdef"}, Type: TypeJoined,
		Data: map[string][]byte{"n1": []byte("{"), "n2": nil, endedKey: []byte("soon")},
	})
	j := read(t, client, "abcdef")
	if len(j.Nodes) != 2 || !j.Ended.IsZero() || len(j.Since(now)) > 0 {
		t.Errorf("got %+v", j)
	}
}

func TestKeysAreBounded(t *testing.T) {
	client := fake.NewClientset()
	if err := Refuse(t.Context(), client, "n1", Revoked, now); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * mostKeys {
		seen, err := RefusalOf(t.Context(), client, "n1")
		if err == nil {
			err = Admit(t.Context(), client, "n1", fmt.Sprint(i), seen)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := RefusalOf(t.Context(), client, "n1")
	if err != nil || len(r.Keys) != mostKeys || !r.Admits(fmt.Sprint(3*mostKeys-1)) || r.Admits("0") {
		t.Errorf("got %+v, %v", r, err)
	}
	// Another of the same Secret is left alone.
	for i := range 64 {
		if err := Refuse(t.Context(), client, fmt.Sprint("other", i), Deleted, now); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := RefusalOf(t.Context(), client, "n1"); err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
		t.Errorf("got %+v, %v", again, err)
	}
	list, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) > 16 {
		t.Errorf("%d Secrets, %v", len(list.Items), err)
	}
}
