package options

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/addon"
	"lite.io/lite/tests/harness/cluster"
)

// network is the description of a pod network that a user brings.
const network = `{
  "cniVersion": "1.0.0", "name": "theirs",
  "plugins": [{
    "type": "bridge", "bridge": "theirs0", "isDefaultGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}
  }]
}`

// TestNoNetwork leaves out what the user brings: the pod network and
// kube-proxy. All else is ready, the node only once there is a network.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.Launch(t, "--disable=kube-proxy,cni")
	eventually(t, func() error { return lacksOnlyNetwork(t, n) })
	n.Kubectl(t, "get", "--raw", "/readyz")
	hasNothingOfNetwork(t, n)

	// What brings a network runs on the host's, before there is one.
	n.KubectlStdin(t, `
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: kube-system}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
  - {name: main, image: lite.test/busybox:1, command: [sleep, "100000"]}
`, "apply", "-f", "-")
	n.Kubectl(t, "wait", "--timeout=40s", "--for=condition=Ready", "pod/agent", "--namespace=kube-system")
	n.Stop(t)
	hasNothingOfNetwork(t, n)

	n.Launch(t, "--disable=kube-proxy,cni")
	eventually(t, func() error { return lacksOnlyNetwork(t, n) })
	n.WriteFile(t, "/etc/cni/net.d/10-theirs.conflist", network)
	n.WaitReady(t)
	n.Kubectl(t, "run", "hello", "--image=lite.test/busybox:1", "--", "sleep", "100000")
	n.Kubectl(t, "wait", "--timeout=40s", "--for=condition=Ready", "pod/hello")
	if ip := n.Kubectl(t, "get", "pod/hello", "-o", "jsonpath={.status.podIP}"); !strings.HasPrefix(ip, "10.77.0.") {
		t.Errorf("the pod's address is %s, not of the user's network", ip)
	}
	hasNothingOfNetwork(t, n)
	n.Stop(t)
}

// lacksOnlyNetwork wants the node to be all that is not ready, for want of a
// network.
func lacksOnlyNetwork(t *testing.T, n *cluster.Node) error {
	out, err := n.Command(t.Context(), "lite", "status", "-o", "json").Output()
	if err == nil {
		return errors.New("lite status finds the node ready")
	}
	var status struct {
		Components []struct{ Name, State, Reason string }
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return fmt.Errorf("lite status: %w: %s", err, out)
	}
	var names []string
	for _, c := range status.Components {
		names = append(names, c.Name)
		switch {
		case c.Name == "node" && !strings.Contains(c.Reason, "cni plugin not initialized"):
			return fmt.Errorf("node: %s: %s", c.State, c.Reason)
		case c.Name != "node" && c.State != "ready":
			return fmt.Errorf("%s: %s: %s", c.Name, c.State, c.Reason)
		}
	}
	for _, left := range slices.Concat(addon.Of(addon.CNI).Node, addon.Of(addon.KubeProxy).Node) {
		if slices.Contains(names, left) {
			t.Fatalf("%s is among %v", left, names)
		}
	}
	return nil
}

// hasNothingOfNetwork wants no bridge, no rule and no table of what was left
// out. The kubelet makes a few chains of its own.
func hasNothingOfNetwork(t *testing.T, n *cluster.Node) {
	t.Helper()
	rules := n.Output(t, "nft", "list", "ruleset")
	if found := regexp.MustCompile(`LITE-\w+|KUBE-SERVICES|KUBE-NODEPORTS|table \w+ kube-proxy|CNI-\w+`).FindString(rules); found != "" {
		t.Errorf("%s is among the rules", found)
	}
	if links := n.Output(t, "ip", "-o", "link"); strings.Contains(links, "cni0") {
		t.Errorf("there is a bridge:\n%s", links)
	}
}

// TestNetworkSwitchedOff leaves the pod network out on a node that has had it:
// the node waits for the user's, and does not go on with the old one, nor is it
// said any more how other nodes reach its pods.
func TestNetworkSwitchedOff(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.Start(t)
	n.Stop(t)
	n.Launch(t, "--disable=kube-proxy,cni")
	eventually(t, func() error { return lacksOnlyNetwork(t, n) })
	n.WriteFile(t, "/etc/cni/net.d/10-theirs.conflist", network)
	n.WaitReady(t)
	ours := addon.Of(addon.CNI)
	ours.Ports = nil // the kernel's, of a device that stays as long as pods may use it
	eventually(t, func() error {
		return errors.Join(has(t, n, ours), has(t, n, addon.Of(addon.KubeProxy)), has(t, n, addon.Of(addon.NetworkPolicy)))
	})
	n.Stop(t)

	n.Start(t) // and on again
	if annotations := n.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.annotations}"); !strings.Contains(annotations, addon.Of(addon.CNI).Marks[0]) {
		t.Errorf("the node does not say how its pods are reached: %s", annotations)
	}
	n.Kubectl(t, "run", "hello", "--image=lite.test/busybox:1", "--", "sleep", "100000")
	n.Kubectl(t, "wait", "--timeout=40s", "--for=condition=Ready", "pod/hello")
}
