package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"

	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"

	"lite.io/lite/pkg/layout"
)

const (
	criRuntime = "io.containerd.cri.v1.runtime"
	criImages  = "io.containerd.cri.v1.images"
	criService = "io.containerd.grpc.v1.cri"
	runcV2     = "io.containerd.runc.v2"
)

// dropIns is where a user's settings of containerd are.
func (c Config) dropIns() string { return filepath.Join(c.Dir.DropIns(), "*.toml") }

// CheckDropIns finds what in the drop-ins of the containerd whose files are in dir keeps
// it from working, before it is started.
func CheckDropIns(dir layout.Containerd) error {
	files, err := filepath.Glob(Config{Dir: dir}.dropIns())
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		for _, err := range checkDropIn(f) {
			errs = append(errs, fmt.Errorf("containerd's drop-in %s: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

// checkDropIn finds what would break containerd without a word, or lite. containerd
// (2.4) names no file in its errors.
func checkDropIn(file string) (errs []error) {
	data, err := readUsers(file)
	if err != nil {
		return []error{err}
	}
	cfg := &srvconfig.Config{}
	if err := toml.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), cfg); err != nil {
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := at.Position()
			err = fmt.Errorf("line %d: %w", line, err)
		}
		return []error{fmt.Errorf("%w; correct the TOML", err)}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		errs = append(errs, errors.New("begins with a byte order mark, which containerd does not read; save it without"))
	}
	if cfg.Version < 0 {
		// containerd's translation ends the process (2.4).
		return append(errs, fmt.Errorf("version = %d does not exist; use the version in which the file is written, up to %d", cfg.Version, version.ConfigVersion))
	}
	if cfg.Version > version.ConfigVersion {
		errs = append(errs, fmt.Errorf("version = %d is newer than this containerd supports; write the file in version %d or older", cfg.Version, version.ConfigVersion))
	}
	for _, own := range []struct{ key, value string }{
		//nolint:staticcheck // older files have these fields, for which there is no other name
		{"root", cfg.Root}, {"state", cfg.State}, {"grpc.address", cfg.GRPC.Address}, {"ttrpc.address", cfg.TTRPC.Address},
		{"plugins.'io.containerd.server.v1.grpc'.address", text(cfg.Plugins, "io.containerd.server.v1.grpc", "address")},
		{"plugins.'io.containerd.server.v1.ttrpc'.address", text(cfg.Plugins, "io.containerd.server.v1.ttrpc", "address")},
	} {
		if own.value != "" {
			errs = append(errs, fmt.Errorf("%s = %q: lite expects containerd elsewhere, and this cannot be changed; remove the line", own.key, own.value))
		}
	}
	errs = append(errs, misplaced(cfg)...)
	errs = append(errs, directories(cfg)...)
	// containerd (2.4) moves these only together with runtimes.
	if old := table(cfg.Plugins, criService, "containerd"); old["runtimes"] == nil {
		for _, key := range []string{"snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"} {
			if _, ok := old[key]; ok {
				errs = append(errs, fmt.Errorf("%s is lost when containerd translates it; write it for version 4: plugins.'%s'.%[1]s", key, criImages))
			}
		}
	}
	for _, p := range cfg.DisabledPlugins {
		if slices.Contains([]string{"cri", criService, criRuntime, criImages, ourTransfer}, p) {
			errs = append(errs, fmt.Errorf("disabled_plugins contains %q, without which no pod runs; remove it there", p))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if err := translate(cfg); err != nil { // which changes it
		errs = append(errs, err)
	}
	return errs
}

// translate brings a drop-in to the newest version, as containerd does when it reads it.
func translate(cfg *srvconfig.Config) error {
	return withoutPanic(func() error {
		for v := cfg.Version; v < version.ConfigVersion; v++ {
			if err := cfg.MigrateConfigTo(context.Background(), v+1); err != nil {
				return err
			}
			for _, p := range registry.Graph(nil) {
				if p.ConfigMigration == nil {
					continue
				}
				if err := p.ConfigMigration(context.Background(), v, cfg.Plugins); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// withoutPanic makes an error of what a value of another type than it should have does
// to containerd's translation (2.4): it would end the process.
func withoutPanic(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("containerd cannot translate it: a value has the wrong type (%v); compare it with containerd's documentation", p)
		}
	}()
	return work()
}

// servedByCRI is all that version 4 sets for the CRI service itself.
var servedByCRI = []string{
	"disable_tcp_service", "stream_server_address", "stream_server_port", "stream_idle_timeout", "enable_tls_streaming",
	"x509_key_pair_streaming",
}

// misplaced is what containerd (2.4) would pass over, because it is written in the
// form of an older version than that of the file.
func misplaced(cfg *srvconfig.Config) (errs []error) {
	passed := func(what string, written int) {
		errs = append(errs, fmt.Errorf("%s is the form of version %d, which containerd ignores in a file with version = %d; set version = %d, or write it for version %d",
			what, written, cfg.Version, written, version.ConfigVersion))
	}
	if _, ok := cfg.Plugins["cri"]; ok && cfg.Version > 1 {
		passed("plugins.cri", 1)
	}
	for _, key := range slices.Sorted(maps.Keys(table(cfg.Plugins, criService))) {
		if cfg.Version == version.ConfigVersion && !slices.Contains(servedByCRI, key) {
			passed("plugins.'"+criService+"'."+key, 2)
		}
	}
	return errs
}

// usualConfDir is where other programs put descriptions of networks; a file that was
// made for a containerd of the machine's may name it.
var usualConfDir = layout.Default().Host.CNIConf

// directories refuses to have containerd look elsewhere than where lite writes.
func directories(cfg *srvconfig.Config) (errs []error) {
	for _, plugin := range []string{"cri", criService, criRuntime, criImages} {
		if dir := text(table(cfg.Plugins, plugin), "cni", "conf_dir"); dir != "" && dir != usualConfDir {
			errs = append(errs, fmt.Errorf("conf_dir = %q is not where lite configures the pod network; remove the line, or configure your network plugin to write to %s", dir, usualConfDir))
		}
		if dir := text(table(cfg.Plugins, plugin), "registry", "config_path"); dir != "" {
			errs = append(errs, fmt.Errorf("config_path = %q would make containerd read that directory and not registries.yaml; remove the line, and move its settings to registries.yaml", dir))
		}
	}
	return errs
}

// load reads the configuration with its drop-ins. Those of older versions, as
// nvidia-ctk and other installers write them, are translated by containerd's own
// rules: without these it ignores what has moved since.
func (c Config) load(ctx context.Context, path string) (*srvconfig.Config, error) {
	cfg := &srvconfig.Config{}
	rules := func() iter.Seq[plugin.Registration] { return slices.Values(registry.Graph(nil)) }
	if err := withoutPanic(func() error { return srvconfig.LoadConfigWithPlugins(ctx, path, rules, cfg) }); err != nil {
		return nil, fmt.Errorf("load %s and %s: %w", path, c.dropIns(), err)
	}
	c.complete(table(cfg.Plugins, criRuntime, "containerd", "runtimes"))
	if cni := table(cfg.Plugins, criRuntime, "cni"); cni != nil {
		// A file for another machine names directories of that one.
		cni["bin_dirs"] = withFirst(c.Helpers.CNI(), cni["bin_dirs"])
		cni["conf_dir"] = c.CNIConfDir
	}
	if registry := table(cfg.Plugins, criImages, "registry"); registry["config_path"] == "" {
		registry["config_path"] = c.Dir.Registries()
	}
	if settings, ok := cfg.Plugins[theirTransfer]; ok {
		cfg.Plugins[ourTransfer] = settings
	}
	return cfg, nil
}

// complete adds the settings of runc to the user's runtimes that are like runc: the same
// cgroup driver as the kubelet's, and a state that a reboot clears.
func (c Config) complete(runtimes map[string]any) {
	for name, r := range runtimes {
		r, ok := r.(map[string]any)
		if !ok || r["runtime_type"] != runcV2 {
			continue
		}
		options, ok := r["options"].(map[string]any)
		if !ok {
			options = map[string]any{}
			r["options"] = options
		}
		binary, _ := options["BinaryName"].(string)
		setDefault(r, "runtime_path", c.Helpers.Shim())
		setDefault(options, "SystemdCgroup", c.SystemdCgroup)
		setDefault(options, "Root", c.stateOf(name, binary))
	}
}

// setDefault sets what is missing or empty.
func setDefault(table map[string]any, key string, value any) {
	if now, ok := table[key]; !ok || now == "" {
		table[key] = value
	}
}

// withFirst is a list of texts with one at its beginning.
func withFirst(first string, list any) []any {
	all := []any{first}
	switch list := list.(type) {
	case []any:
		all = append(all, list...)
	case []string:
		for _, l := range list {
			all = append(all, l)
		}
	}
	if i := slices.Index(all[1:], any(first)); i >= 0 {
		all = slices.Delete(all, i+1, i+2)
	}
	return all
}

// pullsByItself reports whether a drop-in has containerd (2.4) pull in its older way,
// past our plugin: it does so for settings that the newer one does not know.
func pullsByItself(cfg *srvconfig.Config) bool {
	images := table(cfg.Plugins, criImages)
	registry := table(images, "registry")
	for _, key := range []string{"mirrors", "configs", "auths"} {
		if len(table(registry, key)) > 0 {
			return true
		}
	}
	if n, ok := images["max_concurrent_downloads"]; ok && n != int64(3) {
		return true
	}
	return images["use_local_image_pull"] == true || images["discard_unpacked_layers"] == true ||
		images["image_pull_with_sync_fs"] == true || images["disable_snapshot_annotations"] == false
}

// giveCredentials writes all credentials into the configuration, permanently.
func (r *registries) giveCredentials(cfg *srvconfig.Config) {
	images := table(cfg.Plugins, criImages)
	registry := table(images, "registry")
	configs := table(registry, "configs")
	if configs == nil {
		configs = map[string]any{}
		registry["configs"] = configs
	}
	for _, host := range r.hosts() {
		user, secret := r.credentialsFor(host).userAndSecret()
		auth := map[string]any{"username": user, "password": secret}
		if user == "" {
			auth = map[string]any{"identitytoken": secret}
		}
		if _, theirs := configs[host]; !theirs {
			configs[host] = map[string]any{"auth": auth}
		}
	}
}

// table is the table at some keys below another, nil if there is none.
func table(in map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		in, _ = in[k].(map[string]any)
	}
	return in
}

// text is the text at some keys, "" if there is none.
func text(in map[string]any, plugin, key string) string {
	s, _ := table(in, plugin)[key].(string)
	return s
}

// executable reports whether a file exists and can be run.
func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
