package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	cnitypes "github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"k8s.io/apimachinery/pkg/util/wait"

	"lite.io/lite/pkg/layout"
)

// attachment is a pod of this node on the pod network, as the container runtime has
// it in the cache of the CNI.
type attachment struct {
	*libcni.NetworkAttachment
	cached *libcni.CNIConfig
	pod    string // namespace and name
	plugin *libcni.PluginConfig
	port   string // the interface that is on the bridge
}

// attachments returns the pods in the cache whose network namespaces exist.
func attachments(cached *libcni.CNIConfig) ([]attachment, error) {
	all, err := cached.GetCachedAttachments("")
	if err != nil {
		return nil, fmt.Errorf("read the cache of the CNI: %w", err)
	}
	var living []attachment
	var errs []error
	for _, a := range all {
		if _, err := os.Stat(a.NetNS); a.Network != layout.Network || err != nil {
			continue
		}
		one, err := readAttachment(cached, a)
		if err != nil {
			errs = append(errs, fmt.Errorf("read the cache of the CNI: container %s: %w", a.ContainerID, err))
			continue
		}
		living = append(living, one)
	}
	return living, errors.Join(errs...)
}

// readAttachment reads one: its side of the bridge, and what the
// plugin for hostPorts got to read.
func readAttachment(cached *libcni.CNIConfig, a *libcni.NetworkAttachment) (attachment, error) {
	one := attachment{NetworkAttachment: a, cached: cached, pod: podOf(a)}
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return one, err
	}
	result, err := cached.GetNetworkListCachedResult(list, &libcni.RuntimeConf{ContainerID: a.ContainerID, NetNS: a.NetNS, IfName: a.IfName})
	if err != nil {
		return one, err
	}
	if result == nil {
		return one, nil // it has just been removed
	}
	now, err := current.NewResultFromResult(result)
	if err != nil {
		return one, err
	}
	for _, i := range now.Interfaces {
		if i.Sandbox == "" && i.Name != layout.Bridge {
			one.port = i.Name
		}
	}
	one.plugin, err = portmapConfig(list, a, result)
	return one, err
}

// portmapConfig is the configuration of the plugin portmap for a pod with hostPorts; nil
// for one without.
func portmapConfig(list *libcni.NetworkConfigList, a *libcni.NetworkAttachment, result cnitypes.Result) (*libcni.PluginConfig, error) {
	const capability = "portMappings"
	ports, ok := a.CapabilityArgs[capability].([]any)
	if !ok || len(ports) == 0 {
		return nil, nil
	}
	for _, plugin := range list.Plugins {
		if plugin.Network.Capabilities[capability] {
			return libcni.InjectConf(plugin, map[string]any{
				"name": list.Name, "cniVersion": list.CNIVersion, "prevResult": result, "runtimeConfig": map[string]any{capability: ports},
			})
		}
	}
	return nil, nil
}

// podOf is the kubelet's name for a pod, otherwise the container's ID.
func podOf(a *libcni.NetworkAttachment) string {
	var namespace, name string
	for _, arg := range a.CniArgs {
		switch arg[0] {
		case "K8S_POD_NAMESPACE":
			namespace = arg[1]
		case "K8S_POD_NAME":
			name = arg[1]
		}
	}
	if name == "" {
		return a.ContainerID
	}
	return namespace + "/" + name
}

// run has the plugin for hostPorts do something for the pod: ADD, CHECK or DEL. Not by
// libcni, which would write down in its cache that this is all the pod has.
func (a attachment) run(ctx context.Context, plugins, command string) error {
	args := &invoke.Args{Command: command, ContainerID: a.ContainerID, NetNS: a.NetNS, IfName: a.IfName, PluginArgs: a.CniArgs, Path: plugins}
	path := filepath.Join(plugins, a.plugin.Network.Type)
	if command == "ADD" {
		_, err := invoke.ExecPluginWithResult(ctx, path, a.plugin.Bytes, args, nil)
		return err
	}
	return invoke.ExecPluginWithoutResult(ctx, path, a.plugin.Bytes, args, nil)
}

// gone reports whether the container runtime has removed the pod from the network.
func (a attachment) gone() bool {
	left, err := a.cached.GetCachedAttachments(a.ContainerID)
	return err == nil && len(left) == 0
}

// removal is how long a pod that is being removed from the network may still be
// known after the plugin took its rules out. It is 50 ms on an idle machine.
const removal = time.Second

// stay returns those of the pods that the container runtime does not remove from the
// network within a time.
func stay(ctx context.Context, pods []attachment, within time.Duration) []attachment {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_ = wait.PollUntilContextCancel(ctx, removal/20, true, func(context.Context) (bool, error) {
		pods = slices.DeleteFunc(pods, attachment.gone)
		return len(pods) == 0, nil
	})
	return pods
}
