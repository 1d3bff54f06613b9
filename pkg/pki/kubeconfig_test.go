package pki

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestKubeconfigOpensTheAPI(t *testing.T) {
	for name, test := range map[string]struct {
		sameProcess bool
		want        string
	}{
		"from anywhere":           {false, "CN=kubernetes-admin,O=system:masters, which takes gzip"},
		"from the process itself": {true, "CN=kubernetes-admin,O=system:masters"},
	} {
		t.Run(name, func(t *testing.T) { opensTheAPI(t, test.sameProcess, test.want) })
	}
}

func opensTheAPI(t *testing.T, sameProcess bool, want string) {
	dir := Dir(filepath.Join(t.TempDir(), "pki"))
	ensure(t, dir, sample, time.Now())
	pair, err := tls.LoadX509KeyPair(dir.Cert(APIServer), dir.Key(APIServer))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(cert(t, dir, string(ClusterCA)))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.TLS.PeerCertificates[0].Subject.String()
		if encoding := r.Header.Get("Accept-Encoding"); encoding != "" {
			who += ", which takes " + encoding
		}
		_, _ = w.Write([]byte(who))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)

	k := Kubeconfig{Path: filepath.Join(t.TempDir(), "sub", "kubeconfig.yaml"), Server: s.URL, User: Admin, Mode: 0o600, SameProcess: sameProcess}
	if err := k.Write(dir); err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", k.Path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != s.URL || cfg.Insecure {
		t.Errorf("got %+v", cfg)
	}
	transport, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: transport}).Get(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	who := make([]byte, 100)
	n, _ := res.Body.Read(who)
	if got := string(who[:n]); got != want {
		t.Errorf("the server sees %q", got)
	}
}

func TestKubeconfigHasTheModeItIsGiven(t *testing.T) {
	dir := made(t)
	k := Kubeconfig{Path: filepath.Join(t.TempDir(), "sub", "k"), Server: "https://127.0.0.1:6443", User: Admin, Mode: 0o644}
	check := func(path string, want fs.FileMode) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
	for _, mode := range []fs.FileMode{0o644, 0o600, 0o640} {
		k.Mode = mode
		if err := k.Write(dir); err != nil {
			t.Fatal(err)
		}
		check(k.Path, mode)
	}
	// Whoever may read the first file must get at it.
	check(filepath.Dir(k.Path), 0o755)
	k.Path, k.Mode = filepath.Join(filepath.Dir(k.Path), "private", "k"), 0o600
	if err := k.Write(dir); err != nil {
		t.Fatal(err)
	}
	check(filepath.Dir(k.Path), 0o700)
}

func TestKubeconfigThatSaysTheSameIsLeftAlone(t *testing.T) {
	dir := made(t)
	k := Kubeconfig{Path: filepath.Join(t.TempDir(), "k"), Server: "https://127.0.0.1:6443", User: Admin, Mode: 0o600}
	if err := k.Write(dir); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	same := func() bool {
		t.Helper()
		if err := k.Write(dir); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(k.Path)
		if err != nil {
			t.Fatal(err)
		}
		return os.SameFile(before, after) && before.ModTime().Equal(after.ModTime())
	}
	if !same() {
		t.Error("the file was written again")
	}
	ensure(t, dir, sample, start.Add(300*dayLong))
	if same() {
		t.Error("the file keeps a certificate that has been renewed")
	}
}

func TestKubeconfigErrorsNameTheFile(t *testing.T) {
	dir := made(t)
	blocked := filepath.Join(t.TempDir(), "blocked")
	write(t, blocked, "")
	for name, k := range map[string]Kubeconfig{
		"user that is not in the table": {Path: filepath.Join(t.TempDir(), "k"), User: "nobody"},
		"directory that is a file":      {Path: filepath.Join(blocked, "k"), User: Admin},
		"file that is a directory":      {Path: t.TempDir(), User: Admin},
	} {
		if err := k.Write(dir); err == nil || !strings.Contains(err.Error(), k.Path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
