package containerd

import (
	"fmt"
	"strings"
	"text/template"

	"lite.io/lite/pkg/layout"
)

// Config is the configuration of containerd.
type Config struct {
	DataDir      string               // where the helpers are unpacked
	Dir          layout.Containerd    // <data-dir>/agent/containerd: images and snapshots
	StateDir     layout.RunContainerd // on a tmpfs: what is worth nothing after a reboot
	TempDir      string               // where images are mounted to be looked into
	Helpers      layout.Helpers       // runc, the shim and the pod network plugins, once they are unpacked
	CNIConfDir   string               // where package cni puts the network's description
	RegistryFile string               // registries.yaml; it need not exist
	// SystemdCgroup makes runc create cgroups through systemd. It must be what
	// kubelet does.
	SystemdCgroup bool
	// RestrictOOMScore is for processes that may not lower oom_score_adj.
	RestrictOOMScore bool
}

// Socket is the path of containerd's socket; its CRI is served there too.
func (c Config) Socket() string { return c.StateDir.Socket() }

// configTOML is containerd's configuration, version 4 (containerd 2.4). Each
// path that would by default be outside our directories is named.
var configTOML = template.Must(template.New("config.toml").Parse(`# Written by lite at each start. Put changes into {{.DropIns}}.
version = 4
root = '{{.Dir.Root}}'
state = '{{.StateDir.State}}'
imports = ['{{.DropIns}}']
# Both register gRPC metrics in the process's one registry, where etcd has them.
# The third is replaced by one that knows registries.yaml.
disabled_plugins = ['io.containerd.metrics.v1.grpc-prometheus', 'io.containerd.metrics.v1.grpc-otel', '{{.TheirTransfer}}']
# Where one of these fails, lite is to say so rather than to wait for it.
required_plugins = ['io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri']

[plugins.'io.containerd.server.v1.grpc']
  address = '{{.Socket}}'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '{{.Socket}}.ttrpc'
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = '{{.StateDir.Shims}}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{{.Dir.Opt}}'

[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = '127.0.0.1'
  stream_server_port = '{{.StreamPort}}'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{{.Snapshotter}}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{{.Pause}}'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{{.RegistryDir}}'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {{.RestrictOOMScore}}
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{{.Helpers.CNI}}', '{{.CNIPlugins}}']
    conf_dir = '{{.CNIConfDir}}'
    use_internal_loopback = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    runtime_path = '{{.Helpers.Shim}}'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{{.Helpers.Bin}}/runc'
      Root = '{{.StateDir.Runc}}'
      SystemdCgroup = {{.SystemdCgroup}}
{{- range .Runtimes}}
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{{.Name}}]
    runtime_type = '{{.Type}}'
    runtime_path = {{.Shim}}
{{- if .Binary}}
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{{.Name}}.options]
      BinaryName = {{.Binary}}
      Root = {{.Root}}
      SystemdCgroup = {{$.SystemdCgroup}}
{{- end}}
{{- end}}
`))

// toml renders the configuration.
func (c Config) toml(snapshotter string, runtimes []found) (string, error) {
	data := struct {
		Config
		Snapshotter, Pause, RegistryDir, DropIns, TheirTransfer, CNIPlugins string
		StreamPort                                                          int
		Runtimes                                                            []found
	}{c, snapshotter, layout.PauseImage, c.Dir.Registries(), c.dropIns(), theirTransfer, layout.Default().Host.CNIPlugins,
		layout.StreamPort, runtimes}
	var b strings.Builder
	if err := configTOML.Execute(&b, data); err != nil {
		return "", fmt.Errorf("render containerd's configuration: %w", err)
	}
	return b.String(), nil
}
