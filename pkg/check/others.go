package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/pkg/layout"
)

const (
	networkManagerText = "# Written by `lite check --fix`: the interfaces of pods are lite's.\n" +
		"[keyfile]\nunmanaged-devices+=interface-name:" + layout.Bridge + ";interface-name:" + layout.PodDevices + ";interface-name:" + layout.DevicePrefix + "*\n"
)

// networkManager takes over interfaces that are not configured as unmanaged, with their
// addresses and routes.
func networkManager(_ context.Context, e *Env) []Result {
	if _, runs := e.runs("NetworkManager"); !runs {
		return pass("does not run")
	}
	for _, pattern := range []string{"/etc/NetworkManager/NetworkManager.conf", "/etc/NetworkManager/conf.d/*.conf",
		"/run/NetworkManager/conf.d/*.conf", "/usr/lib/NetworkManager/conf.d/*.conf"} {
		for _, f := range e.glob(pattern) {
			for l := range strings.Lines(e.text(f)) {
				if strings.HasPrefix(l, "unmanaged-devices") && strings.Contains(l, layout.Bridge) && strings.Contains(l, strings.TrimSuffix(layout.PodDevices, "*")) {
					return pass("runs, and leaves the interfaces of pods alone because of " + f)
				}
			}
		}
	}
	networkManagerFile := e.Layout.Host.NetworkManager
	r := warn("runs, and may take over the interfaces of pods ("+layout.Bridge+", "+layout.PodDevices+", "+layout.DevicePrefix+"*)", "configure it to leave them alone, with `lite check --fix` or by hand",
		"printf '"+strings.ReplaceAll(networkManagerText, "\n", `\n`)+"' >"+networkManagerFile, "nmcli general reload")
	r[0].fix = []step{{
		did:  "write " + networkManagerFile + " and have NetworkManager read it",
		undo: e.unwrite(networkManagerFile) + " && { nmcli general reload || true; }", // one that does not run reads it at its start
		do: func(ctx context.Context) error {
			if err := e.write(networkManagerFile, networkManagerText); err != nil {
				return err
			}
			_, err := e.Run(ctx, "", "nmcli", "general", "reload")
			return err
		},
	}}
	return r
}

func selinux(_ context.Context, e *Env) []Result {
	switch e.text("/sys/fs/selinux/enforce") {
	case "1":
		return warn("enforcing, and lite has no policy: it may deny what lite runs",
			"if pods do not start, check `ausearch -m avc`, and make it permissive: `setenforce 0`, and SELINUX=permissive in /etc/selinux/config", "setenforce 0")
	case "0":
		return pass("permissive")
	}
	return pass("not in use")
}

// apparmor: containerd gives containers its profile if it finds the program that
// loads it.
func apparmor(_ context.Context, e *Env) []Result {
	if e.text("/sys/module/apparmor/parameters/enabled") != "Y" {
		return pass("not in use")
	}
	if _, err := e.Find("apparmor_parser"); err != nil {
		return warn("the kernel supports it, but the program apparmor_parser is missing: containers run without a profile", "install the package apparmor")
	}
	return pass("in use, containers get a profile")
}

// distribution is another Kubernetes, or what is left of it.
type distribution struct {
	name       string
	processes  []string
	paths      []string
	interfaces []string
	remedy     string
}

var distributions = []distribution{
	{"k3s", []string{"k3s", "k3s-server", "k3s-agent"},
		[]string{"/var/lib/rancher/k3s", "/etc/rancher/k3s", "/usr/local/bin/k3s", "/etc/systemd/system/k3s*.service", "/etc/init.d/k3s*"}, nil,
		"/usr/local/bin/k3s-uninstall.sh, or k3s-agent-uninstall.sh"},
	{"rke2", []string{"rke2"}, []string{"/var/lib/rancher/rke2", "/etc/rancher/rke2", "/usr/local/bin/rke2", "/usr/local/lib/systemd/system/rke2*.service"}, nil,
		"/usr/local/bin/rke2-uninstall.sh, or /usr/bin/rke2-uninstall.sh"},
	{"k0s", []string{"k0s"}, []string{"/var/lib/k0s", "/etc/k0s", "/etc/systemd/system/k0s*.service"}, []string{"kube-bridge"},
		"`k0s stop`, then `k0s reset`, and reboot"},
	{"MicroK8s", []string{"kubelite"}, []string{"/var/snap/microk8s", "/snap/microk8s"}, nil, "`snap remove --purge microk8s`"},
	{"kubeadm", []string{"kubelet"}, []string{"/etc/kubernetes/manifests/*.yaml", "/etc/kubernetes/*.conf",
		layout.Default().Host.Kubelet + "/kubeadm-flags.env"}, nil,
		"`kubeadm reset`, then stop and disable the unit kubelet"},
	{"KubeSolo", []string{"kubesolo"}, []string{"/var/lib/kubesolo", "/etc/systemd/system/kubesolo.service"}, nil, "stop and disable its unit, and remove /var/lib/kubesolo"},
	{"cri-dockerd", []string{"cri-dockerd"}, []string{"/run/cri-dockerd.sock"}, nil, "stop and disable its unit, if it was there for Kubernetes only"},
	{"flannel", []string{"flanneld"}, []string{"/run/flannel/subnet.env"}, []string{"flannel.1", "flannel-v6.1", "flannel-wg"},
		"reboot, or `ip link delete` its interfaces"},
	{"Calico", []string{"calico-node"}, []string{"/var/lib/calico"}, []string{"vxlan.calico", "cali*", "tunl0"},
		"remove /var/lib/calico and reboot"},
	{"Cilium", []string{"cilium-agent"}, []string{"/var/run/cilium"}, []string{"cilium_host", "cilium_net", "cilium_vxlan"},
		"`cilium-dbg cleanup`, or reboot"},
	{"kube-proxy with IPVS", nil, nil, []string{"kube-ipvs0"}, "`ip link delete kube-ipvs0`, or reboot"},
	{"NodeLocal DNS", nil, nil, []string{"nodelocaldns"}, "`ip link delete nodelocaldns`, or reboot"},
}

// leftovers finds other distributions: one that runs conflicts, what is left of one may be.
func leftovers(ctx context.Context, e *Env) []Result {
	var results []Result
	for _, d := range distributions {
		if e.disabled(addon.CNI) && len(d.interfaces) > 0 {
			continue // it may be the network of this cluster
		}
		runs, traces := e.traces(d)
		switch {
		case runs != "":
			results = append(results, fail(fmt.Sprintf("%s runs here (%s)", d.name, runs), "two Kubernetes cannot share a machine; remove it: "+d.remedy)...)
		case len(traces) > 0:
			results = append(results, warn(fmt.Sprintf("%s has left %s", d.name, strings.Join(traces, ", ")), "remove it: "+d.remedy)...)
		}
	}
	results = append(results, e.strangeShims()...)
	results = append(results, e.strangeChains(ctx)...)
	if docker, ok := e.runs("dockerd"); ok {
		results = append(results, pass(fmt.Sprintf("docker is running (pid %d); lite has its own runtime, and lets its pods through docker's rules", docker.pid))...)
	}
	if len(results) == 0 {
		return pass("no other Kubernetes, and no remains of one")
	}
	return results
}

func (e *Env) traces(d distribution) (runs string, traces []string) {
	for _, name := range d.processes {
		for _, p := range e.processes() {
			if p.name == name {
				return fmt.Sprintf("%s, pid %d", p.name, p.pid), nil
			}
		}
	}
	for _, pattern := range d.paths {
		traces = append(traces, e.glob(pattern)...)
	}
	for _, pattern := range d.interfaces {
		for _, f := range e.glob("/sys/class/net/" + pattern) {
			// tunl0 exists as soon as its module is loaded.
			if name := strings.TrimPrefix(f, "/sys/class/net/"); name != "tunl0" || e.text(f+"/operstate") != "down" {
				traces = append(traces, "interface "+name)
			}
		}
	}
	const few = 4
	if len(traces) > few {
		traces = append(slices.Clone(traces[:few]), "and more")
	}
	return "", traces
}

// strangeShims finds containers that keep running without the Kubernetes that created them:
// they have ports, addresses and volumes.
func (e *Env) strangeShims() []Result {
	if e.Config != nil && e.Config.ContainerRuntimeEndpoint != "" {
		return nil // they are the user's runtime's
	}
	var of string
	count := 0
	for _, p := range e.processes() {
		at := slices.Index(p.args, "-address") + 1
		if !strings.HasPrefix(p.name, "containerd-shim") || !slices.Contains(p.args, "k8s.io") || at == 0 || at == len(p.args) || strings.HasPrefix(p.args[at], string(e.Layout.Run)+"/") {
			continue
		}
		of = p.args[at]
		count++
	}
	if count == 0 {
		return nil
	}
	return warn(fmt.Sprintf("%d pods of another Kubernetes are still running (of the containerd at %s)", count, of), "stop them with its removal script, such as k3s-killall.sh, or reboot")
}

// strangeChains finds rules of another cluster, before lite has made any.
func (e *Env) strangeChains(ctx context.Context) []Result {
	if e.UID != 0 || e.Running.PID != 0 || e.Config == nil || e.exists(layout.Data(e.Config.DataDir).Version()) {
		return nil
	}
	out, err := e.filter(ctx, "iptables", "-w", "5", "-t", "nat", "-S")
	if err != nil {
		return nil
	}
	var chains []string
	for l := range strings.Lines(out) {
		f := strings.Fields(l)
		if len(f) == 2 && f[0] == "-N" && slices.ContainsFunc([]string{layout.KubeChains, layout.CNIChains, "FLANNEL-", "cali-", "CILIUM_"}, func(p string) bool { return strings.HasPrefix(f[1], p) }) {
			chains = append(chains, f[1])
		}
	}
	if len(chains) == 0 {
		return nil
	}
	return warn(fmt.Sprintf("%d iptables chains belong to another cluster, such as %s", len(chains), chains[0]), "reboot: they do not survive that")
}
