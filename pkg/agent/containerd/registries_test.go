package containerd

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	hosts "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/golden"
)

// parsed is a registries.yaml of the given text.
func parsed(t *testing.T, text string) *registries {
	t.Helper()
	r, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parse(t *testing.T, text string) (*registries, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return parseRegistries(path)
}

func TestHostsFiles(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct{ name, yaml string }{
		{"a mirror", "mirrors: {docker.io: {endpoint: ['https://mirror.example.test']}}"},
		{"a bare host and a port", "mirrors: {'registry.example.test:5000': {endpoint: [mirror.example.test, 'mirror.example.test:5000']}}"},
		{"http and a path", "mirrors: {quay.io: {endpoint: ['http://192.0.2.1:5000/proxy/quay', 'https://mirror.example.test/v2/']}}"},
		{"all registries", "mirrors: {'*': {endpoint: ['https://mirror.example.test']}}"},
		{"no mirror", "mirrors: {registry.example.test: {}}"},
		{"TLS", "configs: {registry.example.test: {tls: {ca_file: /ca.pem, cert_file: /c.pem, key_file: /k.pem}}}"},
		{"TLS of a mirror", "mirrors: {docker.io: {endpoint: ['https://mirror.example.test:5000']}}\nconfigs: {'mirror.example.test:5000': {tls: {insecure_skip_verify: true}}}"},
		{"odd paths", `configs: {registry.example.test: {tls: {ca_file: 'C:\a "b"'}}}`},
		{"auth alone", "configs: {registry.example.test: {auth: {username: u, password: p}}}"},
	} {
		files, err := parsed(t, test.yaml).hostsFiles(nil)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		b.WriteString("=== " + test.name + "\n" + test.yaml + "\n")
		for _, name := range slices.Sorted(maps.Keys(files)) {
			b.WriteString("--- " + name + "/hosts.toml\n" + files[name])
		}
	}
	golden.Check(t, "hosts", b.String())
}

func TestRegistriesThatAreWrong(t *testing.T) {
	for name, test := range map[string]struct{ yaml, want string }{
		"unknown key":             {"mirors: {}", `unknown field "mirors"`},
		"unknown key below":       {"mirrors: {docker.io: {endpoints: [a]}}", `unknown field "endpoints"`},
		"key twice":               {"mirrors: {}\nmirrors: {}", `key "mirrors" already set in map`},
		"not YAML":                {"a: b: c", "mapping values are not allowed"},
		"endpoint that is none":   {"mirrors: {docker.io: {endpoint: ['ftp://mirror']}}", `mirrors: docker.io: endpoint "ftp://mirror": not of the form https://host[:port][/path]`},
		"endpoint without a host": {"mirrors: {docker.io: {endpoint: ['https://']}}", `endpoint "https://": not of the form`},
		"empty endpoint":          {"mirrors: {docker.io: {endpoint: ['']}}", `endpoint "": not of the form`},
		"endpoint that is no URL": {"mirrors: {docker.io: {endpoint: ['https://mirror:port']}}", `endpoint "https://mirror:port": `},
		"certificate without key": {"configs: {a.test: {tls: {cert_file: /c}}}", "configs: a.test: cert_file and key_file go together"},
		"key without certificate": {"configs: {a.test: {tls: {key_file: /k}}}", "configs: a.test: cert_file and key_file go together"},
		"certificate of a mirror": {"mirrors: {docker.io: {endpoint: [m.test]}}\nconfigs: {m.test: {tls: {cert_file: /c}}}", "cert_file and key_file go together"},
		"pattern":                 {"mirrors: {docker.io: {endpoint: [m.test], rewrite: {'^(': x}}}", "mirrors: docker.io: rewrite \"^(\": error parsing regexp: missing closing )"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, test.yaml)
			if err == nil || !strings.HasPrefix(err.Error(), "private-registry /") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestRegistriesFileNeedNotExist(t *testing.T) {
	dir := t.TempDir()
	r, err := parseRegistries(filepath.Join(dir, "none.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.write(filepath.Join(dir, "hosts"), nil); err != nil {
		t.Fatal(err)
	}
	if len(r.auths()) > 0 {
		t.Errorf("got %v", r.auths())
	}
	if through, err := r.listen(); through != nil || err != nil {
		t.Errorf("listens for nothing: %v, %v", through, err)
	}
	if err := CheckRegistries(filepath.Join(dir, "none.yaml")); err != nil {
		t.Errorf("got %v", err)
	}
}

// Reading a FIFO would wait for ever.
func TestRegistriesFileMustBeAFile(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(fifo, link)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{dir, fifo, link, "/dev/zero"} {
		want := "private-registry " + file + ": is not a regular file; put a file in its place"
		if err := CheckRegistries(file); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestWhatWasTakenOutOfTheFileIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hosts")
	for _, registry := range []string{"a.test", "b.test"} {
		if err := parsed(t, "mirrors: {"+registry+": {endpoint: [m.test]}}").write(dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "b.test" {
		t.Errorf("got %v, %v", entries, err)
	}
}

// asked is where containerd itself would go for a registry, in order.
func asked(t *testing.T, r *registries, registry string) []docker.RegistryHost {
	t.Helper()
	quietly(t)
	dir := t.TempDir()
	if err := r.write(dir, nil); err != nil {
		t.Fatal(err)
	}
	all, err := hosts.ConfigureHosts(t.Context(), hosts.HostOptions{HostDir: hosts.HostDirFromRoot(dir)})(registry)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestContainerdAsksTheMirrorsFirst(t *testing.T) {
	for name, test := range map[string]struct{ yaml, registry, want string }{
		"nothing said":    {"{}", "docker.io", "https://registry-1.docker.io/v2"},
		"a mirror":        {"mirrors: {docker.io: {endpoint: [m.test, 'http://n.test:5000']}}", "docker.io", "https://m.test/v2 http://n.test:5000/v2 https://registry-1.docker.io/v2"},
		"others are left": {"mirrors: {docker.io: {endpoint: [m.test]}}", "quay.io", "https://quay.io/v2"},
		"all registries":  {"mirrors: {'*': {endpoint: [m.test]}}", "quay.io", "https://m.test/v2 https://quay.io/v2"},
		"one and all":     {"mirrors: {'*': {endpoint: [m.test]}, quay.io: {endpoint: [q.test]}}", "quay.io", "https://q.test/v2 https://quay.io/v2"},
		"all, docker.io":  {"mirrors: {'*': {endpoint: [m.test]}}", "docker.io", "https://m.test/v2 https://registry-1.docker.io/v2"},
		"a port":          {"mirrors: {'r.test:5000': {endpoint: [m.test]}}", "r.test:5000", "https://m.test/v2 https://r.test:5000/v2"},
		"an IPv6 address": {"mirrors: {'[2001:db8::1]:5000': {endpoint: [m.test]}}", "[2001:db8::1]:5000", "https://m.test/v2 https://[2001:db8::1]:5000/v2"},
		"a path":          {"mirrors: {quay.io: {endpoint: ['https://m.test/proxy']}}", "quay.io", "https://m.test/proxy/v2 https://quay.io/v2"},
		"a path with v2":  {"mirrors: {quay.io: {endpoint: ['https://m.test/v2/proxy']}}", "quay.io", "https://m.test/v2/proxy/v2 https://quay.io/v2"},
		"the same twice":  {"mirrors: {quay.io: {endpoint: [m.test, 'https://m.test']}}", "quay.io", "https://m.test/v2 https://quay.io/v2"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, h := range asked(t, parsed(t, test.yaml), test.registry) {
				got = append(got, h.Scheme+"://"+h.Host+h.Path)
			}
			if g := strings.Join(got, " "); g != test.want {
				t.Errorf("got  %s\nwant %s", g, test.want)
			}
		})
	}
}

// containerd tries HTTP where a registry on this machine has no TLS; naming the
// registry in the file must not end that.
func TestRegistryOnThisMachineMayDoWithoutTLS(t *testing.T) {
	const registry = "localhost:5000"
	unnamed := asked(t, parsed(t, "{}"), registry)[0]
	named := asked(t, parsed(t, "configs: {'"+registry+"': {auth: {username: u}}}"), registry)[0]
	if got, want := fmt.Sprintf("%T", named.Client.Transport), fmt.Sprintf("%T", unnamed.Client.Transport); got != want {
		t.Errorf("it is reached by %s, and by %s if nothing is said of it", got, want)
	}
}

// What is said of all hosts holds for a registry that nothing else is said of.
func TestTLSOfAllHostsReachesEveryRegistry(t *testing.T) {
	for name, yaml := range map[string]string{
		"named":          "mirrors: {quay.io: {}}\nconfigs: {'*': {tls: {insecure_skip_verify: true}}}",
		"not named":      "configs: {'*': {tls: {insecure_skip_verify: true}}}",
		"mirrors of all": "mirrors: {'*': {endpoint: [m.test]}}\nconfigs: {'*': {tls: {insecure_skip_verify: true}}}",
	} {
		t.Run(name, func(t *testing.T) {
			for _, h := range asked(t, parsed(t, yaml), "quay.io") {
				if tr, ok := h.Client.Transport.(*http.Transport); !ok || !tr.TLSClientConfig.InsecureSkipVerify {
					t.Errorf("%s is verified", h.Host)
				}
			}
		})
	}
}

func TestCredentialsAreUnderTheNameContainerdAsksFor(t *testing.T) {
	for registry, want := range map[string]string{
		"registry.example.test:5000": "registry.example.test:5000",
		// Where docker.io is; containerd asks for the password of that host.
		"docker.io": "registry-1.docker.io",
	} {
		r := parsed(t, "configs: {'"+registry+"': {auth: {username: u, password: p}}}")
		if !slices.ContainsFunc(r.auths(), func(a auth) bool { return a.Host == quote(want) }) {
			t.Errorf("%s: got %+v, want one for %s", registry, r.auths(), want)
		}
	}
}

func TestDirName(t *testing.T) {
	for registry, want := range map[string]string{
		"docker.io":             "docker.io",
		"registry.example.test": "registry.example.test",
		"localhost:5000":        "localhost_5000_",
		"192.0.2.1:443":         "192.0.2.1_443_",
		"[2001:db8::1]:5000":    "[2001:db8::1]_5000_",
		"*":                     "_default",
	} {
		if got := dirName(registry); got != want {
			t.Errorf("%s: got %s, want %s", registry, got, want)
		}
	}
}

// A registry's name comes from a file of the user's and becomes a path that
// root writes to.
func TestRegistryCannotNameAPathElsewhere(t *testing.T) {
	for _, registry := range []string{"../evil", "a/../../evil", "/evil", "..", ""} {
		dir := filepath.Join(t.TempDir(), "hosts")
		r, err := parse(t, "mirrors: {'"+registry+"': {endpoint: [m.test]}}")
		if err != nil {
			continue // refused, which is as good
		}
		if err := r.write(dir, nil); err != nil {
			continue
		}
		_ = filepath.WalkDir(filepath.Dir(dir), func(path string, d os.DirEntry, err error) error {
			if rel, _ := filepath.Rel(dir, path); err == nil && !d.IsDir() && (strings.HasPrefix(rel, "..") || !strings.Contains(rel, "/")) {
				t.Errorf("%q writes %s", registry, path)
			}
			return nil
		})
	}
}
