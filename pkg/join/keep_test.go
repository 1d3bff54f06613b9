package join

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
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
	f := Facts{
		ClusterCIDR: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDR: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDNS: netip.MustParseAddr("10.43.0.10"), ClusterDomain: "cluster.local", Backend: "vxlan", Disable: []string{"cni"},
	}
	for _, domain := range []string{"cluster.local", "cluster.local", "example.internal"} {
		f.ClusterDomain = domain
		if err := f.Publish(ctx, client); err != nil {
			t.Fatal(err)
		}
		got, err := FetchFacts(ctx, client)
		if err != nil || got.ClusterDomain != domain || got.ClusterDNS != f.ClusterDNS || got.ClusterCIDR[0] != f.ClusterCIDR[0] || got.Disable[0] != "cni" {
			t.Errorf("got %+v, %v", got, err)
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
