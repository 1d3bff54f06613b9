package servers

import (
	"fmt"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// controlPlane is the taint of servers that are to have no pods of users.
const controlPlane = "node-role.kubernetes.io/control-plane"

// testTaint puts pods on a server that joined with --node-taint: only one that tolerates that runs, and its API server
// reaches that pod as well as those of other nodes.
func (j *joining) testTaint(t *testing.T) {
	server := j.cluster.Servers[2]
	if got := server.Kubectl(t, "get", "node", server.Name, "-o", "jsonpath={.spec.taints[*].key}={.spec.taints[*].effect}"); got != controlPlane+"=NoSchedule" {
		t.Errorf("its taints are %q", got)
	}
	ns := j.first.Namespace(t)
	const pod = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  tolerations: %s
  terminationGracePeriodSeconds: 0
  containers: [{name: web, image: "lite.test/agnhost:2", args: [netexec, --http-port=8080]}]
---
`
	ns.Apply(t, fmt.Sprintf(pod, "not-here", server.Name, "[]")+fmt.Sprintf(pod, "here", server.Name, "[{operator: Exists}]")+
		fmt.Sprintf(pod, "elsewhere", j.first.Name, "[]"))
	ns.WaitFor(t, "condition=Ready", "pod/here", "pod/elsewhere")
	cluster.Eventually(t, time.Minute, func() error {
		if why := ns.Field(t, "pod/not-here", ".status.conditions[0].reason"); why != "Unschedulable" {
			return fmt.Errorf("a pod that does not tolerate the taint: %q", why)
		}
		return nil
	})
	for _, name := range []string{"here", "elsewhere"} {
		if got := server.Kubectl(t, "get", "--raw", "/api/v1/namespaces/"+ns.Name+"/pods/"+name+":8080/proxy/echo?msg=hello"); got != "hello" {
			t.Errorf("through its API server, pod %s answers %q", name, got)
		}
	}
}
