package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/check"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// tool is a program that comes with lite, preset to this node. It is reached
// as `lite NAME` and by a link named NAME.
type tool struct {
	name, short string
	run         func(args []string) error
}

var tools = []tool{
	{"kubectl", "Work with the cluster (kubectl, preset to this node)", runKubectl},
	{"crictl", "Inspect the containers of this node (crictl, preset to its runtime)", runCrictl},
	{"ctr", "Inspect the containers of this node (ctr, preset to its containerd)", runCtr},
}

// command leaves every argument to the tool, --help too.
func (t tool) command() *cobra.Command {
	return &cobra.Command{
		Use:                t.name,
		Short:              t.short,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return t.run(args) },
	}
}

// runKubectl returns only if all went well: otherwise kubectl ends the process with
// its own exit code.
func runKubectl(args []string) error {
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	if path := kubeconfig(); path != "" {
		flags.KubeConfig = &path
	}
	// Not with SetArgs: the preferences of kuberc set there what their aliases add,
	// and cobra takes these otherwise.
	os.Args = append([]string{"kubectl"}, args...)
	cmd := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		PluginHandler: kubectl.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     os.Args,
		ConfigFlags:   flags,
		IOStreams:     genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	})
	if err := cli.RunNoErrOutput(cmd); err != nil {
		kubectlutil.CheckErr(err)
	}
	return nil
}

// kubeconfig is what leads kubectl to the cluster of this node, unless the user
// says otherwise or it runs in a pod, which has its service account.
func kubeconfig() string {
	if os.Getenv("KUBECONFIG") != "" {
		return ""
	}
	// On an agent there is one only if a user has brought it.
	path := cmp.Or(configured().WriteKubeconfig, layout.Default().Config.Kubeconfig())
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return ""
	}
	return path
}

// runCrictl becomes crictl, which is among the helpers.
func runCrictl(args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("crictl: needs root to use the container runtime of this node; run it as root")
	}
	cfg := configured()
	path, err := agent.Crictl(cfg.DataDir)
	if err != nil {
		return err
	}
	_, err = os.Stat(crictlConfig)
	preset := append([]string{"crictl"}, crictlPreset(args, agent.Socket(cfg), err == nil)...)
	if err := syscall.Exec(path, append(preset, args...), os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// crictlConfig is where crictl looks for its configuration.
const crictlConfig = "/etc/crictl.yaml"

// crictlPreset is the flags that lead crictl to a socket, as far as the user
// does not say otherwise.
func crictlPreset(args []string, socket string, hasConfig bool) (preset []string) {
	if !mentions(args, "runtime-endpoint", "r") && os.Getenv("CONTAINER_RUNTIME_ENDPOINT") == "" {
		preset = append(preset, "--runtime-endpoint="+socket)
	}
	if !mentions(args, "image-endpoint", "i") && os.Getenv("IMAGE_SERVICE_ENDPOINT") == "" {
		preset = append(preset, "--image-endpoint="+socket)
	}
	// A configuration that is missing is warned of (1.37), an empty one is not;
	// `crictl config` is there to write one.
	if !hasConfig && !mentions(args, "config", "c") && os.Getenv("CRI_CONFIG_FILE") == "" && !slices.Contains(args, "config") {
		preset = append(preset, "--config="+os.DevNull)
	}
	return preset
}

func runCtr(args []string) error {
	preset := []string{"ctr"}
	if !mentions(args, "address", "a") && os.Getenv("CONTAINERD_ADDRESS") == "" {
		preset = append(preset, "--address="+strings.TrimPrefix(agent.Socket(configured()), "unix://"))
	}
	if !mentions(args, "namespace", "n") && os.Getenv("CONTAINERD_NAMESPACE") == "" {
		preset = append(preset, "--namespace=k8s.io")
	}
	err := app.New().Run(context.Background(), append(preset, args...))
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return fmt.Errorf("ctr: %w; run it as root", err)
	case err != nil:
		return fmt.Errorf("ctr: %w", err)
	}
	return nil
}

// mentions reports whether a global flag is given before the subcommand. A word
// that is no flag is the subcommand, or the value of the flag before it; what
// follows two such words is the subcommand's in any case.
func mentions(args []string, long, short string) bool {
	for i, a := range args {
		name, _, _ := strings.Cut(a, "=")
		if name == "--"+long || name == "-"+long || name == "-"+short {
			return true
		}
		if !strings.HasPrefix(a, "-") && (i == 0 || !strings.HasPrefix(args[i-1], "-") || strings.Contains(args[i-1], "=")) {
			return false
		}
	}
	return false
}

// configured is this node's configuration as files and environment say it, or
// the defaults where that cannot be read: a tool should not refuse to look at a
// node because a file of its is wrong.
func configured() *config.Config {
	if n := check.Here(nil, nil); n.Config != nil {
		return n.Config
	}
	standard := layout.Default()
	return &config.Config{DataDir: string(standard.Data), WriteKubeconfig: standard.Config.Kubeconfig()}
}
