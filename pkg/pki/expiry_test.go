package pki

import (
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const d = 24 * time.Hour

// ending makes an authority and what it signs, as of a time at which the authority
// has life left.
func ending(t *testing.T, now time.Time, left time.Duration) Dir {
	t.Helper()
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	if err := makeDirs(dir); err != nil {
		t.Fatal(err)
	}
	for _, a := range authorities {
		if _, err := makeCA(dir, a.name, a.commonName, now.Add(left-caLife)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Ensure(dir, Node{Name: "n", ClusterDomain: "cluster.local"}, now); err != nil {
		t.Fatal(err)
	}
	return dir
}

func scan(t *testing.T, files []File) []*Certificate {
	t.Helper()
	all, damaged := Scan(files, os.ReadFile)
	for path, err := range damaged {
		t.Errorf("%s: %v", path, err)
	}
	return all
}

// TestThresholds moves the clock over the ends of what a server has.
func TestThresholds(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := ending(t, now, caLife)
	all := scan(t, dir.Files())
	if want := len(authorities) + len(leaves(Node{})); len(all) != want {
		t.Fatalf("found %d certificates, want %d", len(all), want)
	}
	for _, c := range []struct {
		after  time.Duration
		due    int
		state  string
		remedy string
	}{
		{0, 0, "", ""},
		{leafLife - 30*d - time.Second, 0, "", ""},
		{leafLife - 30*d, len(leaves(Node{})), "ends soon", "restart lite, which renews it"},
		{leafLife - time.Second, len(leaves(Node{})), "ends soon", "restart lite, which renews it"},
		{leafLife + time.Second, len(leaves(Node{})), "ended", "restart lite, which renews it"},
		{caLife - 30*d, len(all), "ended", "restart lite, which renews it"},
	} {
		at := now.Add(c.after)
		due := Due(all, at)
		if len(due) != c.due {
			t.Errorf("after %s %d are due, want %d", c.after, len(due), c.due)
			continue
		}
		if c.due > 0 && (due[0].State(at) != c.state || due[0].Remedy(at) != c.remedy) {
			t.Errorf("after %s %s %s: %s", c.after, due[0].Path, due[0].State(at), due[0].Remedy(at))
		}
	}
}

// TestAuthorityEnds has authorities that end in ten days: a restart would make nothing
// of theirs that ends later, and nobody is told to try.
func TestAuthorityEnds(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := ending(t, now, 10*d)
	all := scan(t, dir.Files())
	due := Due(all, now)
	if len(due) != len(authorities) {
		t.Errorf("%d are due, want the authorities alone", len(due))
	}
	for _, c := range due {
		if !strings.Contains(c.Remedy(now), "no restart renews an authority") {
			t.Errorf("%s: %s", c.Path, c.Remedy(now))
		}
	}
	for _, c := range all {
		if want := "it expires with its authority " + dir.CA(EtcdCA); c.Path == dir.Cert(EtcdServer) && !strings.HasPrefix(c.Remedy(now), want) {
			t.Errorf("%s: %s, want %s", c.Path, c.Remedy(now), want)
		}
	}

	// It is made again for its key, as docs/security.md says.
	if err := os.Remove(dir.CA(EtcdCA)); err != nil {
		t.Fatal(err)
	}
	later := now.Add(11 * d)
	if _, err := Ensure(dir, Node{Name: "n", ClusterDomain: "cluster.local"}, later); err == nil || !strings.Contains(err.Error(), authorityRemedy) {
		t.Errorf("two that have ended: %v", err)
	}
	for _, a := range []Authority{ClusterCA, FrontProxyCA} {
		if err := os.Remove(dir.CA(a)); err != nil {
			t.Fatal(err)
		}
	}
	before := scan(t, []File{{Path: dir.Cert(EtcdServer)}})[0]
	if _, err := Ensure(dir, Node{Name: "n", ClusterDomain: "cluster.local"}, later); err != nil {
		t.Fatal(err)
	}
	if due := Due(scan(t, dir.Files()), later); len(due) > 0 {
		t.Errorf("%s is due still", due[0].Path)
	}
	again, err := readCert(dir.CA(EtcdCA))
	if err != nil || before.CheckSignatureFrom(again) != nil {
		t.Errorf("what the key has signed does not fit any more: %v", err)
	}
}

// TestRenewedByItself has what the kubelet renews: it is spoken of when it is overdue,
// and a short one not from its first day on.
func TestRenewedByItself(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		life, left time.Duration
		state      string
	}{
		{365 * d, 31 * d, "valid"},
		{365 * d, 29 * d, "ends soon"},
		{30 * d, 29 * d, "valid"},
		{30 * d, 4 * d, "valid"},
		{30 * d, 2 * d, "ends soon"},
		{time.Hour, 10 * time.Minute, "valid"},
		{time.Hour, 5 * time.Minute, "ends soon"},
		{time.Hour, -time.Second, "ended"},
	} {
		cert := &Certificate{
			File:        File{Path: "kubelet-client-current.pem", Renewal: ByKubelet},
			Certificate: &x509.Certificate{NotBefore: now.Add(c.left - c.life), NotAfter: now.Add(c.left)},
		}
		if got := cert.State(now); got != c.state {
			t.Errorf("of %s there are %s left: %s, want %s", c.life, c.left, got, c.state)
		}
	}
}

// TestRemedies has what is not the server's own.
func TestRemedies(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		renewal   Renewal
		authority bool
		usages    []x509.ExtKeyUsage
		left      time.Duration
		want      string
	}{
		{ByUser, false, client, d, "it is your own: replace it and restart lite"},
		{ByUser, true, nil, -d, "it is your own: replace it and restart lite"},
		{ByKubelet, false, client, d, "the kubelet renews it"},
		{ByKubelet, false, client, -d, "join again with a token"},
		{ByKubelet, false, server, -d, "the kubelet renews it"},
		{ByKubelet, true, nil, d, "no restart renews an authority"},
	} {
		cert := &Certificate{File: File{Renewal: c.renewal}, Certificate: &x509.Certificate{IsCA: c.authority, ExtKeyUsage: c.usages, NotAfter: now.Add(c.left)}}
		if got := cert.Remedy(now); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: %s", c, got)
		}
	}
}

// TestScan reads the forms in which certificates are found, each once.
func TestScan(t *testing.T) {
	now := time.Now()
	dir := ending(t, now, caLife)
	kubeconfig := Kubeconfig{Path: filepath.Join(t.TempDir(), "admin.conf"), Server: "https://127.0.0.1:6443", User: Admin, Mode: 0o600}
	if err := kubeconfig.Write(dir); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(kubeconfig.Path)
	if err != nil {
		t.Fatal(err)
	}
	if all := scan(t, append(dir.Files(), File{Path: kubeconfig.Path}, File{Path: "/nowhere"})); all[len(all)-1].Path == kubeconfig.Path {
		t.Error("the kubeconfig repeats what it was made of, and counts")
	}
	// A copy that is older than what it was made of counts by itself.
	if err := os.Remove(dir.Cert(Admin)); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir, Node{Name: "n", ClusterDomain: "cluster.local"}, now); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kubeconfig.Path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if all := scan(t, append(dir.Files(), File{Path: kubeconfig.Path})); all[len(all)-1].Path != kubeconfig.Path {
		t.Error("the old kubeconfig is not seen")
	}
	for text, want := range map[string]string{
		"":           "",
		"nonsense":   "neither PEM nor a kubeconfig",
		"-----BEGIN": "neither PEM",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n":                     "x509",
		"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n":               "does not contain a certificate",
		"apiVersion: v1\nkind: Config\nusers: [{name: x, user: {client-certificate: /x}}]\n": "",
	} {
		_, damaged := Scan([]File{{Path: "f"}}, func(string) ([]byte, error) { return []byte(text), nil })
		if got := damaged["f"]; (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
			t.Errorf("%q: %v, want %q", text, got, want)
		}
	}
	if all, damaged := Scan([]File{{Path: "f"}}, func(string) ([]byte, error) { return nil, fs.ErrNotExist }); len(all)+len(damaged) > 0 {
		t.Error("what is not there counts")
	}
}

// TestTwoAuthorities has one beside an older of the same key and name, as in a file
// that was made when the old one was about to end.
func TestTwoAuthorities(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := ending(t, now, d)
	old, err := os.ReadFile(dir.CA(EtcdCA))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir.CA(EtcdCA)); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir, Node{Name: "n"}, now); err != nil {
		t.Fatal(err)
	}
	oldPath := filepath.Join(t.TempDir(), "old.crt")
	if err := os.WriteFile(oldPath, old, 0o600); err != nil {
		t.Fatal(err)
	}
	all := scan(t, append([]File{{Path: oldPath}}, dir.Files()...))
	for _, c := range all {
		if c.Path == dir.Cert(EtcdServer) && c.By != nil {
			t.Errorf("it ends with %s, though the newer authority vouches for it", c.By.Path)
		}
	}
}
