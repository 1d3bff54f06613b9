package nodes

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// A hundred pods run on an agent at once, each with an address of its own that
// is reached from other nodes. Nothing of them is left when they are deleted.
func (s *suite) testHundredPods(t *testing.T) {
	const many = 100 // a kubelet takes 110, and there are others already
	agent := s.nodes[1]
	before := held(t, agent)
	cidr, err := netip.ParsePrefix(podCIDR(t, s.cluster, agent))
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	s.ns.Apply(t, fmt.Sprintf(crowd, many, agent.Name))
	s.ns.WaitRollout(t, "deployment/crowd")
	t.Logf("%d pods were ready after %s", many, time.Since(began).Round(100*time.Millisecond))
	if ready := s.ns.Field(t, "deployment/crowd", ".status.readyReplicas"); ready != strconv.Itoa(many) {
		t.Errorf("%s pods are ready", ready)
	}
	owner := map[string]string{} // of an address
	for line := range strings.Lines(s.ns.Kubectl(t, "get", "pods", "-l", "app=crowd", "-o",
		"jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.phase} {.status.podIP}\n{end}")) {
		var name, node, phase, ip string
		if _, err := fmt.Sscan(line, &name, &node, &phase, &ip); err != nil || node != agent.Name || phase != "Running" {
			t.Errorf("a pod is not as it should be: %q, %v", line, err)
		}
		if addr, err := netip.ParseAddr(ip); err != nil || !cidr.Contains(addr) {
			t.Errorf("%s has the address %q, which is not of %s", name, ip, cidr)
		}
		if other, taken := owner[ip]; taken {
			t.Errorf("%s and %s have the address %s", name, other, ip)
		}
		owner[ip] = name
	}
	if len(owner) != many {
		t.Errorf("there are %d addresses", len(owner))
	}
	sample := 0
	for ip, name := range owner {
		if sample++; sample > 20 {
			break
		}
		for _, from := range []pod{s.pods[0], s.pods[2]} {
			reach(t, from.String()+" to "+name, from, "http://"+ip+":8080/name", name+"\n")
		}
	}

	began = time.Now()
	// In the foreground: kubectl would look for one pod after the other.
	s.ns.Kubectl(t, "delete", "deployment", "crowd", "--cascade=foreground", "--timeout=110s")
	if left := s.uids(t, "app=crowd"); len(left) > 0 {
		t.Errorf("%d pods are left", len(left))
	}
	cluster.Eventually(t, 30*time.Second, func() error {
		if after := held(t, agent); after != before {
			return fmt.Errorf("%s holds\n%s\nbefore it was\n%s", agent.Name, after, before)
		}
		return nil
	})
	t.Logf("they were gone after %s", time.Since(began).Round(100*time.Millisecond))
}

// held is what a node holds for its pods: their addresses, the ports of its bridge
// and their network namespaces.
func held(t *testing.T, n *cluster.Node) string {
	t.Helper()
	return n.Output(t, "sh", "-c", "ls /run/lite/cni/lite /sys/class/net/cni0/brif; find /run/lite/containerd -name 'cni-*'")
}

const crowd = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd}
spec:
  replicas: %d
  selector: {matchLabels: {app: crowd}}
  template:
    metadata: {labels: {app: crowd}}
    spec:
      nodeSelector: {kubernetes.io/hostname: %s}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: lite.test/busybox:1
        command: [sh, -c, "hostname >/tmp/name && exec httpd -f -p 8080 -h /tmp"]
        readinessProbe: {httpGet: {path: /name, port: 8080}, periodSeconds: 2}
`
