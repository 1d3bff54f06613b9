package containerd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
	"lite.io/lite/tests/golden"
)

// nvidiaVersion2 is what nvidia-ctk writes for containerd 1.
const nvidiaVersion2 = `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "nvidia"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
      BinaryName = "/usr/bin/nvidia-container-runtime"
`

func TestDropInsOfOlderVersionsAreTranslated(t *testing.T) {
	for name, test := range map[string]struct{ text, runtimes string }{
		"version 2, of nvidia-ctk": {nvidiaVersion2, "nvidia (default), runc"},
		"version 3":                {strings.NewReplacer("version = 2", "version = 3", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime").Replace(nvidiaVersion2), "nvidia (default), runc"},
		"version 4":                {strings.NewReplacer("version = 2", "version = 4", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime").Replace(nvidiaVersion2), "nvidia (default), runc"},
		"version 1":                {strings.NewReplacer("version = 2", "", "io.containerd.grpc.v1.cri", "cri").Replace(nvidiaVersion2), "nvidia (default), runc"},
		"no version":               {strings.Replace(nvidiaVersion2, "version = 2", "", 1), "nvidia (default), runc"},
		"kata": {`version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata-qemu]
  runtime_type = "io.containerd.kata.v2"
`, "kata-qemu, runc (default)"},
		"nothing of runtimes": {"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  max_container_log_line_size = 5\n", "runc"},
	} {
		t.Run(name, func(t *testing.T) {
			quietly(t)
			c := sample()
			c.Dir = layout.Containerd(t.TempDir())
			put(t, c, "50-test.toml", test.text)
			if err := CheckDropIns(c.Dir); err != nil {
				t.Fatal(err)
			}
			cfg, err := c.load(t.Context(), written(t, c))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := describeRuntimes(cfg), "runs containers by "+test.runtimes; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if !strings.Contains(test.runtimes, "nvidia") {
				return
			}
			// What it needs to be like runc and nobody writes.
			for _, want := range []struct {
				key   string
				value any
			}{{"BinaryName", "/usr/bin/nvidia-container-runtime"}, {"SystemdCgroup", true}, {"Root", "/run/lite/containerd/runc"}} {
				if got := at(t, cfg, criRuntime, "containerd", "runtimes", "nvidia", "options", want.key); got != want.value {
					t.Errorf("%s: got %v", want.key, got)
				}
			}
			if got := at(t, cfg, criRuntime, "containerd", "runtimes", "nvidia", "runtime_path"); got != "/var/lib/lite/bundle/0123/bin/containerd-shim-runc-v2" {
				t.Errorf("the shim is %v", got)
			}
			if got := at(t, cfg, criRuntime, "containerd", "runtimes", "runc", "options", "BinaryName"); got != "/var/lib/lite/bundle/0123/bin/runc" {
				t.Errorf("runc is %v", got)
			}
		})
	}
}

// A file that was made for a machine's own containerd names that one's directories.
func TestDropInKeepsThePodNetwork(t *testing.T) {
	quietly(t)
	c := sample()
	c.Dir = layout.Containerd(t.TempDir())
	put(t, c, "50-whole.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"/etc/cni/net.d\"\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"\"\n")
	if err := CheckDropIns(c.Dir); err != nil {
		t.Fatal(err)
	}
	cfg, err := c.load(t.Context(), written(t, c))
	if err != nil {
		t.Fatal(err)
	}
	dirs, _ := at(t, cfg, criRuntime, "cni", "bin_dirs").([]any)
	if !slices.Equal(dirs, []any{"/var/lib/lite/bundle/0123/cni", "/usr/lib/cni"}) {
		t.Errorf("got %v", dirs)
	}
	if got := at(t, cfg, criRuntime, "cni", "conf_dir"); got != c.CNIConfDir {
		t.Errorf("the network is looked for in %v", got)
	}
	if got := at(t, cfg, criImages, "registry", "config_path"); got != c.Dir.Registries() {
		t.Errorf("registries are looked for in %v", got)
	}
}

func TestDropInsThatCannotBe(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"a newer version":         {"version = 9\n", "version = 9 is newer than this containerd supports; write the file in version 4 or older"},
		"a value for a table":     {"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes]\nkata = 5\n", "containerd cannot translate it: a value has the wrong type"},
		"a value for a runtime":   {"version = 1\n[plugins.cri.containerd]\nruntimes = 'kata'\n", "containerd cannot translate it: a value has the wrong type"},
		"no TOML":                 {"version = 2\n\n[plugins\n", "line 3: "},
		"a byte order mark":       {"\ufeffversion = 2\n", "begins with a byte order mark"},
		"another root":            {"version = 2\nroot = \"/var/lib/containerd\"\n", `root = "/var/lib/containerd": lite expects containerd elsewhere, and this cannot be changed; remove the line`},
		"another state":           {"version = 2\nstate = \"/run/containerd\"\n", "state = "},
		"another socket":          {"version = 2\n[grpc]\naddress = \"/run/containerd/containerd.sock\"\n", "grpc.address = "},
		"another socket, version": {"version = 4\n[plugins.'io.containerd.server.v1.grpc']\naddress = '/x'\n", "plugins.'io.containerd.server.v1.grpc'.address = "},
		"as docker installs it":   {"disabled_plugins = [\"cri\"]\n", `disabled_plugins contains "cri", without which no pod runs; remove it there`},
		"what is not translated":  {"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n", "snapshotter is lost when containerd translates it; write it for version 4: plugins.'io.containerd.cri.v1.images'.snapshotter"},
		"a version that is none":  {"version = -1\n", "version = -1 does not exist; use the version"},
		"version 1 in 2":          {"version = 2\n[plugins.cri.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n", "plugins.cri is the form of version 1, which containerd ignores in a file with version = 2; set version = 1, or write it for version 4"},
		"version 1 in 3":          {"version = 3\n[plugins.cri]\nmax_container_log_line_size = 5\n", "plugins.cri is the form of version 1"},
		"version 2 in 4":          {strings.Replace(nvidiaVersion2, "version = 2", "version = 4", 1), "plugins.'io.containerd.grpc.v1.cri'.containerd is the form of version 2, which containerd ignores in a file with version = 4; set version = 2,"},
		"another network's place": {"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = '/opt/cni'\n", `conf_dir = "/opt/cni" is not where lite configures the pod network; remove the line`},
		"registries elsewhere":    {"version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n", `config_path = "/etc/containerd/certs.d" would make containerd read that directory and not registries.yaml; remove the line`},
		"the same of version 2":   {"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n", "would make containerd read that directory"},
		"without the CRI":         {"version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n", `disabled_plugins contains "io.containerd.grpc.v1.cri"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Dir: layout.Containerd(t.TempDir())}
			file := put(t, c, "50-test.toml", test.text)
			err := CheckDropIns(c.Dir)
			if err == nil || !strings.HasPrefix(err.Error(), "containerd's drop-in "+file+": ") || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "; ") {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := CheckDropIns(layout.Containerd(t.TempDir())); err != nil {
		t.Errorf("none: %v", err)
	}
}

// containerd then asks its own list of credentials, which is made at its start.
func TestDropInsThatHaveContainerdPullByItself(t *testing.T) {
	quietly(t)
	const images = "version = 4\n[plugins.'io.containerd.cri.v1.images']\n"
	for text, want := range map[string]bool{
		"":                                       false,
		images + "max_concurrent_downloads = 3":  false,
		images + "max_concurrent_downloads = 10": true,
		"version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nmax_concurrent_downloads = 10":                            true,
		"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndiscard_unpacked_layers = true\nruntimes = {}": true,
		images + "use_local_image_pull = true":                                                                 true,
		images + "disable_snapshot_annotations = false":                                                        true,
		images + "[plugins.'io.containerd.cri.v1.images'.registry.configs.'a.test'.auth]\nusername = 'theirs'": true,
	} {
		c := sample()
		c.Dir = layout.Containerd(t.TempDir())
		put(t, c, "50-test.toml", text)
		cfg, err := c.load(t.Context(), written(t, c))
		if err != nil {
			t.Fatal(err)
		}
		if got := pullsByItself(cfg); got != want {
			t.Errorf("%s: got %v", text, got)
		}
		parsed(t, "configs: {a.test: {auth: {username: ours, password: p}}, b.test: {auth: {identity_token: t}}}").giveCredentials(cfg)
		user := "ours"
		if strings.Contains(text, "theirs") {
			user = "theirs"
		}
		if got := at(t, cfg, criImages, "registry", "configs", "a.test", "auth", "username"); got != user {
			t.Errorf("%s: got %v", text, got)
		}
		if got := at(t, cfg, criImages, "registry", "configs", "b.test", "auth", "identitytoken"); got != "t" {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func TestRuntimesOnTheMachine(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for path, mode := range map[string]os.FileMode{
		first + "/nvidia-container-runtime": 0o755, second + "/nvidia-container-runtime": 0o755, second + "/nvidia-container-runtime.cdi": 0o755,
		second + "/containerd-shim-spin-v2": 0o755, second + "/crun": 0o644,
	} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(second, "containerd-shim-kata-v2"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := sample()
	runtimes := c.findRuntimes([]string{"", ".", first, second})
	text := strings.NewReplacer(first, "/first", second, "/second").Replace(rendered(t, c, overlayfs, runtimes...))
	golden.Check(t, "config-runtimes", text)
	if got, want := describeRuntimes(loaded(t, text)), "runs containers by nvidia, nvidia-cdi, runc (default), spin"; got != want {
		t.Errorf("got %q", got)
	}
}

// put writes a drop-in.
func put(t *testing.T, c Config, name, text string) string {
	t.Helper()
	dir := filepath.Dir(c.dropIns())
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// written writes the configuration that reads the drop-ins.
func written(t *testing.T, c Config) string {
	t.Helper()
	path := c.Dir.Config()
	if err := os.WriteFile(path, []byte(rendered(t, c, overlayfs)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
