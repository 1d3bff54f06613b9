// Package join shows how machines become nodes of a cluster, who does not, and
// that pods reach each other across nodes.
package join

import (
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// daemonSet is a pod on each node that answers.
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
