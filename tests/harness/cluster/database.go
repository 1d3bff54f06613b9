package cluster

import (
	"fmt"
	"strings"
)

// Database is a StatefulSet named db, whose pods have a claim each, data. spec is that of
// the pods, which mounts it.
func Database(replicas int, spec string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: %d
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:%s
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, replicas, strings.ReplaceAll("\n"+strings.TrimSpace(spec), "\n", "\n      "))
}

// Idle is the spec of a pod of Database that has its data at /data and does nothing.
func Idle(n *Node) string {
	return fmt.Sprintf(`
terminationGracePeriodSeconds: 0
nodeSelector: {kubernetes.io/hostname: %s}
containers:
- name: main
  image: lite.test/busybox:1
  command: [sleep, "100000"]
  volumeMounts: [{name: data, mountPath: /data}]
`, n.Name)
}
