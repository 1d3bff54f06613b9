package workloads

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// A Deployment rolls to a new image and back.
func (s suite) testDeployment(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, cluster.Web(3))
	wantImage := func(want string) {
		t.Helper()
		ns.WaitRollout(t, "deployment/web")
		eventually(t, func() error { // those of the last revision may still be ending
			images := strings.Fields(ns.Kubectl(t, "get", "pods", "-l", "app=web",
				"-o", "jsonpath={.items[*].spec.containers[0].image}"))
			if slices.Equal(images, []string{want, want, want}) {
				return nil
			}
			return fmt.Errorf("pods run %v, want three of %s", images, want)
		})
	}
	wantImage("lite.test/agnhost:2")
	ns.Kubectl(t, "set", "image", "deployment/web", "web=lite.test/agnhost:3")
	wantImage("lite.test/agnhost:3")
	ns.Kubectl(t, "rollout", "undo", "deployment/web")
	wantImage("lite.test/agnhost:2")
	if history := ns.Kubectl(t, "rollout", "history", "deployment/web"); !strings.Contains(history, "\n3 ") {
		t.Errorf("no third revision in the history:\n%s", history)
	}
}

// The pods of a StatefulSet start in order, and keep their names.
func (s suite) testStatefulSet(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: db, image: lite.test/agnhost:2, args: [netexec, --http-port=8080]}
`)
	ns.WaitRollout(t, "statefulset/db")
	ns.WaitFor(t, "condition=Ready", "pod/db-0", "pod/db-1")
	if ns.Field(t, "pod/db-0", ".status.startTime") > ns.Field(t, "pod/db-1", ".status.startTime") {
		t.Error("db-1 started before db-0")
	}
	if got := strings.TrimSpace(ns.Exec(t, "db-0", "hostname")); got != "db-0" {
		t.Errorf("host name of db-0 is %q", got)
	}

	before := ns.Field(t, "pod/db-0", ".metadata.uid")
	ns.Kubectl(t, "delete", "pod", "db-0")
	eventually(t, func() error {
		if after, err := ns.KubectlErr(t, "get", "pod/db-0", "-o", "jsonpath={.metadata.uid}"); err != nil || after == before {
			return fmt.Errorf("db-0 has not come back: %v %s", err, after)
		}
		return nil
	})
	ns.WaitFor(t, "condition=Ready", "pod/db-0")

	ns.Kubectl(t, "scale", "statefulset/db", "--replicas=1")
	ns.WaitFor(t, "delete", "pod/db-1")
	ns.WaitFor(t, "condition=Ready", "pod/db-0")
}

// A DaemonSet runs one pod on every node that it selects.
func (s suite) testDaemonSet(t *testing.T, ns *cluster.Namespace) {
	manifest := func(name, selector string) string {
		return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {%s}
      containers:
      - {name: main, image: lite.test/agnhost:2}
`, name, selector)
	}
	ns.Apply(t, manifest("everywhere", "kubernetes.io/os: linux")+"---"+manifest("nowhere", "no-node: has-this"))
	ns.WaitRollout(t, "daemonset/everywhere")
	if got := ns.Field(t, "daemonset/everywhere", ".status.numberReady"); got != "1" {
		t.Errorf("%s pods are ready, want 1", got)
	}
	ns.Kubectl(t, "set", "image", "daemonset/everywhere", "main=lite.test/agnhost:3")
	ns.WaitRollout(t, "daemonset/everywhere")
	if got := ns.Field(t, "daemonset/nowhere", ".status.desiredNumberScheduled"); got != "0" {
		t.Errorf("%s pods of a DaemonSet that selects no node", got)
	}
}

// A Job runs to its number of completions, or fails after its number of retries.
func (s suite) testJob(t *testing.T, ns *cluster.Namespace) {
	manifest := func(name, options, script string) string {
		return fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  %s
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: lite.test/busybox:1, command: [sh, -c, %q]}
`, name, options, script)
	}
	ns.Apply(t, manifest("good", "completions: 3\n  parallelism: 2", "echo done")+
		"---"+manifest("bad", "backoffLimit: 0", "exit 7"))
	ns.WaitFor(t, "condition=complete", "job/good")
	if got := ns.Field(t, "job/good", ".status.succeeded"); got != "3" {
		t.Errorf("%s pods succeeded, want 3", got)
	}
	if got := ns.Kubectl(t, "logs", "-l", "job-name=good"); got != "done\ndone\ndone\n" {
		t.Errorf("the pods said %q", got)
	}
	ns.WaitFor(t, "condition=failed", "job/bad")
}

// A CronJob starts a Job by itself when its minute comes.
func (s suite) testCronJob(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: tick}}
        spec:
          restartPolicy: Never
          containers:
          - {name: main, image: lite.test/busybox:1, command: [echo, tick]}
`)
	eventually(t, func() error {
		out, err := ns.KubectlErr(t, "logs", "-l", "app=tick")
		if err != nil || !strings.HasPrefix(out, "tick\n") {
			return fmt.Errorf("no pod of the CronJob has said tick, but: %v %q", err, out)
		}
		return nil
	})
	ns.Kubectl(t, "patch", "cronjob/tick", "-p", `{"spec":{"suspend":true}}`)
}
