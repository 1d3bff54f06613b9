package server

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

const foreign = "lite://abcdef.0123456789abcdef@192.0.2.7:6443/sha256/" + "00000000000000000000000000000000" + "00000000000000000000000000000000"

// TestJoins decides what a start is that has a token.
func TestJoins(t *testing.T) {
	cfg := configured(t, filepath.Join(t.TempDir(), "data"))
	dir := cfg.Layout().Data.Server()
	is := func(when string, want bool) {
		t.Helper()
		if got, err := Joins(cfg); err != nil || got != want {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	is("without a token", false)
	cfg.Token = "abcdef.0123456789abcdef"
	is("with a token to use", false)
	cfg.Token = foreign
	is("with another server's token", true)
	cfg.Token = strings.Replace(foreign, "192.0.2.7:6443", ownEndpoint(cfg), 1)
	is("with its own token, on a disk that is new", false)
	cfg.Token = foreign

	if err := (membership{}).write(mkdir(t, dir)); err != nil {
		t.Fatal(err)
	}
	cfg.Token = ""
	is("where a join was cut short", true)
	if err := (membership{Complete: true}).write(dir); err != nil {
		t.Fatal(err)
	}
	is("where a join is complete", false)
	if err := os.WriteFile(dir.Membership(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Joins(cfg); err == nil || !strings.Contains(err.Error(), dir.Membership()) {
		t.Errorf("of a damaged file: %v", err)
	}
	if err := os.Remove(dir.Membership()); err != nil {
		t.Fatal(err)
	}

	if _, err := pki.Ensure(pkiDir(cfg), identity(cfg, cfg.Propose()), time.Now()); err != nil {
		t.Fatal(err)
	}
	is("of a cluster of its own", false)
	cfg.Token = foreign
	if _, err := Joins(cfg); err == nil || !strings.Contains(err.Error(), "contains a cluster of its own") {
		t.Errorf("with another cluster's token: %v", err)
	}
}

func mkdir(t *testing.T, dir layout.Server) layout.Server {
	t.Helper()
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHandover takes over what another server shares, and nothing else.
func TestHandover(t *testing.T) {
	cfg := configured(t, filepath.Join(t.TempDir(), "one"))
	from := mkdir(t, cfg.Layout().Data.Server())
	facts := cfg.Propose()
	if _, err := pki.Ensure(pkiDir(cfg), identity(cfg, facts), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := remember(from, facts); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{from.Encryption(), from.Token()} {
		if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shared, err := (&members{dir: from, facts: facts}).collect()
	if err != nil {
		t.Fatal(err)
	}
	to := layout.Data(filepath.Join(t.TempDir(), "two")).Server()
	got, err := check(to, shared)
	if err != nil || got.ClusterDomain != facts.ClusterDomain {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := receive(to, shared, membership{Servers: []string{"https://192.0.2.1:6443"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range sharedFiles(to) {
		ours, err := os.ReadFile(filepath.Join(string(from), name))
		theirs, err2 := os.ReadFile(filepath.Join(string(to), name))
		info, err3 := os.Stat(filepath.Join(string(to), name))
		if err != nil || err2 != nil || err3 != nil || string(ours) != string(theirs) || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v %v", name, err, err2, err3)
		}
	}
	if m, err := readMembership(to); err != nil || m == nil || !m.Complete || len(m.Servers) != 1 {
		t.Errorf("remembers %+v, %v", m, err)
	}

	for name, change := range map[string]func(files map[string][]byte){
		"a file that nobody knows": func(files map[string][]byte) { files["pki/other.key"] = []byte("x") },
		"without a key":            func(files map[string][]byte) { delete(files, "pki/etcd/ca.key") },
		"without facts":            func(files map[string][]byte) { delete(files, "facts.json") },
		"with other facts":         func(files map[string][]byte) { files["facts.json"] = []byte("[]") },
		"without encryption":       func(files map[string][]byte) { delete(files, "encryption.yaml") },
	} {
		changed := join.Handover{Files: maps.Clone(shared.Files)}
		change(changed.Files)
		if _, err := check(to, changed); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := os.Remove(filepath.Join(string(from), "pki/sa.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := (&members{dir: from, facts: facts}).collect(); err == nil || !strings.Contains(err.Error(), "sa.key") {
		t.Errorf("with a key that is gone: %v", err)
	}
	facts.Encryption = cluster.UserEncryption
	if names := sharedFiles(from); !slices.Contains(names, "encryption.yaml") {
		t.Errorf("shares %v", names)
	}
}

// TestFactsOfSeveral goes by what the cluster shares, once a server is one of several.
func TestFactsOfSeveral(t *testing.T) {
	cfg := configured(t, filepath.Join(t.TempDir(), "data"))
	dir := mkdir(t, cfg.Layout().Data.Server())
	theirs := config.StandardFacts()
	theirs.ClusterDomain = "other.test"
	if err := remember(dir, theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := Facts(cfg); err == nil {
		t.Error("a server that is alone goes by another domain than it had")
	}
	if err := (membership{Complete: true}).write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Facts(cfg)
	if err != nil || got.ClusterDomain != "other.test" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSameMinor(t *testing.T) {
	for versions, ok := range map[[2]string]bool{
		{"v1.37.2", "v1.37.0"}: true, {"v1.37.2", "v1.36.9"}: false, {"v1.36.0", "v1.37.0"}: false, {"", "v1.37.0"}: false,
	} {
		if err := sameMinor(versions[0], versions[1]); (err == nil) != ok {
			t.Errorf("%v: %v", versions, err)
		}
	}
}

// TestLearn keeps where the others are, in the place of where they were.
func TestLearn(t *testing.T) {
	dir := mkdir(t, layout.Data(t.TempDir()).Server())
	m := &members{dir: dir}
	if err := m.learn([]string{"https://192.0.2.2:6443"}); err != nil {
		t.Fatal(err)
	}
	if known, err := readMembership(dir); err != nil || known != nil {
		t.Errorf("alone: %+v, %v", known, err)
	}
	if err := (membership{Complete: true, Servers: []string{"https://lb.test:6443"}}).write(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.learn([]string{"https://192.0.2.2:6443", "https://192.0.2.3:6443"}); err != nil {
			t.Fatal(err)
		}
	}
	known, err := readMembership(dir)
	if want := []string{"https://192.0.2.2:6443", "https://192.0.2.3:6443", "https://lb.test:6443"}; err != nil || !slices.Equal(known.Servers, want) || !known.Complete {
		t.Errorf("got %+v, %v", known, err)
	}
	// One that is alone after all stays so.
	if err := (membership{Complete: true, Alone: true}).write(dir); err != nil {
		t.Fatal(err)
	}
	if err := m.learn([]string{"https://192.0.2.2:6443"}); err != nil {
		t.Fatal(err)
	}
	if known, err := readMembership(dir); err != nil || !known.Alone || len(known.Servers) > 0 {
		t.Errorf("alone after all: %+v, %v", known, err)
	}
}
