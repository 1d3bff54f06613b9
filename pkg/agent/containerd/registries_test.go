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

	"lite.io/lite/tests/golden"
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
		{"odd paths", `configs: {registry.example.test: {tls: {ca_file: '/C:\a "b"'}}}`},
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
		"unknown key":             {"mirors: {}", `:1: unknown key "mirors"; valid keys here are mirrors, configs`},
		"unknown key below":       {"mirrors:\n  docker.io: {endpoints: [a]}", `:2: mirrors: docker.io: unknown key "endpoints"; valid keys here are endpoint, rewrite`},
		"key twice":               {"mirrors: {}\nmirrors: {}", `:2: "mirrors" is set twice (first on line 1); keep one of them`},
		"host twice":              {"configs:\n  a.test: {}\n  b.test: {}\n  a.test: {}", `:4: configs: "a.test" is set twice (first on line 2)`},
		"not YAML":                {"a: b: c", "mapping values are not allowed"},
		"tabs":                    {"mirrors:\n\tdocker.io:\n", "line 2: found character that cannot start any token; correct the YAML, and indent it with spaces"},
		"two documents":           {"mirrors: {}\n---\nconfigs: {}", "line 2: a second YAML document begins"},
		"a list":                  {"- mirrors", ":1: is not a map"},
		"endpoint that is none":   {"mirrors: {docker.io: {endpoint: ['ftp://mirror']}}", `:1: mirrors: docker.io: endpoint "ftp://mirror": must be https://host[:port][/path]`},
		"endpoint without a host": {"mirrors: {docker.io: {endpoint: ['https://']}}", `endpoint "https://": must be https://host[:port][/path]`},
		"empty endpoint":          {"mirrors: {docker.io: {endpoint: ['']}}", `endpoint "": must be https://host[:port][/path]`},
		"endpoint that is no URL": {"mirrors: {docker.io: {endpoint: ['https://mirror:port']}}", `endpoint "https://mirror:port": `},
		"port that is none":       {"mirrors: {docker.io: {endpoint: ['https://mirror:70000']}}", `70000 is not a port`},
		"endpoint with a user":    {"mirrors: {docker.io: {endpoint: ['https://u:p@mirror']}}", `contains credentials, which belong below configs`},
		"endpoint as text":        {"mirrors:\n  docker.io:\n    endpoint: https://m.test", `:3: mirrors: docker.io: endpoint is not a list; write it as one`},
		"registry as an address":  {"mirrors:\n  https://a.test/: {endpoint: [m.test]}", `:2: mirrors: registry "https://a.test/" must be host[:port]; omit the scheme: "a.test"`},
		"registry with a path":    {"configs:\n  a.test/team: {}", `:2: configs: registry "a.test/team" must be host[:port]; omit the path: "a.test"`},
		"a part of all":           {"mirrors:\n  '*.a.test': {endpoint: [m.test]}", `"*" stands only for all registries`},
		"certificate without key": {"configs: {a.test: {tls: {cert_file: /c}}}", "configs: a.test: cert_file and key_file belong together"},
		"key without certificate": {"configs: {a.test: {tls: {key_file: /k}}}", "configs: a.test: cert_file and key_file belong together"},
		"relative path":           {"configs: {a.test: {tls: {ca_file: ca.crt}}}", `ca_file "ca.crt" is not an absolute path; write an absolute path`},
		"neither true nor false":  {"configs:\n  a.test:\n    tls:\n      insecure_skip_verify: maybe", `:4: configs: a.test: tls: insecure_skip_verify: "maybe" is neither true nor false`},
		"pattern":                 {"mirrors: {docker.io: {endpoint: [m.test], rewrite: {'^(': x}}}", "mirrors: docker.io: rewrite \"^(\": error parsing regexp: missing closing )"},
		"password is a list":      {"configs: {a.test: {auth: {username: u, password: [p]}}}", "password is not a string"},
		"password is null":        {"configs:\n  a.test:\n    auth: {username: u, password: null}", ":3: configs: a.test: auth: password: null means null in YAML; write it in quotes, or remove the line"},
		"auth in plain":           {"configs: {a.test: {auth: {auth: 'user:password'}}}", "auth is not base64; write `user:password` in base64"},
		"auth without a colon":    {"configs: {a.test: {auth: {auth: dXNlcg==}}}", "auth has no colon between user and password"},
		// Followed to its end, it would have ended the process.
		"merged into itself": {"mirrors: &m\n  <<: *m\n", `:2: the alias *m leads to itself, or to more than 1000 others; replace the alias with its value`},
		"merged by a detour": {"configs:\n  a.test: &a {<<: &b {<<: *a}}\n", `:2: the alias *a leads to itself`},
		"multiplied":         {"mirrors:\n  a.test: &a {endpoint: [m.test]}\n  b.test: &b {<<: [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]}\n  c.test: &c {<<: [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]}\n  d.test: &d {<<: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]}\n", `leads to itself, or to more than 1000 others`},
		// What moves when a block is indented too far or too little.
		"configs below mirrors":    {"mirrors:\n  docker.io: {endpoint: [m.test]}\n  configs:\n    m.test:\n      auth: {username: u, password: p}", `:3: mirrors: "configs" is indented, and so the name of a registry; put it at the beginning of its line`},
		"configs below a registry": {"mirrors:\n  docker.io:\n    endpoint: [m.test]\n    configs:\n      m.test: {}", `:4: mirrors: docker.io: unknown key "configs"; it belongs at the beginning of a line`},
		"auth beside the host":     {"configs:\n  m.test:\n  auth:\n    username: u", `:4: configs: auth: unknown key "username"; it belongs below auth`},
		"user beside auth":         {"configs:\n  m.test:\n    auth:\n    username: u", `:4: configs: m.test: unknown key "username"; it belongs below auth`},
		"TLS below auth":           {"configs:\n  m.test:\n    auth:\n      tls: {ca_file: /ca}", `:4: configs: m.test: auth: unknown key "tls"; it belongs below configs and the name of a host`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, test.yaml)
			if err == nil || !strings.HasPrefix(err.Error(), "private-registry /") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			// Whoever reads it has to know what to do.
			for l := range strings.Lines(err.Error()) {
				if !strings.Contains(l, "; ") {
					t.Errorf("no remedy: %s", l)
				}
			}
		})
	}
	_, err := parse(t, "mirrors:\n  a.test/x: {}\n  b.test: {endpoint: ['ftp://x', m.test], what: 1}\n")
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("of three mistakes it says %v", err)
	}
}

// A password is what was written, whatever YAML takes it for.
func TestTextsAreTakenAsTheyAreWritten(t *testing.T) {
	for written, want := range map[string]string{
		"0777": "0777", "'0777'": "0777", "0o17": "0o17", "0x1F": "0x1F", "0b11": "0b11", "+5": "+5", "1_000": "1_000", "007": "007",
		"1234567890123456789012": "1234567890123456789012", "1e5": "1e5", "1.10": "1.10", ".5": ".5", "-.inf": "-.inf", ".nan": ".nan",
		"yes": "yes", "No": "No", "ON": "ON", "y": "y", "true": "true", "False": "False",
		"2026-11-28": "2026-11-28", "12:30:45": "12:30:45", "!!str 0777": "0777", `"a\tb"`: "a\tb", "a#b": "a#b", "a b": "a b", "''": "", "'~'": "~", "'null'": "null",
		"=": "=", "<<": "<<", "|-\n        two\n        lines": "two\nlines",
	} {
		r, err := parse(t, "configs:\n  a.test:\n    auth:\n      username: "+written+"\n      password: "+written+"\n")
		if err != nil {
			t.Errorf("%s: %v", written, err)
		} else if a := r.configs["a.test"].auth; a.username != want || a.password != want {
			t.Errorf("%s: got %q, %q", written, a.username, a.password)
		}
	}
	for _, written := range []string{"yes", "True", "on", "'true'", `"yes"`} {
		if r := parsed(t, "configs: {a.test: {tls: {insecure_skip_verify: "+written+"}}}"); !r.configs["a.test"].tls.insecure {
			t.Errorf("%s is taken for false", written)
		}
	}
	for _, written := range []string{"no", "False", "off", "'false'", "null", ""} {
		if r := parsed(t, "configs:\n  a.test:\n    tls:\n      insecure_skip_verify: "+written+"\n"); r.configs["a.test"].tls.insecure {
			t.Errorf("%s is taken for true", written)
		}
	}
}

// Files come from other systems and from templates.
func TestOddFormsOfTheFile(t *testing.T) {
	const plain = "mirrors:\n  docker.io:\n    endpoint:\n    - https://m.test:5000/\nconfigs:\n  m.test:5000:\n    auth:\n      username: u\n      password: 0777\n"
	for name, text := range map[string]string{
		"as it is":             plain,
		"a byte order mark":    "\ufeff" + plain,
		"lines of Windows":     strings.ReplaceAll(plain, "\n", "\r\n"),
		"both":                 "\ufeff" + strings.ReplaceAll(plain, "\n", "\r\n"),
		"a document's start":   "# by Ansible\n---\n" + plain + "...\n",
		"an anchor":            strings.Replace(plain, "    auth:\n      username: u\n      password: 0777\n", "    auth: &a {username: u, password: 0777}\n  n.test: {auth: *a}\n", 1),
		"a merge":              strings.Replace(plain, "    auth:\n      username: u\n      password: 0777\n", "    &d\n    auth: {username: u, password: 0777}\n  n.test:\n    <<: *d\n", 1),
		"empty sections":       plain + "  n.test:\n  o.test: {auth: , tls: null}\n",
		"an index of the name": strings.Replace(plain, "docker.io", "index.docker.io", 1),
		"JSON":                 `{"mirrors":{"docker.io":{"endpoint":["https://m.test:5000"]}},"configs":{"m.test:5000":{"auth":{"username":"u","password":"0777"}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := parsed(t, text)
			var got []string
			for _, h := range asked(t, r, "docker.io") {
				got = append(got, h.Host)
			}
			if user, secret := r.credentialsFor("m.test:5000").userAndSecret(); user != "u" || secret != "0777" || strings.Join(got, " ") != "m.test:5000 registry-1.docker.io" {
				t.Errorf("got %q, %q for %v", user, secret, got)
			}
		})
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "mirrors:\nconfigs:\n"} {
		if r := parsed(t, text); len(r.mirrors)+len(r.configs) > 0 {
			t.Errorf("%q: got %+v", text, r)
		}
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
	if len(r.hosts()) > 0 {
		t.Errorf("got %v", r.hosts())
	}
	if err := CheckRegistries(filepath.Join(dir, "none.yaml")); err != nil {
		t.Errorf("got %v", err)
	}
}

// Reading a FIFO would wait forever.
func TestRegistriesFileMustBeAFile(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(fifo, link)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{dir, fifo, link, "/dev/zero"} {
		want := "private-registry " + file + ": is not a regular file; replace it with a file"
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

// Settings for all hosts apply to a registry without its own.
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

// containerd asks for a host's credentials; the file may spell that host differently.
func TestCredentials(t *testing.T) {
	const u = "{auth: {username: u, password: p}}"
	for name, test := range map[string]struct {
		yaml, host string
		got        bool
	}{
		"a port":                             {"configs: {'a.test:5000': " + u + "}", "a.test:5000", true},
		"another port":                       {"configs: {'a.test:5000': " + u + "}", "a.test", false},
		"the usual port, said in the file":   {"configs: {'a.test:443': " + u + "}", "a.test", true},
		"the usual port, said by a mirror":   {"configs: {a.test: " + u + "}", "a.test:443", true},
		"an IPv6 address":                    {"configs: {'[2001:db8::1]:5000': " + u + "}", "[2001:db8::1]:5000", true},
		"an IPv6 address without a port":     {"configs: {'[2001:db8::1]': " + u + "}", "[2001:db8::1]", true},
		"Docker Hub by its address":          {"configs: {registry-1.docker.io: " + u + "}", "registry-1.docker.io", true},
		"Docker Hub by its name":             {"configs: {docker.io: " + u + "}", "registry-1.docker.io", true},
		"Docker Hub as docker has it":        {"configs: {index.docker.io: " + u + "}", "registry-1.docker.io", true},
		"all: a mirror":                      {"mirrors: {docker.io: {endpoint: ['https://m.test:5000']}}\nconfigs: {'*': " + u + "}", "m.test:5000", true},
		"all: a mirror of all":               {"mirrors: {'*': {endpoint: [m.test]}}\nconfigs: {'*': " + u + "}", "m.test", true},
		"all: a mirror that rewrites":        {"mirrors: {docker.io: {endpoint: [m.test], rewrite: {a: b}}}\nconfigs: {'*': " + u + "}", "m.test", true},
		"all: not one with an entry":         {"mirrors: {docker.io: {endpoint: [m.test]}}\nconfigs: {'*': " + u + ", m.test: {}}", "m.test", false},
		"all: not the registry itself":       {"mirrors: {docker.io: {endpoint: [m.test]}}\nconfigs: {'*': " + u + "}", "registry-1.docker.io", false},
		"all: not a registry of somebody's":  {"mirrors: {docker.io: {endpoint: [m.test]}}\nconfigs: {'*': " + u + "}", "evil.test", false},
		"nothing, because nothing was given": {"mirrors: {docker.io: {endpoint: [m.test]}}", "m.test", false},
	} {
		r := parsed(t, test.yaml)
		if user, secret := r.credentialsFor(test.host).userAndSecret(); (user == "u" && secret == "p") != test.got {
			t.Errorf("%s: got %q, %q", name, user, secret)
		}
		if test.got != slices.Contains(r.hosts(), test.host) && !strings.Contains(name, "usual port") {
			t.Errorf("%s: the hosts with credentials are %v", name, r.hosts())
		}
	}
	for written, want := range map[string][2]string{
		"username: u, password: p, auth: eDp5": {"u", "p"},
		"auth: eDp5Onox":                       {"x", "y:z1"},
		"identity_token: t":                    {"", "t"},
		"username: '', password: ''":           {"", ""},
	} {
		if user, secret := parsed(t, "configs: {a.test: {auth: {"+written+"}}}").credentialsFor("a.test").userAndSecret(); user != want[0] || secret != want[1] {
			t.Errorf("%s: got %q, %q", written, user, secret)
		}
	}
	for yaml, want := range map[string]bool{
		"configs: {'*': " + u + "}": true,
		"mirrors: {a.test: {endpoint: [m.test]}}\nconfigs: {'*': " + u + "}":             false,
		"mirrors: {a.test: {endpoint: [m.test]}}\nconfigs: {m.test: {}, '*': " + u + "}": true,
		"configs: {'*': {tls: {insecure_skip_verify: true}}}":                            false,
	} {
		if got := parsed(t, yaml).unused(); (got != "") != want {
			t.Errorf("%s: got %q", yaml, got)
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
