// Package join shows how machines become nodes of a cluster, who does not, and
// that pods reach each other across nodes.
package join

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestAgentsJoin makes one server and two agents of three machines, and lets
// pods of each reach pods of each other.
func TestAgentsJoin(t *testing.T) {
	c := cluster.New(t, cluster.Agents(2))
	ns := c.Server().Namespace(t)
	ns.Apply(t, daemonSet)
	ns.WaitRollout(t, "daemonset/web")
	pods := strings.Fields(ns.Kubectl(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(pods) != 3 {
		t.Fatalf("there are pods %v, want one on each of three nodes", pods)
	}
	for _, from := range pods {
		for _, to := range pods {
			ip := ns.Field(t, "pod/"+to, ".status.podIP")
			cluster.Eventually(t, 20*time.Second, func() error {
				got, err := ns.KubectlErr(t, "exec", from, "--", "/agnhost", "connect", "--timeout=2s", ip+":8080")
				if err != nil {
					return fmt.Errorf("from %s to %s at %s: %w: %s", from, to, ip, err, got)
				}
				return nil
			})
		}
	}
}

const daemonSet = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=8080, --udp-port=8081]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
`
