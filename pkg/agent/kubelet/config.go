package kubelet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubelet/config/v1beta1"

	"lite.io/lite/pkg/kube"
)

// podPidsLimit is what OpenShift has: large databases and virtual machines of Java
// stay below it, and several such pods fit into the kernel's default of 32768.
const podPidsLimit = 4096

// configuration is the kubelet's configuration as far as it differs from
// upstream's defaults.
func configuration(c Config) (*v1beta1.KubeletConfiguration, error) {
	taints, err := parseTaints(c.Taints)
	if err != nil {
		return nil, err
	}
	no, yes := false, true
	podPids := int64(podPidsLimit)
	k := &v1beta1.KubeletConfiguration{
		Address:                  unspecified(c.NodeIP),
		CgroupDriver:             "cgroupfs",
		ClusterDomain:            c.ClusterDomain,
		ContainerRuntimeEndpoint: c.Runtime,
		HealthzBindAddress:       "127.0.0.1",
		RegisterWithTaints:       taints,
		ResolverConfig:           &c.ResolvConf,
		TLSCertFile:              c.CertFile,
		TLSPrivateKeyFile:        c.KeyFile,
		VolumePluginDir:          c.Dir.FlexVolumes(),

		// A machine with swap is no reason not to start; pods don't use it.
		FailSwapOn: &no,
		// Machines that boot with cgroup v1 are served as long as upstream can.
		FailCgroupV1: &no,

		// The system calls of a pod without a seccomp profile, and its limit of processes
		// and threads: a fork bomb does not take down the node.
		SeccompDefault: &yes,
		PodPidsLimit:   &podPids,

		TLSCipherSuites: kube.CipherSuites(),
		TLSMinVersion:   kube.MinTLSVersion,

		ProtectKernelDefaults: c.Protect,
	}
	if c.CertFile == "" {
		k.RotateCertificates, k.ServerTLSBootstrap = true, true
	}
	if c.Systemd {
		k.CgroupDriver = "systemd"
	}
	if c.ClusterDNS.IsValid() {
		k.ClusterDNS = []string{c.ClusterDNS.String()}
	}
	k.Authentication.Anonymous.Enabled = &no
	k.Authentication.Webhook.Enabled = &yes
	k.Authentication.X509.ClientCAFile = c.CAFile
	k.Authorization.Mode = v1beta1.KubeletAuthorizationModeWebhook
	return k, nil
}

// unspecified is all addresses of the node's families: servers try each of them to find
// out whether it is the node's.
func unspecified(nodeIP []netip.Addr) string {
	if slices.ContainsFunc(nodeIP, netip.Addr.Is6) {
		return "::" // a socket of Go's, which accepts IPv4 as well
	}
	return "0.0.0.0"
}

// parseTaints reads key=value:Effect and key:Effect.
func parseTaints(texts []string) ([]v1.Taint, error) {
	var taints []v1.Taint
	for _, text := range texts {
		i := strings.LastIndex(text, ":")
		if i < 0 {
			return nil, fmt.Errorf("node-taint %q: must be key=value:Effect", text)
		}
		key, value, _ := strings.Cut(text[:i], "=")
		taints = append(taints, v1.Taint{Key: key, Value: value, Effect: v1.TaintEffect(text[i+1:])})
	}
	return taints, nil
}
