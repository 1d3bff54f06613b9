package join

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/cluster-bootstrap/util/secrets"
)

var (
	noon   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	sample = Token{ID: "abcdef", Secret: "0123456789abcdef"}
)

func TestParseRole(t *testing.T) {
	for _, text := range []string{"agent", "server"} {
		if got, err := ParseRole(text); err != nil || string(got) != text {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Agent", "master"} {
		if _, err := ParseRole(text); err == nil || !strings.Contains(err.Error(), "use agent") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestSecretIsWhatTheAPIServerAsksFor(t *testing.T) {
	s := Secret(sample, Settings{Role: Server, TTL: time.Hour, Description: "rack 4", Now: noon.In(time.FixedZone("", 3600))})
	if s.Namespace != "kube-system" || s.Name != "bootstrap-token-abcdef" || s.Type != "bootstrap.kubernetes.io/token" {
		t.Errorf("got %s/%s of type %s", s.Namespace, s.Name, s.Type)
	}
	for key, want := range map[string]string{
		"token-id":                       "abcdef",
		"token-secret":                   "0123456789abcdef",
		"usage-bootstrap-authentication": "true",
		"usage-bootstrap-signing":        "true",
		"auth-extra-groups":              "system:bootstrappers:lite:server",
		"description":                    "rack 4",
		"expiration":                     "2026-01-02T13:00:00Z",
	} {
		if got := string(s.Data[key]); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	// Upstream's own reading of it.
	if groups, err := secrets.GetGroups(s); err != nil || len(groups) != 2 {
		t.Errorf("groups %q, %v", groups, err)
	}
	if secrets.HasExpired(s, noon) || !secrets.HasExpired(s, noon.Add(time.Hour)) {
		t.Error("expires at another time")
	}
	forever := Secret(sample, Settings{Role: Agent, Now: noon})
	if _, ok := forever.Data["expiration"]; ok || secrets.HasExpired(forever, noon.AddDate(100, 0, 0)) {
		t.Error("a token for ever expires")
	}
}

func TestFromSecret(t *testing.T) {
	valid := Settings{Role: Agent, TTL: time.Hour, Description: "d", Now: time.Now()}
	for name, test := range map[string]struct {
		change func(*corev1.Secret)
		want   Info
		fails  bool
	}{
		"agent":    {func(*corev1.Secret) {}, Info{ID: "abcdef", Role: Agent, Description: "d", Expiry: valid.Now.Add(time.Hour).UTC().Truncate(time.Second)}, false},
		"for ever": {func(s *corev1.Secret) { delete(s.Data, "expiration") }, Info{ID: "abcdef", Role: Agent, Description: "d"}, false},
		"expired":  {func(s *corev1.Secret) { s.Data["expiration"] = []byte(stamp(noon)) }, Info{ID: "abcdef", Role: Agent, Description: "d", Expiry: noon, Expired: true}, false},
		"no time":  {func(s *corev1.Secret) { s.Data["expiration"] = []byte("soon") }, Info{ID: "abcdef", Role: Agent, Description: "d", Expired: true}, false},
		"kubeadm's": {func(s *corev1.Secret) {
			delete(s.Data, "expiration")
			s.Data["auth-extra-groups"] = []byte("system:bootstrappers:kubeadm:default-node-token")
		}, Info{ID: "abcdef", Description: "d"}, false},
		"another type": {func(s *corev1.Secret) { s.Type = "Opaque" }, Info{}, true},
		"another name": {func(s *corev1.Secret) { s.Name = "bootstrap-token-ghijkl" }, Info{}, true},
		"no data":      {func(s *corev1.Secret) { s.Data = nil }, Info{}, true},
	} {
		s := Secret(sample, valid)
		test.change(s)
		got, err := FromSecret(s)
		if got != test.want || (err != nil) != test.fails {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if text := fmt.Sprint(got, err); strings.Contains(text, sample.Secret) {
			t.Errorf("%s: shows the secret: %s", name, text)
		}
	}
}

// newCluster is the API of a cluster that has published its cluster-info.
func newCluster(t *testing.T) *fake.Clientset {
	t.Helper()
	c := fake.NewClientset()
	if err := Publish(t.Context(), c, "https://10.0.0.1:6443", encodeCerts(newAuthority(t).certs())); err != nil {
		t.Fatal(err)
	}
	return c
}

func published(t *testing.T, c *fake.Clientset) map[string]string {
	t.Helper()
	info, err := c.CoreV1().ConfigMaps("kube-public").Get(t.Context(), "cluster-info", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info.Data
}

// failing makes verb on resource fail with err.
func failing(c *fake.Clientset, verb, resource string, err error) {
	c.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
}

func TestTheLifeOfAToken(t *testing.T) {
	ctx, c, now := t.Context(), newCluster(t), time.Now().Truncate(time.Second)
	if err := Create(ctx, c, sample, Settings{Role: Server, TTL: time.Hour, Description: "d", Now: now}); err != nil {
		t.Fatal(err)
	}
	other := Token{ID: "aaaaaa", Secret: "0123456789abcdef"}
	if err := Create(ctx, c, other, Settings{Role: Agent, Now: now}); err != nil {
		t.Fatal(err)
	}
	err := Create(ctx, c, other, Settings{Role: Agent, Now: now})
	if !apierrors.IsAlreadyExists(err) || !strings.Contains(err.Error(), "lite token delete aaaaaa") {
		t.Errorf("a second time: got %v", err)
	}
	list, err := List(ctx, c)
	if err != nil || len(list) != 2 || list[0].ID != "aaaaaa" || list[1].ID != "abcdef" {
		t.Fatalf("got %+v, %v", list, err)
	}
	if err := Delete(ctx, c, "aaaaaa", now); err != nil {
		t.Fatal(err)
	}
	if got := published(t, c)["ended-aaaaaa"]; got != "deleted "+stamp(now) {
		t.Errorf("marked %q", got)
	}
	if err := Delete(ctx, c, "aaaaaa", now); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "lite token list") {
		t.Errorf("deleted twice: got %v", err)
	}
	// A pre-shared secret comes back under the same ID.
	if err := Create(ctx, c, other, Settings{Role: Agent, Now: now}); err != nil {
		t.Fatal(err)
	}
	if got, ok := published(t, c)["ended-aaaaaa"]; ok {
		t.Errorf("still marked %q", got)
	}
	if err := Delete(ctx, c, other.Text(), now); err != nil {
		t.Error(err)
	}
}

func TestListLeavesOutWhatIsNoToken(t *testing.T) {
	c := newCluster(t)
	odd := Secret(sample, Settings{Role: Agent, Now: noon})
	odd.Name = "bootstrap-token-odd"
	opaque := Secret(Token{ID: "zzzzzz"}, Settings{Role: Agent, Now: noon})
	opaque.Type = "Opaque"
	for _, s := range []*corev1.Secret{odd, opaque} {
		if _, err := c.CoreV1().Secrets("kube-system").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := List(t.Context(), c); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRotate(t *testing.T) {
	ctx, c, now := t.Context(), newCluster(t), time.Now().Truncate(time.Second)
	if err := Create(ctx, c, sample, Settings{Role: Server, TTL: time.Hour, Description: "d", Now: now}); err != nil {
		t.Fatal(err)
	}
	named := sample
	named.Server, named.CAHash = "host:6443", someHash
	got, err := Rotate(ctx, c, named.Text(), now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID == sample.ID || got.Secret == sample.Secret || got.Server != "host:6443" || got.CAHash != someHash {
		t.Errorf("got %s of %s", got.Text(), sample.Text())
	}
	want := Info{ID: got.ID, Role: Server, Description: "d", Expiry: now.Add(time.Hour).UTC()}
	if list, err := List(ctx, c); err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("got %+v, %v, want %+v", list, err, want)
	}
	if mark := published(t, c)["ended-abcdef"]; !strings.HasPrefix(mark, "deleted ") {
		t.Errorf("marked %q", mark)
	}

	if err := Create(ctx, c, sample, Settings{Role: Agent, Now: now}); err != nil {
		t.Fatal(err)
	}
	got, err = Rotate(ctx, c, "abcdef", now)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := List(ctx, c)
	for _, i := range list {
		if i.ID == got.ID && !i.Expiry.IsZero() {
			t.Errorf("a token for ever was rotated to %+v", i)
		}
	}
}

func TestRotateErrors(t *testing.T) {
	ctx, c := t.Context(), newCluster(t)
	put := func(id string, change func(*corev1.Secret)) {
		s := Secret(Token{ID: id, Secret: "0123456789abcdef"}, Settings{Role: Agent, TTL: time.Hour, Now: noon})
		change(s)
		if _, err := c.CoreV1().Secrets("kube-system").Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put("expire", func(*corev1.Secret) {})
	put("others", func(s *corev1.Secret) { delete(s.Data, "auth-extra-groups") })
	put("opaque", func(s *corev1.Secret) { s.Type = "Opaque" })
	for which, want := range map[string]string{
		"expire":  "token expire has expired; create one with",
		"others":  "token others is not for joining lite; create one with",
		"opaque":  "secret kube-system/bootstrap-token-opaque does not contain a bootstrap token",
		"nobody":  "token nobody does not exist; list tokens with `lite token list`",
		"hunter2": "an argument is not a token",
	} {
		if _, err := Rotate(ctx, c, which, noon.Add(2*time.Hour)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", which, err, want)
		}
	}
	if err := Delete(ctx, c, "hunter2", noon); err == nil || !strings.HasPrefix(err.Error(), "an argument is not a token") {
		t.Errorf("got %v", err)
	}
}

func TestCreateRefusesWhatMakesNoSense(t *testing.T) {
	for _, s := range []Settings{{}, {Role: "master"}, {Role: Agent, TTL: -time.Hour}, {Role: Agent, TTL: time.Millisecond}} {
		c := newCluster(t)
		if err := Create(t.Context(), c, sample, s); err == nil {
			t.Errorf("%+v: no error", s)
		}
		if list, _ := List(t.Context(), c); len(list) != 0 {
			t.Errorf("%+v: made %+v", s, list)
		}
	}
}

// What the API refuses is passed on with what was tried.
func TestErrorsOfTheAPI(t *testing.T) {
	boom := errors.New("boom")
	create := func(ctx context.Context, c *fake.Clientset) error {
		return Create(ctx, c, New(), Settings{Role: Agent, Now: noon})
	}
	remove := func(ctx context.Context, c *fake.Clientset) error { return Delete(ctx, c, "abcdef", noon) }
	rotate := func(ctx context.Context, c *fake.Clientset) error {
		_, err := Rotate(ctx, c, "abcdef", noon)
		return err
	}
	list := func(ctx context.Context, c *fake.Clientset) error { _, err := List(ctx, c); return err }
	sweep := func(ctx context.Context, c *fake.Clientset) error {
		_, err := Sweep(ctx, c, noon.Add(2*time.Hour))
		return err
	}
	for _, test := range []struct {
		verb, resource string
		do             func(context.Context, *fake.Clientset) error
		want           string
	}{
		{"create", "secrets", create, "create token "},
		{"get", "configmaps", create, "record in cluster-info that token "},
		{"delete", "secrets", remove, "delete token abcdef: "},
		{"update", "configmaps", remove, "record in cluster-info that token abcdef is deleted: "},
		{"get", "secrets", rotate, "read token abcdef: "},
		{"create", "secrets", rotate, "create token "},
		{"delete", "secrets", rotate, "token "},
		{"list", "secrets", list, "list the tokens: "},
		{"list", "secrets", sweep, "list the tokens: "},
		{"delete", "secrets", sweep, "delete the expired token abcdef: "},
		{"update", "configmaps", sweep, "record in cluster-info that token abcdef is expired: "},
	} {
		c := newCluster(t)
		if err := Create(t.Context(), c, sample, Settings{Role: Agent, TTL: time.Hour, Now: noon}); err != nil {
			t.Fatal(err)
		}
		failing(c, test.verb, test.resource, boom)
		if err := test.do(t.Context(), c); !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s %s: got %v, want %s", test.verb, test.resource, err, test.want)
		}
	}
}
