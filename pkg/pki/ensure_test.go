package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const dayLong = 24 * time.Hour

// snapshot is the content of every file under dir, by path.
func snapshot(t *testing.T, dir Dir) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(string(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path[len(dir)+1:]] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// changed is the paths whose content differs.
func changed(before, after map[string]string) []string {
	var paths []string
	for path, content := range after {
		if before[path] != content {
			paths = append(paths, path)
		}
	}
	for path := range before {
		if _, there := after[path]; !there {
			paths = append(paths, path+" is gone")
		}
	}
	slices.Sort(paths)
	return paths
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFirstEnsureMakesEverythingForRootAlone(t *testing.T) {
	dir := made(t)
	want := []string{"sa.key", "sa.pub"}
	for _, a := range authorities {
		want = append(want, string(a.name)+".crt", string(a.name)+".key")
	}
	for _, l := range leaves(sample) {
		want = append(want, l.path+".crt", l.path+".key")
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(snapshot(t, dir))); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	err := filepath.WalkDir(string(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEnsureClosesADirectoryThatWasOpen(t *testing.T) {
	dir := Dir(t.TempDir())
	for _, d := range []string{string(dir), filepath.Join(string(dir), "etcd")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ensure(t, dir, sample, start)
	for _, d := range []string{string(dir), filepath.Join(string(dir), "etcd")} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
}

func TestSecondEnsureChangesNothing(t *testing.T) {
	dir := made(t)
	before := snapshot(t, dir)
	for _, after := range []time.Duration{0, time.Minute, 100 * dayLong, 243 * dayLong} {
		if renewed := ensure(t, dir, sample, start.Add(after)); len(renewed) > 0 {
			t.Errorf("after %s: renewed %q", after, renewed)
		}
		if c := changed(before, snapshot(t, dir)); len(c) > 0 {
			t.Errorf("after %s: changed %q", after, c)
		}
	}
}

// What was made while the clock was two years ahead is good when that is set back.
func TestClockThatWasAhead(t *testing.T) {
	dir := Dir(t.TempDir())
	ensure(t, dir, sample, start.Add(730*dayLong))
	if renewed := ensure(t, dir, sample, start); len(renewed) > 0 {
		t.Errorf("renewed %q", renewed)
	}
	for _, l := range leaves(sample) {
		roots := x509.NewCertPool()
		roots.AddCert(cert(t, dir, string(l.signer)))
		for _, now := range []time.Time{time.Unix(60, 0), start} {
			if _, err := cert(t, dir, l.path).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: l.usages}); err != nil {
				t.Errorf("%s in %d: %v", l.path, now.Year(), err)
			}
		}
	}
}

func TestLeafIsRenewed(t *testing.T) {
	other := func(t *testing.T) Dir { return made(t) }
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir Dir)
		node  func(n *Node)
		after time.Duration
		want  map[string]string // path of the leaf -> reason; "*" is for all
	}{
		"when under a third of its life is left": {
			after: 244 * dayLong,
			want:  map[string]string{"*": "would expire on 2027-05-01"},
		},
		"when it has expired": {
			after: 366 * dayLong,
			want:  map[string]string{"*": "expired on 2027-05-01"},
		},
		"not when the clock says 1970": {
			after: -start.Sub(time.Unix(60, 0)),
		},
		"when the node has another address": {
			node: func(n *Node) { n.IPs = []netip.Addr{netip.MustParseAddr("192.0.2.11")} },
			want: map[string]string{APIServer: "names changed", EtcdServer: "names changed", EtcdPeer: "names changed", Kubelet: "names changed"},
		},
		"when the user wants another name": {
			node: func(n *Node) { n.SANs = append([]string{"new.example.test"}, n.SANs...) },
			want: map[string]string{APIServer: "names changed"},
		},
		"when the cluster's domain is another": {
			node: func(n *Node) { n.ClusterDomain = "example.test" },
			want: map[string]string{APIServer: "names changed"},
		},
		"when the node is called otherwise": {
			node: func(n *Node) { n.Name = "node-b" },
			want: map[string]string{APIServer: "names changed", EtcdServer: "names changed", EtcdPeer: "names changed", Kubelet: "names changed", KubeletClient: "names changed"},
		},
		"when its key is another's": {
			spoil: func(t *testing.T, dir Dir) { copyFile(t, dir.Key(Admin), dir.Key(Scheduler)) },
			want:  map[string]string{Admin: "the key belongs to another certificate"},
		},
		"when its key is gone": {
			spoil: func(t *testing.T, dir Dir) { remove(t, dir.Key(Admin)) },
			want:  map[string]string{Admin: "open "},
		},
		"when its key is no key": {
			spoil: func(t *testing.T, dir Dir) { write(t, dir.Key(Admin), "?") },
			want:  map[string]string{Admin: " does not contain a PEM block"},
		},
		"when it is damaged": {
			spoil: func(t *testing.T, dir Dir) { write(t, dir.Cert(EtcdPeer), "") },
			want:  map[string]string{EtcdPeer: " does not contain a PEM block"},
		},
		"when another table row's certificate is in its place": {
			spoil: func(t *testing.T, dir Dir) {
				copyFile(t, dir.Cert(Admin), dir.Cert(Scheduler))
				copyFile(t, dir.Key(Admin), dir.Key(Scheduler))
			},
			want: map[string]string{Admin: "names changed"},
		},
		"when its authority was replaced": {
			spoil: func(t *testing.T, dir Dir) {
				from := other(t)
				copyFile(t, dir.CA(EtcdCA), from.CA(EtcdCA))
				copyFile(t, dir.CAKey(EtcdCA), from.CAKey(EtcdCA))
			},
			want: map[string]string{EtcdServer: "signed by another authority", EtcdPeer: "signed by another authority", APIServerEtcdClient: "signed by another authority"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, n, now := made(t), sample, start.Add(test.after)
			if test.spoil != nil {
				test.spoil(t, dir)
			}
			if test.node != nil {
				test.node(&n)
			}
			before := snapshot(t, dir)
			renewed := ensure(t, dir, n, now)

			var files []string
			for _, l := range leaves(n) {
				reason, ok := test.want[l.path]
				if all, each := test.want["*"]; each {
					reason, ok = all, true
				}
				said := slices.ContainsFunc(renewed, func(line string) bool {
					rest, is := strings.CutPrefix(line, l.path+": ")
					return is && strings.Contains(rest, reason)
				})
				if said != ok {
					t.Errorf("%s: want renewal %t because %q; got %q", l.path, ok, reason, renewed)
				}
				if ok {
					files = append(files, l.path+".crt", l.path+".key")
				}
			}
			slices.Sort(files)
			if got := changed(before, snapshot(t, dir)); !slices.Equal(got, files) {
				t.Errorf("changed %q, want %q", got, files)
			}
			if again := ensure(t, dir, n, now); len(again) > 0 {
				t.Errorf("renewed again: %q", again)
			}
			for _, l := range leaves(n) {
				if err := cert(t, dir, l.path).CheckSignatureFrom(cert(t, dir, string(l.signer))); err != nil {
					t.Errorf("%s: %v", l.path, err)
				}
			}
		})
	}
}

func TestLeafDoesNotOutliveItsAuthority(t *testing.T) {
	dir := made(t)
	now := start.Add(caLife - 30*dayLong)
	ensure(t, dir, sample, now)
	end := cert(t, dir, string(ClusterCA)).NotAfter
	if c := cert(t, dir, APIServer); !c.NotAfter.Equal(end) {
		t.Errorf("the leaf ends on %s, its authority on %s", c.NotAfter, end)
	}
	if renewed := ensure(t, dir, sample, now.Add(dayLong)); len(renewed) > 0 {
		t.Errorf("renewed on the next day: %q", renewed)
	}
}

// An authority and the service-account key are beyond replacing: whatever is
// wrong with them is for a person to mend, and Ensure leaves all as it is.
func TestAuthoritiesAreNeverReplaced(t *testing.T) {
	for _, a := range authorities {
		crt, key := string(a.name)+".crt", string(a.name)+".key"
		for name, test := range map[string]struct {
			spoil func(t *testing.T, dir Dir)
			now   time.Time
			want  []string
		}{
			"damaged certificate": {
				spoil: func(t *testing.T, dir Dir) { write(t, dir.CA(a.name), "?") },
				want:  []string{crt + " does not contain a PEM block", "restore the file from a backup"},
			},
			"empty certificate": {
				spoil: func(t *testing.T, dir Dir) { write(t, dir.CA(a.name), "") },
				want:  []string{crt + " does not contain a PEM block"},
			},
			"certificate that is none": {
				spoil: func(t *testing.T, dir Dir) { copyFile(t, dir.CA(a.name), dir.CAKey(a.name)) },
				want:  []string{crt},
			},
			"missing key": {
				spoil: func(t *testing.T, dir Dir) { remove(t, dir.CAKey(a.name)) },
				want:  []string{key, "restore the file from a backup"},
			},
			"damaged key": {
				spoil: func(t *testing.T, dir Dir) { write(t, dir.CAKey(a.name), "?") },
				want:  []string{key + " does not contain a PEM block"},
			},
			"key of another": {
				spoil: func(t *testing.T, dir Dir) { copyFile(t, dir.CAKey(a.name), dir.ServiceAccountKey()) },
				want:  []string{key + " is not the key of ", crt, "restore both from the same backup"},
			},
			"expired": {
				spoil: func(*testing.T, Dir) {},
				now:   start.Add(caLife + time.Minute),
				want:  []string{" expired on 2036-04-28 (the clock shows 2036-04-28)"},
			},
		} {
			t.Run(fmt.Sprint(a.name, " ", name), func(t *testing.T) {
				dir := made(t)
				test.spoil(t, dir)
				refused(t, dir, test.now, test.want)
			})
		}
	}
}

func TestServiceAccountKeyIsNeverReplaced(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "damaged": "?", "no private key": "-----BEGIN X-----\nAAAA\n-----END X-----\n"} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			write(t, dir.ServiceAccountKey(), content)
			refused(t, dir, start, []string{"service-account key: ", "sa.key", "restore the file from a backup"})
		})
	}
}

// refused wants Ensure to fail in one line and to leave everything as it is.
func refused(t *testing.T, dir Dir, now time.Time, want []string) {
	t.Helper()
	if now.IsZero() {
		now = start
	}
	before := snapshot(t, dir)
	_, err := Ensure(dir, sample, now)
	if err == nil {
		t.Fatal("Ensure did not refuse")
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than a line: %v", err)
	}
	if c := changed(before, snapshot(t, dir)); len(c) > 0 {
		t.Errorf("changed %q", c)
	}
}

// What a crash between two writes of a first start leaves behind is finished
// by the next.
func TestEnsureFinishesWhatACrashCutShort(t *testing.T) {
	for name, left := range map[string][]string{
		"a directory":                      {},
		"the first authority's key":        {"ca.key"},
		"the second authority's key":       {"ca.key", "ca.crt", "front-proxy-ca.key"},
		"the authorities without sa.key":   {"ca.key", "ca.crt", "front-proxy-ca.key", "front-proxy-ca.crt", "etcd/ca.key", "etcd/ca.crt"},
		"sa.key without its public half":   {"ca.key", "ca.crt", "front-proxy-ca.key", "front-proxy-ca.crt", "etcd/ca.key", "etcd/ca.crt", "sa.key"},
		"a leaf's key without certificate": {"ca.key", "ca.crt", "front-proxy-ca.key", "front-proxy-ca.crt", "etcd/ca.key", "etcd/ca.crt", "sa.key", "sa.pub", "apiserver.key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			for path := range snapshot(t, dir) {
				if !slices.Contains(left, path) {
					remove(t, filepath.Join(string(dir), path))
				}
			}
			before := snapshot(t, dir)
			if renewed := ensure(t, dir, sample, start); len(renewed) > 0 {
				t.Errorf("what was never whole is called renewed: %q", renewed)
			}
			after := snapshot(t, dir)
			for _, a := range authorities {
				path := string(a.name) + ".crt"
				if old, there := before[path]; there && old != after[path] {
					t.Errorf("%s was replaced", path)
				}
			}
			if old, there := before["sa.key"]; there && old != after["sa.key"] {
				t.Error("sa.key was replaced")
			}
			for _, l := range leaves(sample) {
				if err := cert(t, dir, l.path).CheckSignatureFrom(cert(t, dir, string(l.signer))); err != nil {
					t.Errorf("%s: %v", l.path, err)
				}
			}
			ensure(t, dir, sample, start)
			if c := changed(after, snapshot(t, dir)); len(c) > 0 {
				t.Errorf("the next Ensure changed %q", c)
			}
		})
	}
}

// An authority that is gone while what it signed is there was lost, not cut
// short by a crash.
func TestLostAuthorityIsNotReplaced(t *testing.T) {
	for _, a := range authorities {
		for name, lost := range map[string][]string{
			"certificate":         {".crt"},
			"certificate and key": {".crt", ".key"},
		} {
			t.Run(fmt.Sprint(a.name, " ", name), func(t *testing.T) {
				dir := made(t)
				old := cert(t, dir, string(a.name))
				for _, suffix := range lost {
					remove(t, filepath.Join(string(dir), string(a.name)+suffix))
				}
				if _, err := Ensure(dir, sample, start); err != nil {
					return
				}
				if !old.PublicKey.(*ecdsa.PublicKey).Equal(cert(t, dir, string(a.name)).PublicKey) {
					t.Error("there is a new authority: every node and client is locked out")
				}
			})
		}
	}
}

func TestLostServiceAccountKeyIsNotReplaced(t *testing.T) {
	dir := made(t)
	remove(t, dir.ServiceAccountKey())
	if _, err := Ensure(dir, sample, start); err == nil {
		t.Error("there is a new key, though its public half was there: every token is invalid")
	}
}

func TestUserBringsKeysInOtherEncodings(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for kind, der := range map[string][]byte{"PRIVATE KEY": pkcs8, "RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(old)} {
		t.Run(kind, func(t *testing.T) {
			dir := made(t)
			if err := writePEM(dir.ServiceAccountKey(), kind, der); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)
			ensure(t, dir, sample, start)
			if got := changed(before, snapshot(t, dir)); !slices.Equal(got, []string{"sa.pub"}) {
				t.Errorf("changed %q, want sa.pub to follow its private half", got)
			}
		})
	}
}

func TestEnsureSaysWhatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if _, err := Ensure(Dir(filepath.Join(file, "pki")), sample, start); err == nil || !strings.Contains(err.Error(), "create the PKI directory: ") {
		t.Errorf("got %v", err)
	}
}

// Whoever has the hash of the CA can trust the API server by what that shows.
func TestTheAPIServerShowsItsAuthority(t *testing.T) {
	dir := made(t)
	ca, err := os.ReadFile(dir.CA(ClusterCA))
	if err != nil {
		t.Fatal(err)
	}
	shows := func() bool {
		data, err := os.ReadFile(dir.Cert(APIServer))
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasSuffix(string(data), "-----END CERTIFICATE-----\n"+string(ca))
	}
	if !shows() {
		t.Error("the first one does not")
	}
	// As versions before left it.
	data, _ := os.ReadFile(dir.Cert(APIServer))
	write(t, dir.Cert(APIServer), strings.TrimSuffix(string(data), string(ca)))
	renewed, err := Ensure(dir, sample, start)
	if err != nil || !shows() || len(renewed) != 1 || renewed[0] != "apiserver: without its authority's certificate" {
		t.Errorf("%q, %v", renewed, err)
	}
	if renewed, err := Ensure(dir, sample, start); err != nil || len(renewed) > 0 {
		t.Errorf("again: %q, %v", renewed, err)
	}
}
