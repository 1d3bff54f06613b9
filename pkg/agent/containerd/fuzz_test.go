package containerd

import (
	"io"
	"log"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v3"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/harness/fuzz"
)

// Whatever a registries.yaml contains: each error names the file and has a remedy, and what is made of it are files of TOML
// below the directory of registries, which hold no password.
func FuzzRegistries(f *testing.F) {
	for _, seed := range []string{
		"", "mirrors: {docker.io: {endpoint: ['https://mirror.example.test']}}", "mirrors:\n  \"abc.local:443\":\n    endpoint: [\"https://mirror.local:5000\"]\nconfigs:\n  \"mirror.local:5000\":\n    auth:\n      username: pull\n      password: 0777\n",
		"mirrors: {'*': {endpoint: [m.test]}}\nconfigs: {'*': {auth: {username: u, password: p}}}", "configs: {registry.example.test: {tls: {ca_file: '/C:\\a \"b\"', cert_file: /c, key_file: /k, insecure_skip_verify: on}}}",
		"mirrors: &m\n  <<: *m\n", "mirrors:\n  a.test: &a {endpoint: [m.test]}\n  b.test: &b {<<: [*a, *a, *a, *a]}\n  c.test: &c {<<: [*b, *b, *b, *b]}\n", "mirrors: {quay.io: {rewrite: {'^(.*)$': 'x/$1'}, endpoint: ['http://[::1]:5000/p']}}",
		"configs: {a.test: {auth: {auth: dTpw}}}", "mirrors: {a.test: , '..': {}, 'a/b': {}, 'https://c': {}}", "configs: {'[::1]:5000': {auth: {identity_token: t}}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const file = "/etc/lite/registries.yaml"
		var r *registries
		var err error
		fuzz.AllocatesAtMost(t, 128+uint64(len(data))/256, func() { r, err = readRegistries(file, data) })
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "private-registry "+file) || !strings.Contains(line, "; ") {
					t.Errorf("it does not say where, or what to do: %s", line)
				}
			}
			return
		}
		contents, err := r.hostsFiles(nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range contents {
			if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n") {
				t.Errorf("a registry has the directory %q", name)
			}
			var read map[string]any
			if err := toml.Unmarshal([]byte(content), &read); err != nil {
				t.Errorf("%s: %v\n%s", name, err, content)
			}
			onlyKnown(t, read)
		}
		for _, host := range r.hosts() {
			if r.credentialsFor(host) == nil {
				t.Errorf("%s is a host without credentials", host)
			}
		}
	})
}

// onlyKnown fails the test for a key that no hosts.toml of ours has, such as one for a password.
func onlyKnown(t *testing.T, table map[string]any) {
	for key, value := range table {
		switch value := value.(type) {
		case map[string]any:
			if key == "host" {
				for _, one := range value {
					onlyKnown(t, one.(map[string]any))
				}
				continue
			}
		}
		if !slices.Contains([]string{"capabilities", "override_path", "ca", "client", "skip_verify"}, key) {
			t.Errorf("a hosts.toml has the key %q", key)
		}
	}
}

// A password that is not quoted may be anything, to YAML too. It is used as it was written, or refused; in the error,
// which is logged, it is not.
func FuzzPassword(f *testing.F) {
	for _, around := range [][2]string{
		{"", ""}, {"*", ""}, {"&", ""}, {"!", ""}, {"%", ""}, {"@", ""}, {"`", ""}, {"{", ": x}"}, {"[", ""}, {"\"", ""}, {"\"", "\""}, {"'", "'"}, {"|", ""}, {"> ", ""},
		{"a: ", ""}, {"", ": "}, {"# ", ""}, {"\"\\x", "\""}, {"? ", ""}, {"- ", ""}, {"!!int ", ""}, {"!!binary ", ""}, {"0", ""}, {"<<: *", ""}, {"{<<: *", "}"}, {"\t", ""},
	} {
		f.Add(around[0], around[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "Xq7secretZk9"
		if strings.ContainsAny(before+after, "\r\n\u0085\u2028\u2029") {
			return
		}
		text := before + secret + after
		for _, key := range []string{"password", "auth", "identity_token"} {
			r, err := readRegistries("/etc/lite/registries.yaml", []byte("configs:\n  a.test:\n    auth:\n      "+key+": "+text+"\n"))
			if err != nil {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: %s: the error shows it: %v", key, text, err)
				}
				continue
			}
			var want struct{ V string }
			if err := yaml.Unmarshal([]byte("v: "+text+"\n"), &want); err != nil {
				continue // a number, to be used as it is written
			}
			c := r.configs["a.test"].auth
			if got := map[string]string{"password": c.password, "auth": c.auth, "identity_token": c.token}[key]; got != want.V && !strings.HasPrefix(strings.TrimSpace(text), "!") {
				t.Errorf("%s: %s is %q, not %q", key, text, got, want.V)
			}
		}
	})
}

// What passes the check of a drop-in does not end containerd, which reads it in the same process.
func FuzzContainerdDropIn(f *testing.F) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	log.SetOutput(io.Discard)
	logrus.SetOutput(io.Discard)
	for _, seed := range []string{
		"", nvidiaVersion2, strings.NewReplacer("version = 2", "version = 3", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime").Replace(nvidiaVersion2), "version = -1\n", "version = 9\n", "version = 2\n\n[plugins\n",
		"\ufeffversion = 2\n", "version = 2\ndisabled_plugins = ['cri']\n", "[plugins.cri.containerd.runtimes]\nkata = 5\n", "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\ncontainerd = 'x'\n",
		"version = 1\n[plugins.cri.registry.configs.'a.test'.auth]\npassword = 'p'\n", "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.a]\nruntime_type = 7\noptions = []\n", "a = 1979-05-27T07:32:00Z\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "imports") {
			return // it may name any file of the machine
		}
		c := sample()
		c.Dir = layout.Containerd(t.TempDir())
		file := put(t, c, "50-test.toml", text)
		if err := CheckDropIns(c.Dir); err != nil {
			for line := range strings.Lines(err.Error()) {
				if line != "\n" && !strings.Contains(err.Error(), file) {
					t.Errorf("it does not say which file: %s", line)
				}
			}
			return
		}
		cfg, err := c.load(t.Context(), written(t, c))
		if err == nil && (cfg.Root == "" || len(table(cfg.Plugins, criRuntime)) == 0) {
			t.Errorf("root %q, plugins %q", cfg.Root, slices.Sorted(maps.Keys(cfg.Plugins)))
		}
	})
}
