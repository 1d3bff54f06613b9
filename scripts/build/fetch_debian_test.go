// Package build holds what builds what lite embeds: the bundle of helper programs, and the licenses.
package build

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// debs is a copy of fetch-debian with a lock file and a cache of its own.
type debs struct{ dir, mirror, path string }

// lines is what the lock of a test says: of a package that no mirror has.
var lines = fmt.Sprintf("# A comment.\nlite-none 1:2.0 amd64 %x\n", sha256.Sum256([]byte("content")))

func newDebs(t *testing.T, mirror http.Handler) debs {
	t.Helper()
	d := debs{dir: t.TempDir(), path: os.Getenv("PATH")}
	for _, name := range []string{"build/fetch-debian", "env"} {
		script, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		d.write(t, name, string(script))
	}
	d.write(t, "build/debian.lock", lines)
	server := httptest.NewServer(mirror)
	t.Cleanup(server.Close)
	d.mirror = server.URL
	return d
}

func (d debs) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (d debs) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(d.dir, "build/fetch-debian")}, args...)...)
	c.Env = []string{"PATH=" + d.path, "LITE_CACHE=" + d.dir, "LITE_DEBIAN_MIRROR=" + d.mirror}
	out, err := c.CombinedOutput()
	return string(out), err
}

// TestFetchDebianTrustsNoMirror has mirrors that are not Debian's.
func TestFetchDebianTrustsNoMirror(t *testing.T) {
	for _, needed := range []string{"/usr/bin/apt-get", "/usr/share/keyrings/debian-archive-keyring.gpg"} {
		if _, err := os.Stat(needed); err != nil {
			t.Skip(err)
		}
	}
	release := "Origin: Debian\nLabel: Debian\nSuite: oldstable\nCodename: bookworm\nArchitectures: amd64 arm64\nComponents: main\n" +
		"Date: Sat, 16 May 2026 10:00:00 UTC\n"
	signed := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + release + "-----BEGIN PGP SIGNATURE-----\n\naGVsbG8=\n=aaaa\n-----END PGP SIGNATURE-----\n"
	for name, files := range map[string]map[string]string{
		"empty":        {},
		"unsigned":     {"Release": release},
		"wrong":        {"Release": release, "Release.gpg": signed},
		"wrong inline": {"InRelease": signed},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDebs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				content, ok := files[strings.TrimPrefix(r.URL.Path, "/dists/bookworm/")]
				if !ok {
					http.NotFound(w, r)
					return
				}
				fmt.Fprint(w, content)
			}))
			for _, command := range []string{"lock", "amd64"} {
				out, err := d.run(t, command)
				if err == nil || !strings.Contains(out, "apt-get update with "+d.mirror+" failed; LITE_DEBIAN_MIRROR names another mirror") {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			}
			lock, err := os.ReadFile(filepath.Join(d.dir, "build/debian.lock"))
			if _, left := os.Stat(filepath.Join(d.dir, "build/debian.lock.new")); err != nil || string(lock) != lines || left == nil {
				t.Errorf("the lock is now %v:\n%s", err, lock)
			}
		})
	}
}

// TestFetchDebianByHand has no apt, and what was fetched by hand.
func TestFetchDebianByHand(t *testing.T) {
	d := newDebs(t, http.NotFoundHandler())
	d.path = filepath.Join(d.dir, "bin")
	if err := os.Mkdir(d.path, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"awk", "bash", "cat", "cut", "dirname", "flock", "mkdir", "rm", "sha256sum"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(d.path, tool)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := d.run(t, "amd64"); err == nil || !strings.Contains(out, "there is no apt-get here: put the files") {
		t.Errorf("%v\n%s", err, out)
	}
	d.write(t, "debian/lite-none_1%3a2.0_amd64.deb", "content")
	if out, err := d.run(t, "amd64"); err != nil || out != filepath.Join(d.dir, "debian")+"\n" {
		t.Errorf("%v\n%s", err, out)
	}
	d.write(t, "debian/lite-none_1%3a2.0_amd64.deb", "forged!")
	if out, err := d.run(t, "amd64"); err == nil {
		t.Errorf("a forged file was taken:\n%s", out)
	}
}
