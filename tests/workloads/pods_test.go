package workloads

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// A pod sees its volumes, of every kind that needs no storage provider.
func (s suite) testVolumes(t *testing.T, ns *cluster.Namespace) {
	ns.Kubectl(t, "create", "configmap", "settings", "--from-literal=colour=blue", "--from-literal=size=9")
	ns.Kubectl(t, "create", "secret", "generic", "password", "--from-literal=word=hush")
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {tier: front}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "3600"]
    resources: {limits: {memory: 64Mi}}
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: config, mountPath: /etc/one-file, subPath: colour}
    - {name: secret, mountPath: /secret}
    - {name: downward, mountPath: /downward}
    - {name: projected, mountPath: /projected}
    - {name: memory, mountPath: /memory}
    - {name: disk, mountPath: /disk}
    - {name: host, mountPath: /host}
  volumes:
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: password, defaultMode: 0400}}
  - name: downward
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: memory, resourceFieldRef: {containerName: main, resource: limits.memory, divisor: 1Mi}}
  - name: projected
    projected:
      sources:
      - configMap: {name: settings, items: [{key: size, path: all/size}]}
      - secret: {name: password, items: [{key: word, path: all/word}]}
      - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
      - serviceAccountToken: {path: token, audience: test}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: disk, emptyDir: {}}
  - {name: host, hostPath: {path: /var/lib/shared-with-pod, type: DirectoryOrCreate}}
`)
	ns.WaitFor(t, "condition=Ready", "pod/reader")
	for script, want := range map[string]string{
		"cat /config/colour /config/size":                             "blue9",
		"cat /etc/one-file":                                           "blue",
		"cat /secret/word":                                            "hush",
		"stat -L -c %a /secret/word":                                  "400",
		"cat /downward/labels":                                        `tier="front"`,
		"cat /downward/memory":                                        "64",
		"cat /projected/all/size /projected/all/word":                 "9hush",
		"cat /projected/name":                                         "reader",
		"cut -d. -f1 /projected/token | cut -c1-2":                    "ey", // a JSON Web Token
		"echo $COLOUR $WORD $NODE":                                    "blue hush " + ns.Node.Name,
		"grep ' /memory ' /proc/mounts | cut -d' ' -f3":               "tmpfs",
		"df -k /memory | tail -n 1 | awk '{print $2}'":                "8192",
		"grep ' /disk ' /proc/mounts | grep -c tmpfs":                 "0",
		"echo kept >/disk/file && cat /disk/file":                     "kept",
		"echo from-pod >/host/file && cat /host/file":                 "from-pod",
		"cat /var/run/secrets/kubernetes.io/serviceaccount/namespace": ns.Name,
	} {
		// grep -c exits with 1 when it counts 0.
		if got := strings.TrimSpace(ns.Exec(t, "reader", "sh", "-c", script+" || true")); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if got := ns.Node.ReadFile(t, "/var/lib/shared-with-pod/file"); got != "from-pod\n" {
		t.Errorf("the host reads %q", got)
	}
}

// A failing liveness probe restarts a container, a failing readiness probe
// takes it out of its Service, and a startup probe holds both off.
func (s suite) testProbes(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: live}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -c, "touch /tmp/alive; sleep 4; rm /tmp/alive; sleep 3600"]
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -c, "sleep 6; touch /tmp/alive; sleep 3600"]
    startupProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 60}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: ready, labels: {app: ready}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "3600"]
    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: ready}
spec: {selector: {app: ready}, ports: [{port: 80}]}
`)
	ready := func(want string) {
		t.Helper()
		eventually(t, func() error {
			got := ns.Kubectl(t, "get", "endpointslices", "-l", "kubernetes.io/service-name=ready",
				"-o", "jsonpath={.items[*].endpoints[*].conditions.ready}")
			if got != want {
				return fmt.Errorf("the endpoint is ready: %q, want %q", got, want)
			}
			return nil
		})
	}
	ready("false")
	ns.Exec(t, "ready", "touch", "/tmp/ready")
	ready("true")
	ns.Exec(t, "ready", "rm", "/tmp/ready")
	ready("false")

	ns.WaitFor(t, "condition=Ready", "pod/slow")
	if got := ns.Field(t, "pod/slow", ".status.containerStatuses[0].restartCount"); got != "0" {
		t.Errorf("slow restarted %s times before it had started", got)
	}
	eventually(t, func() error {
		if got := ns.Field(t, "pod/live", ".status.containerStatuses[0].restartCount"); got == "0" || got == "" {
			return fmt.Errorf("live has restarted %q times", got)
		}
		return nil
	})
}

// Init containers run one after the other before the main one; a sidecar
// starts in its turn, serves the main container, and does not keep the pod from
// being completed.
func (s suite) testInitAndSidecar(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: main}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - name: first
    image: lite.test/busybox:1
    command: [sh, -c, "echo first >/shared/order"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: sidecar
    image: lite.test/busybox:1
    restartPolicy: Always
    command: [sh, -c, "echo sidecar >>/shared/order; httpd -f -p 8000 -h /shared"]
    startupProbe: {tcpSocket: {port: 8000}, periodSeconds: 1, failureThreshold: 60}
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: second
    image: lite.test/busybox:1
    command: [sh, -c, "echo second >>/shared/order"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -c, "printf 'GET /order HTTP/1.0\\r\\n\\r\\n' | nc 127.0.0.1 8000"]
`)
	ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/main")
	if got := ns.Kubectl(t, "logs", "main", "-c", "main"); !strings.HasSuffix(got, "first\nsidecar\nsecond\n") {
		t.Errorf("main got from the sidecar:\n%s", got)
	}
}

// kubectl debug adds a container to a running pod that sees its processes.
func (s suite) testEphemeralContainer(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, server("web"))
	ns.WaitFor(t, "condition=Ready", "pod/web")
	ns.Kubectl(t, "debug", "web", "--image=lite.test/busybox:1", "--target=main", "--container=debugger",
		"--", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo; sleep 3600")
	eventually(t, func() error {
		out, err := ns.KubectlErr(t, "logs", "web", "-c", "debugger")
		if err != nil || !strings.Contains(out, "netexec") {
			return fmt.Errorf("process 1 seen by the debugger: %q, %v", out, err)
		}
		return nil
	})
	if got := ns.Field(t, "pod/web", ".status.containerStatuses[0].restartCount"); got != "0" {
		t.Errorf("the pod's own container restarted %s times", got)
	}
}

// With shareProcessNamespace the containers of a pod see each other.
func (s suite) testSharedProcessNamespace(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: both}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 0
  containers:
  - {name: one, image: lite.test/busybox:1, command: [sleep, "1111"]}
  - {name: two, image: lite.test/busybox:1, command: [sleep, "2222"]}
`)
	ns.WaitFor(t, "condition=Ready", "pod/both")
	got := ns.Kubectl(t, "exec", "both", "-c", "two", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
	for _, want := range []string{"/pause", "sleep 1111", "sleep 2222"} {
		if !strings.Contains(got, want) {
			t.Errorf("container two does not see %q, only %q", want, got)
		}
	}
}

// Images put into the directory of images while lite runs, in whatever form, can
// be used at once, and no image from there is ever removed to make room. An
// archive that is damaged keeps no other back.
func (s suite) testImageTarball(t *testing.T, ns *cluster.Namespace) {
	dir := ns.Node.Path(cluster.DataDir + "/agent/images")
	if err := os.WriteFile(dir+"/damaged.tar", []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	wanted := []string{"lite.test/busybox:1", "lite.test/agnhost:2", "lite.test/agnhost:3"}
	for image, file := range archives {
		drop(t, dir, file, image)
		wanted = append(wanted, image)
	}
	eventually(t, func() error {
		for _, want := range wanted {
			image, err := crictlImage(t, ns.Node, want)
			if err != nil {
				return err
			}
			if !image.Pinned {
				return fmt.Errorf("%s is not pinned", want)
			}
		}
		return nil
	})
	for image := range archives {
		ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  containers: [{name: main, image: %q, imagePullPolicy: Never, command: [echo, hello]}]
`, tagOf(image), image))
	}
	for image := range archives {
		ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/"+tagOf(image))
	}
}

func tagOf(image string) string { return image[strings.LastIndex(image, ":")+1:] }
