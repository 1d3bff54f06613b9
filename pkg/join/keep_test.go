package join

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/cluster"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct{ text, file, id, err string }{
		"nothing":        {"", "", "", ""},
		"text":           {"abcdef.0123456789abcdef", "", "abcdef", ""},
		"file":           {"", write("good", "abcdef.0123456789abcdef\n"), "abcdef", ""},
		"missing file":   {"", filepath.Join(dir, "none"), "", "token-file: "},
		"empty file":     {"", write("empty", "\n"), "", "token-file " + filepath.Join(dir, "empty") + " is empty"},
		"malformed text": {"lite://abcdef.sesame", "", "", "token has "},
	} {
		got, err := Read(test.text, test.file)
		switch {
		case test.err == "" && (err != nil || got.ID != test.id):
			t.Errorf("%s: got %s, %v", name, got, err)
		case test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)):
			t.Errorf("%s: got %v, want %q", name, err, test.err)
		}
	}
}

// A FIFO that nobody writes to held the agent for ever, deaf to SIGTERM.
func TestTokenFileThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo, large := filepath.Join(dir, "fifo"), filepath.Join(dir, "large")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<40); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		dir: "is not a regular file", fifo: "is not a regular file", "/dev/zero": "is not a regular file", large: "is larger than",
	} {
		if _, err := Read("", file); err == nil || !strings.HasPrefix(err.Error(), "token-file: "+file+" "+want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// The servers' own token was taken for known although it ends, or admits servers
// only: agents were refused from then on.
func TestKeepMakesATokenThatEndsAnew(t *testing.T) {
	for name, was := range map[string]Settings{
		"ends":        {Role: Agent, TTL: time.Hour, Now: time.Now()},
		"for servers": {Role: Server, Now: time.Now()},
	} {
		client := fake.NewClientset()
		token := New()
		if err := Create(t.Context(), client, token, was); err != nil {
			t.Fatal(err)
		}
		if err := Keep(t.Context(), client, token); err != nil {
			t.Fatal(err)
		}
		infos, err := List(t.Context(), client)
		if err != nil || len(infos) != 1 || infos[0].ID != token.ID || infos[0].Role != Agent || !infos[0].Expiry.IsZero() || infos[0].Description != Standing {
			t.Errorf("%s: got %+v, %v", name, infos, err)
		}
	}
}

// The servers' own token is known once, whatever it was before; other tokens
// stay.
func TestKeep(t *testing.T) {
	client := fake.NewClientset()
	ctx := t.Context()
	first, second, other := New(), New(), New()
	if err := Publish(ctx, client, "https://192.0.2.1:6443", encodeCerts(newAuthority(t).certs())); err != nil {
		t.Fatal(err)
	}
	if err := Create(ctx, client, other, Settings{Role: Agent, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []Token{first, first, second, {ID: second.ID, Secret: first.Secret}} {
		if err := Keep(ctx, client, step); err != nil {
			t.Fatal(err)
		}
		infos, err := List(ctx, client)
		if err != nil || len(infos) != 2 {
			t.Fatalf("got %v, %v; want the token and the other one", infos, err)
		}
		s, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, secretName(step.ID), metav1.GetOptions{})
		if err != nil || string(s.Data["token-secret"]) != step.Secret {
			t.Errorf("got %v, %v", s, err)
		}
	}
}

func TestFacts(t *testing.T) {
	client := fake.NewClientset()
	ctx := t.Context()
	if _, err := FetchFacts(ctx, client); err == nil {
		t.Error("read facts that nobody has published")
	}
	f := cluster.Facts{
		ClusterCIDR: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDR: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDNS: netip.MustParseAddr("10.43.0.10"), ClusterDomain: "cluster.local", Backend: "vxlan", Disable: addon.Disabled{addon.CNI},
	}
	for _, domain := range []string{"cluster.local", "cluster.local", "example.internal"} {
		f.ClusterDomain = domain
		if err := PublishFacts(ctx, client, f); err != nil {
			t.Fatal(err)
		}
		got, err := FetchFacts(ctx, client)
		if err != nil || got.ClusterDomain != domain || got.ClusterDNS != f.ClusterDNS || got.ClusterCIDR[0] != f.ClusterCIDR[0] || got.Disable[0] != "cni" {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	// A node that took these would have none at its next start.
	for _, damaged := range []string{"", "{}", `{"clusterCIDR":["10.42.0.0/16"]}`, `{"clusterCIDR":["10.42.0.0/16"],"serviceCIDR":["10.43.0.0/16"]}`, `{"clusterCIDR":[`} {
		put := func(have map[string]string) bool { have[factsKey] = damaged; return true }
		broken := fake.NewClientset()
		if err := clusterFacts.put(ctx, broken, put); err != nil {
			t.Fatal(err)
		}
		if _, err := FetchFacts(ctx, broken); err == nil || !strings.Contains(err.Error(), "ConfigMap kube-system/") {
			t.Errorf("%q: %v", damaged, err)
		}
	}
	writes := 0
	for _, a := range client.Actions() {
		if a.GetVerb() == "create" || a.GetVerb() == "update" {
			writes++
		}
	}
	if writes != 2 {
		t.Errorf("wrote %d times, want 2: what is there already needs no write", writes)
	}
}
