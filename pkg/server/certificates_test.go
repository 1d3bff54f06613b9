package server

import (
	"net/netip"
	"slices"
	"testing"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/pki"
)

// TestUses compares what parts are said to use with the files that are looked at: a
// certificate that nobody looks at would end unseen.
func TestUses(t *testing.T) {
	cfg := &config.Config{Role: config.Server, DataDir: "/data", WriteKubeconfig: "/etc/lite/kubeconfig.yaml"}
	var looked []string
	for _, f := range CertificateFiles(cfg) {
		looked = append(looked, f.Path)
	}
	used := map[string]bool{}
	for part, files := range uses(pkiDir(cfg)) {
		for _, f := range files {
			used[f] = true
			if !slices.Contains(looked, f) {
				t.Errorf("%s uses %s, at which nobody looks", part, f)
			}
		}
	}
	for _, f := range pkiDir(cfg).Files() {
		if !used[f.Path] {
			t.Errorf("%s fails no part when it ends", f.Path)
		}
	}
}

// TestUserFiles has certificates that users have brought, each of a kind.
func TestUserFiles(t *testing.T) {
	cfg := &config.Config{
		DataDir:       "/data",
		NodeIP:        []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		APIServerArgs: []string{"oidc-ca-file=/etc/oidc.crt", "tls-sni-cert-key=/etc/a.crt,/etc/a.key:a.example", "tls-sni-cert-key=/etc/b.crt,/etc/b.key"},
		KubeletArgs:   []string{"tls-cert-file=/etc/kubelet.crt", "client-ca-file=/etc/clients.crt"},
	}
	var got []string
	for _, f := range CertificateFiles(cfg) {
		if f.Renewal == pki.ByUser {
			got = append(got, f.Path)
		}
	}
	want := []string{"/etc/oidc.crt", "/etc/a.crt", "/etc/b.crt", "/etc/kubelet.crt", "/etc/clients.crt"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := len(agent.CertificateFiles(cfg)); n != 5 {
		t.Errorf("an agent has %d", n)
	}
}
