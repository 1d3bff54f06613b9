package nodes

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// cutFor is for how long a node may be cut off and come back by itself: that is
// what is promised, so here a test waits for the clock.
const cutFor = 90 * time.Second

// TestCutLink cuts the cable of an agent, lets the cluster give it up, and heals
// it. Pods that may not wait for it are made anew elsewhere, and leave nothing
// behind where they were; all others stay as they are.
func TestCutLink(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(2))
	cut, refuge := c.Agents[0], c.Agents[1]
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	c.Server().Kubectl(t, "cordon", refuge.Name)
	c.Server().Kubectl(t, "cordon", c.Server().Name)
	s.ns.Apply(t, daemonSet+tolerant("patient", "")+tolerant("impatient", ", tolerationSeconds: 20"))
	for _, workload := range []string{"daemonset/web", "deployment/patient", "deployment/impatient"} {
		s.ns.WaitRollout(t, workload)
	}
	c.Server().Kubectl(t, "uncordon", refuge.Name)
	s.findPods(t)
	kept, evicted := s.containers(t), s.uids(t, "app=impatient")
	if len(evicted) != 2 || s.onNodes(t, "app=impatient") != cut.Name+" "+cut.Name {
		t.Fatalf("impatient pods are %v on %s", evicted, s.onNodes(t, "app=impatient"))
	}

	c.Network.Cut(t, cut.Host)
	began := time.Now()
	s.ns.Node.Kubectl(t, "wait", "--timeout=80s", "--for=condition=Ready=Unknown", "node/"+cut.Name)
	t.Logf("not ready after %s", time.Since(began).Round(time.Second))
	cluster.Eventually(t, 60*time.Second, func() error {
		if got := s.onNodes(t, "app=impatient", "--field-selector=status.phase=Running,spec.nodeName="+refuge.Name); got != refuge.Name+" "+refuge.Name {
			return fmt.Errorf("impatient pods run on %q, want two on %s", got, refuge.Name)
		}
		return nil
	})
	t.Logf("replaced after %s", time.Since(began).Round(time.Second))
	if _, err := cut.Command(t.Context(), "lite", "status").Output(); err == nil {
		t.Error("lite status on the agent does not tell")
	}
	if got, err := cluster.Get(cut, "http://"+s.pods[1].IP+":8080/hostname"); err != nil || got != s.pods[1].name {
		t.Errorf("the pod on the agent: %q, %v", got, err)
	}
	if err := nothingOf(t, cut, evicted); err == nil {
		t.Error("the agent has ended pods, though nobody could tell it to")
	}
	time.Sleep(time.Until(began.Add(cutFor)))
	c.Network.Heal(t, cut.Host)

	healed := time.Now()
	cluster.Eventually(t, 40*time.Second, func() error { return s.nodesReady(t) })
	t.Logf("ready %s after it was healed", time.Since(healed).Round(time.Second))
	cluster.Eventually(t, 40*time.Second, func() error {
		if got := s.onNodes(t, "app=impatient"); got != refuge.Name+" "+refuge.Name {
			return fmt.Errorf("impatient pods are on %s, want two on %s", got, refuge.Name)
		}
		return nothingOf(t, cut, evicted)
	})
	s.ns.WaitRollout(t, "deployment/patient")
	if after := s.containers(t); after != kept {
		t.Errorf("the pods that stay are\n%s\nthey were\n%s", after, kept)
	}
	if all := s.uids(t, ""); len(all) != 3+2+2 {
		t.Errorf("there are %d pods", len(all))
	}
	s.testPodToPod(t)
	for _, p := range s.pods {
		reach(t, p.String()+" to the Service of the pods that stayed", p, "http://"+s.ns.Field(t, "service/patient", ".spec.clusterIP")+"/hostname", "")
	}
	cluster.Eventually(t, 20*time.Second, func() error {
		out, err := cut.Command(t.Context(), "lite", "status").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// nothingOf asks the container runtime of a node for what is left of pods.
func nothingOf(t *testing.T, n *cluster.Node, uids []string) error {
	t.Helper()
	var errs []error
	for _, uid := range uids {
		label := "io.kubernetes.pod.uid=" + uid
		// What a sandbox was is kept for a minute after it has ended.
		left := n.Output(t, "lite", "crictl", "ps", "-a", "-q", "--label", label) +
			n.Output(t, "lite", "crictl", "pods", "-q", "--state", "ready", "--label", label)
		if left != "" {
			errs = append(errs, fmt.Errorf("of pod %s %s still has %s", uid, n.Name, strings.Fields(left)))
		}
	}
	return errors.Join(errs...)
}

// uids returns those of the pods with a label.
func (s *suite) uids(t *testing.T, label string) []string {
	t.Helper()
	return strings.Fields(s.ns.Kubectl(t, "get", "pods", "-l", label, "-o", "jsonpath={.items[*].metadata.uid}"))
}

// onNodes lists the nodes of the pods with a label.
func (s *suite) onNodes(t *testing.T, label string, args ...string) string {
	t.Helper()
	return s.ns.Kubectl(t, append([]string{"get", "pods", "-l", label, "-o", "jsonpath={.items[*].spec.nodeName}"}, args...)...)
}

// tolerant is a Deployment, and its Service, that bears a node that is not there:
// for ever, or for some seconds.
func tolerant(name, seconds string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute%[2]s}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute%[2]s}
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 80, targetPort: 8080}]}
`, name, seconds)
}
