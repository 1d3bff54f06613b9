package options

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// tools is where the fake runtimes of a host are.
const tools = "/var/lib/tools"

// recorder runs runc and leaves a trace of it, as NVIDIA's runtime does without one.
const recorder = "#!/bin/sh\necho \"$0 $*\" >>" + tools + "/trace\nexec runc \"$@\"\n"

// nvidiaVersion2 is a drop-in as nvidia-ctk writes it, for another program.
const nvidiaVersion2 = `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "recorder"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.recorder]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.recorder.options]
      BinaryName = "` + tools + `/recorder"
`

// TestContainers has a server that runs containers by what a drop-in of containerd 1
// says, and an agent on which NVIDIA's toolkit is found; on both there are pods with
// users of their own. The agent's /run is mounted as some systems have it, and both nodes
// are started by somebody who makes files for himself alone, and whose directory for
// temporary files is of no use: no pod with users of its own started there.
func TestContainers(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.MountWhole(t)
		n.Umask = "077"
		if n.Role == "server" {
			program(t, n, "recorder", recorder)
			n.Output(t, "mount", "-o", "remount,ro", "/tmp")
			n.WriteFile(t, cluster.DataDir+"/agent/containerd/config.toml.d/50-nvidia.toml", nvidiaVersion2)
			return
		}
		program(t, n, "nvidia-container-runtime", recorder)
		n.Env = append(n.Env, "PATH="+tools+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/nowhere", "XDG_RUNTIME_DIR=/run/user/0")
		n.Output(t, "mount", "-o", "remount,noexec,nosuid,nodev", "/run")
	}))
	server, agent := c.Server(), c.Agents[0]

	t.Run("DropInOfVersion2", func(t *testing.T) { testDropIn(t, server) })
	t.Run("RuntimeClass", func(t *testing.T) { testRuntimeClass(t, server, agent) })
	for name, n := range map[string]*cluster.Node{"server": server, "agent": agent} {
		t.Run("UserNamespaces/"+name, func(t *testing.T) { testUserNamespaces(t, server, n) })
		t.Run("Umask/"+name, func(t *testing.T) { testUmask(t, server, n) })
	}
}

// program puts a program among the host's.
func program(t testing.TB, n *cluster.Node, name, text string) {
	t.Helper()
	n.WriteFile(t, tools+"/"+name, text)
	n.Output(t, "chmod", "755", tools+"/"+name)
}

// testDropIn: containerd used to ignore what has moved since its version 1.
func testDropIn(t *testing.T, server *cluster.Node) {
	if status := server.Output(t, "lite", "status"); !strings.Contains(status, "runs containers by recorder (default), runc") {
		t.Errorf("lite status does not say which runtimes there are:\n%s", status)
	}
	ns := server.Namespace(t)
	ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  nodeName: %s
  restartPolicy: Never
  containers: [{name: main, image: "lite.test/busybox:1", command: ["true"]}]
`, server.Name))
	ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/plain")
	if trace := server.ReadFile(t, tools+"/trace"); !strings.Contains(trace, tools+"/recorder ") || !strings.Contains(trace, "create") {
		t.Errorf("it was not run:\n%s", trace)
	}
}

// testRuntimeClass: a pod asks for what only the agent has.
func testRuntimeClass(t *testing.T, server, agent *cluster.Node) {
	if status := agent.Output(t, "lite", "status"); !strings.Contains(status, "runs containers by nvidia, runc (default)") {
		t.Errorf("lite status does not say which runtimes there are:\n%s", status)
	}
	eventually(t, func() error {
		out, err := server.KubectlErr(t, "get", "runtimeclass", "-o", "jsonpath={.items[*].handler}")
		if got := strings.Fields(out); err != nil || !slices.Contains(got, "nvidia") || !slices.Contains(got, "recorder") {
			return fmt.Errorf("the classes are %q, %v", out, err)
		}
		return nil
	})
	ns := server.Namespace(t)
	ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: gpu}
spec:
  nodeName: %s
  runtimeClassName: nvidia
  restartPolicy: Never
  containers: [{name: main, image: "lite.test/busybox:1", command: ["true"]}]
`, agent.Name))
	ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/gpu")
	if trace := agent.ReadFile(t, tools+"/trace"); !strings.Contains(trace, "nvidia-container-runtime ") || !strings.Contains(trace, "create") {
		t.Errorf("it was not run:\n%s", trace)
	}
}

// testUmask: what the kubelet and containerd make for a pod is to be read by any user.
func testUmask(t *testing.T, server, n *cluster.Node) {
	ns := server.Namespace(t)
	ns.Kubectl(t, "create", "configmap", "conf", "--from-literal=key=of-the-map")
	ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: anybody}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  restartPolicy: Never
  securityContext: {runAsUser: 12345, runAsGroup: 12345}
  volumes: [{name: conf, configMap: {name: conf, items: [{key: key, path: deep/er/key}]}}]
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -ec, "cat /etc/resolv.conf /etc/hosts /etc/hostname /conf/deep/er/key >/dev/null; nslookup kubernetes.default.svc.cluster.local"]
    volumeMounts: [{name: conf, mountPath: /conf}]
`, n.Name))
	ns.WaitFor(t, "jsonpath={.status.phase}=Succeeded", "pod/anybody")
}

// withUsers is a pod with users of its own, and each kind of volume.
const withUsers = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec:
  hostUsers: false
  nodeSelector: {kubernetes.io/hostname: %[2]s}
  terminationGracePeriodSeconds: 0
  volumes:
  - {name: empty, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: conf, configMap: {name: conf}}
  - {name: secret, secret: {secretName: secret, defaultMode: 0400}}
  - {name: host, hostPath: {path: /var/lib/shared, type: DirectoryOrCreate}}
  - {name: claim, persistentVolumeClaim: {claimName: %[1]s}}
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sh, -ec, "cat /proc/self/uid_map; cat /conf/key /secret/key; for v in empty memory host claim; do echo %[1]s >/$v/%[1]s; done; echo written; exec sleep 1000"]
    volumeMounts:
    - {name: empty, mountPath: /empty}
    - {name: memory, mountPath: /memory}
    - {name: conf, mountPath: /conf}
    - {name: secret, mountPath: /secret}
    - {name: host, mountPath: /host}
    - {name: claim, mountPath: /claim}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[1]s}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
`

// testUserNamespaces: the root of such a container is nobody on the machine, and used
// not to reach the root of its files. What lets it pass lets nobody else see anything.
func testUserNamespaces(t *testing.T, server, n *cluster.Node) {
	ns := server.Namespace(t)
	ns.Kubectl(t, "create", "configmap", "conf", "--from-literal=key=of-the-map.")
	ns.Kubectl(t, "create", "secret", "generic", "secret", "--from-literal=key=of-the-secret.")
	ns.Apply(t, fmt.Sprintf(withUsers, "one", n.Name))
	ns.Apply(t, fmt.Sprintf(withUsers, "two", n.Name))
	ranges := map[string]int{}
	for _, pod := range []string{"one", "two"} {
		ns.WaitFor(t, "condition=Ready", "pod/"+pod)
		var log string
		eventually(t, func() error {
			if log = ns.Kubectl(t, "logs", pod); !strings.Contains(log, "of-the-map.of-the-secret.written") {
				return fmt.Errorf("pod %s says %q", pod, log)
			}
			return nil
		})
		f := strings.Fields(log)
		first, err := strconv.Atoi(f[1])
		if err != nil || f[0] != "0" || f[2] != "65536" || first < 65536 {
			t.Fatalf("the users of pod %s are %v", pod, f[:3])
		}
		ranges[pod] = first
		if owner := strings.TrimSpace(n.Output(t, "stat", "-c", "%u", "/var/lib/shared/"+pod)); owner != "0" {
			t.Errorf("on the machine its file belongs to %s", owner)
		}
	}
	if ranges["one"] == ranges["two"] {
		t.Errorf("both pods have the users from %d", ranges["one"])
	}
	if got := open(t, n, 65534); len(got) > 0 {
		t.Errorf("nobody may open %q", got)
	}
	// Its own files are shut to others by their group.
	mine := bundles(t, n, ranges["one"])
	for _, path := range open(t, n, uint32(ranges["one"])) {
		if !slices.ContainsFunc(mine, func(dir string) bool { return strings.HasPrefix(path, dir+"/") }) {
			t.Errorf("the root of a container may open %s", path)
		}
	}
	if len(mine) == 0 {
		t.Error("no container of the pod was found")
	}
	eventually(t, func() error {
		if left := n.Output(t, "find", "/run/lite/tmp", "-mindepth", "1"); left != "" {
			return fmt.Errorf("of temporary files there are left:\n%s", left)
		}
		return nil
	})
}

// bundles is the directories of the containers of a group.
func bundles(t *testing.T, n *cluster.Node, group int) []string {
	t.Helper()
	return strings.Fields(n.Output(t, "find", "/run/lite/containerd/state", "-xdev", "-type", "d", "-gid", strconv.Itoa(group), "-prune"))
}

// open is what of lite's files a user may read, write, list or connect to.
func open(t *testing.T, n *cluster.Node, user uint32) []string {
	t.Helper()
	all := n.Output(t, "find", "/run/lite", cluster.DataDir, "/var/lib/kubelet", "-xdev", "!", "-type", "l")
	if strings.Count(all, "\n") < 100 || !strings.Contains(all, "/run/lite/lite.sock") || !strings.Contains(all, "/run/lite/containerd/containerd.sock") {
		t.Fatalf("that cannot be all that lite has:\n%s", all)
	}
	try := n.Command(t.Context(), "sh", "-c", `while read -r p; do if [ -r "$p" ] || [ -w "$p" ]; then echo "$p"; fi; done`)
	try.Stdin = strings.NewReader(all)
	try.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := try.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
