package containerd

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"go.yaml.in/yaml/v3"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/golden"
)

func sample() Config {
	return Config{
		DataDir:       "/var/lib/lite",
		Dir:           "/var/lib/lite/agent/containerd",
		StateDir:      "/run/lite/containerd",
		Helpers:       "/var/lib/lite/bundle/0123",
		CNIConfDir:    "/var/lib/lite/agent/cni",
		SystemdCgroup: true,
	}
}

func rendered(t *testing.T, c Config, snapshotter string, runtimes ...found) string {
	t.Helper()
	text, err := c.toml(snapshotter, runtimes)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestConfiguration(t *testing.T) {
	golden.Check(t, "config", rendered(t, sample(), overlayfs))
	c := sample()
	c.SystemdCgroup, c.RestrictOOMScore = false, true
	golden.Check(t, "config-limited", rendered(t, c, native))
}

// loaded is a configuration as containerd itself reads it.
func loaded(t *testing.T, text string) *srvconfig.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &srvconfig.Config{}
	if err := srvconfig.LoadConfig(t.Context(), path, cfg); err != nil {
		t.Fatalf("containerd refuses it: %v\n%s", err, text)
	}
	return cfg
}

// at walks into the tables of a plugin's configuration.
func at(t *testing.T, cfg *srvconfig.Config, plugin string, keys ...string) any {
	t.Helper()
	value := cfg.Plugins[plugin]
	for _, k := range keys {
		table, ok := value.(map[string]any)
		if !ok {
			t.Fatalf("%s %q: no table but %v", plugin, keys, value)
		}
		value = table[k]
	}
	return value
}

func TestContainerdReadsWhatWeWrite(t *testing.T) {
	for _, snapshotter := range []string{overlayfs, fuseOverlayfs, native} {
		cfg := loaded(t, rendered(t, sample(), snapshotter))
		if cfg.Version != 4 || cfg.Root != "/var/lib/lite/agent/containerd/root" || cfg.State != "/run/lite/containerd/state" {
			t.Errorf("got %+v", cfg)
		}
		const images, runtime = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
		for _, test := range []struct {
			got, want any
		}{
			{at(t, cfg, images, "snapshotter"), snapshotter},
			{at(t, cfg, images, "registry", "config_path"), "/var/lib/lite/agent/containerd/registries"},
			{at(t, cfg, runtime, "cni", "conf_dir"), "/var/lib/lite/agent/cni"},
			{at(t, cfg, runtime, "containerd", "runtimes", "runc", "options", "SystemdCgroup"), true},
			{at(t, cfg, runtime, "containerd", "runtimes", "runc", "options", "BinaryName"), "/var/lib/lite/bundle/0123/bin/runc"},
			{at(t, cfg, "io.containerd.server.v1.grpc", "address"), sample().Socket()},
		} {
			if test.got != test.want {
				t.Errorf("%s: got %v, want %v", snapshotter, test.got, test.want)
			}
		}
	}
}

// Whatever a password is made of arrives at containerd as it was written.
func TestPasswordsArriveWhole(t *testing.T) {
	for name, password := range map[string]string{
		"plain":            "hunter2",
		"empty":            "",
		"double quotes":    `a"b"`,
		"single quotes":    `a'b'`,
		"triple quotes":    `'''"""`,
		"backslashes":      `a\b\\n`,
		"newline":          "a\nb\r\n",
		"tab":              "a\tb",
		"accents":          "pässwörd",
		"other planes":     "🔑𝒳",
		"invisible":        "a\u200bb\ufeff\u2028c",
		"private use":      "\U000f0000",
		"TOML":             "\"\n[plugins]\nx = \"",
		"template":         "{{.Dir}} %s $HOME",
		"comment":          "a # b",
		"bell":             "a\ab",
		"vertical tab":     "a\vb",
		"escape":           "a\x1bb",
		"null":             "a\x00b",
		"delete":           "a\x7fb",
		"a C1 control":     "a\u0085b",
		"line of brackets": "]]",
	} {
		t.Run(name, func(t *testing.T) {
			const host, other = "registry.example.test:5000", "other.example.test"
			text, err := yaml.Marshal(map[string]any{"configs": map[string]any{
				host:  map[string]any{"auth": map[string]any{"username": "u" + password, "password": password}},
				other: map[string]any{"auth": map[string]any{"identity_token": password}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			r := parsed(t, string(text))
			if user, secret := r.credentialsFor(host).userAndSecret(); user != "u"+password || secret != password {
				t.Errorf("got %q, %q", user, secret)
			}
			if user, secret := r.credentialsFor(other).userAndSecret(); user != "" || secret != password {
				t.Errorf("got %q, %q", user, secret)
			}
		})
	}
}

func TestConfigurationWithPasswordsIsForRootAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(file, []byte("mirrors: {docker.io: {endpoint: [mirror.example.test]}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Dir: layout.Containerd(filepath.Join(dir, "c")), StateDir: layout.RunContainerd(filepath.Join(dir, "r", "s")), CNIConfDir: filepath.Join(dir, "n"), RegistryFile: file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.registries.load(); err != nil {
		t.Fatal(err)
	}
	path, err := c.writeConfig()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// Of what a reboot clears, three directories let others through.
		want := fs.FileMode(0)
		if rel, _ := filepath.Rel(dir, path); rel == "r" || rel == "r/s" || rel == "r/s/state" {
			want = 0o011
		}
		if got := info.Mode().Perm() & 0o077; got != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	loaded(t, string(data))
	if c.Name() != "containerd" {
		t.Errorf("got %s", c.Name())
	}
	if err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer yet") {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotterIsProbedWithoutLeavings(t *testing.T) {
	dir := t.TempDir()
	snapshotter, reason := probe(dir)
	if (snapshotter == overlayfs) != (reason == nil) {
		t.Errorf("got %s because %v", snapshotter, reason)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if s, reason := probe(filepath.Join(dir, "none")); s == overlayfs || reason == nil {
		t.Errorf("a directory that is missing: got %s, %v", s, reason)
	}
}
