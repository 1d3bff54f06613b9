package containerd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/layout"
)

// following is a registries.yaml that is followed until the test ends.
func following(t *testing.T, file string) *served {
	t.Helper()
	quietly(t)
	s := newServed(file, filepath.Join(t.TempDir(), "hosts"), layout.Local(0))
	if _, err := s.load(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { s.watch(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended; s.through.close() })
	return s
}

// until waits for what is to be, as long as a busy machine may take.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s", what)
		}
	}
}

func (s *served) secret(host string) string {
	_, secret := s.credentials(host)
	return secret
}

func TestChangesOfRegistriesAreFollowed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "lite")
	file := filepath.Join(dir, "registries.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	password := func(p string) string {
		return "mirrors: {docker.io: {endpoint: [m.test]}}\nconfigs: {m.test: {auth: {username: u, password: " + p + "}}}\n"
	}
	s := following(t, file) // neither it nor its directory exists
	hosts := filepath.Join(s.dir, "docker.io", "hosts.toml")

	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(password("one"))
	until(t, "the first file", func() bool { return s.secret("m.test") == "one" })
	if data, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(data), "https://m.test") {
		t.Errorf("got %s, %v", data, err)
	}

	put(password("two"))
	until(t, "another password, written in place", func() bool { return s.secret("m.test") == "two" })

	put("mirrors:\n  docker.io:\n    endpoints: [n.test]\n")
	until(t, "a wrong file to be told", func() bool { return strings.Contains(s.note(), "registries.yaml:3: mirrors: docker.io: unknown key") })
	if data, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(data), "https://m.test") || s.secret("m.test") != "two" {
		t.Errorf("what was before is not in force: %s, %v, %q", data, err, s.secret("m.test"))
	}

	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte(password("three")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	until(t, "a file put in its place", func() bool { return s.secret("m.test") == "three" && s.note() == "" })

	// As a tool does that replaces a configuration as a whole.
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	until(t, "no file", func() bool { return s.secret("m.test") == "" })
	if _, err := os.Stat(hosts); !os.IsNotExist(err) {
		t.Errorf("the mirror is there: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(password("four"))
	until(t, "a directory in its place", func() bool { return s.secret("m.test") == "four" })
}

// What a mirror cannot be reached with is as wrong as what cannot be read.
func TestFileThatNamesNoCertificateChangesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registries.yaml")
	s := following(t, file)
	if err := os.WriteFile(file, []byte("mirrors: {a.test: {endpoint: [m.test], rewrite: {a: b}}}\nconfigs: {m.test: {tls: {ca_file: /none.pem}}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "it to be told", func() bool { return strings.Contains(s.note(), "read ca_file") })
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v", entries, err)
	}
}
