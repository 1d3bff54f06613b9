package nodes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// testPlacing spreads pods by anti-affinity, and keeps them from a node by taints.
func (s *suite) testPlacing(t *testing.T) {
	server, tainted := s.cluster.Server(), s.nodes[1]
	ns := server.Namespace(t)
	ns.Apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: apart}
spec:
  replicas: 3
  selector: {matchLabels: {app: apart}}
  template:
    metadata: {labels: {app: apart}}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {labelSelector: {matchLabels: {app: apart}}, topologyKey: kubernetes.io/hostname}
      containers: [{name: wait, image: "lite.test/busybox:1", command: [sleep, "3600"]}]
`)
	ns.WaitRollout(t, "deployment/apart")
	where := func() []string {
		return strings.Fields(ns.Kubectl(t, "get", "pods", "-l", "app=apart", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].spec.nodeName}"))
	}
	var all []string
	for _, n := range s.nodes {
		all = append(all, n.Name)
	}
	if got := slices.Sorted(slices.Values(where())); !slices.Equal(got, slices.Sorted(slices.Values(all))) {
		t.Errorf("the pods are on %q, want one on each of %q", got, all)
	}

	// A fourth has no place, and neither has the one that a taint drives away.
	ns.Kubectl(t, "scale", "deployment/apart", "--replicas=4")
	ns.WaitFor(t, "condition=PodScheduled=false", "pod", "-l", "app=apart", "--field-selector=status.phase=Pending")
	taint := func(change string) { server.Kubectl(t, "taint", "node", tainted.Name, change) }
	taint("lite.test/away=:NoExecute")
	t.Cleanup(func() { _, _ = server.KubectlErr(t, "taint", "node", tainted.Name, "lite.test/away-") })
	cluster.Eventually(t, 30*time.Second, func() error {
		if got := where(); len(got) != 2 || slices.Contains(got, tainted.Name) {
			return fmt.Errorf("the pods are on %q, want two and none on %s", got, tainted.Name)
		}
		return nil
	})
	taint("lite.test/away-")
	cluster.Eventually(t, 30*time.Second, func() error {
		if got := where(); len(got) != 3 || !slices.Contains(got, tainted.Name) {
			return fmt.Errorf("the pods are on %q, want one on %s again", got, tainted.Name)
		}
		return nil
	})
	// The pods of the other tests were driven away as well.
	for _, set := range []string{"daemonset/web", "daemonset/host"} {
		s.ns.WaitRollout(t, set)
	}
}
