// Package roots tests that a node needs nothing of the machine but its kernel:
// lite runs where no package was installed for it.
package roots

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestRoots runs a node on machines that hold ever less.
func TestRoots(t *testing.T) {
	for _, root := range []struct {
		name  string
		files func(t *testing.T) string
		why   string // the machine's own are not used
	}{
		{"nothing", nothing, "the machine has no "},
		{"busybox", busyboxAlone, "exit status 139: broken"},
		{"debian", debian, "the machine has no "},
	} {
		t.Run(root.name, func(t *testing.T) {
			n := cluster.NewNode(t, cluster.Root(root.files(t)))
			n.Start(t)
			checkTools(t, n, root.why)
			checkNode(t, n)
		})
	}
}

// checkTools asks whose programs write the packet filter's rules, and why.
func checkTools(t *testing.T, n *cluster.Node, why string) {
	t.Helper()
	var status struct {
		Netfilter struct {
			NFT, IPTables struct{ Source, Reason string }
		}
	}
	if err := json.Unmarshal([]byte(n.Output(t, "lite", "status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	got := status.Netfilter
	if got.NFT.Source != "bundled" || !strings.Contains(got.NFT.Reason, why) || got.IPTables.Source != "bundled" || !strings.Contains(got.IPTables.Reason, why) {
		t.Errorf("lite status says of nft and iptables %+v, want bundled: %s", got, why)
	}
	if said := strings.Count(n.Log(), `msg="Packet filter"`); said != 1 {
		t.Errorf("the log says %d times which are used", said)
	}
}

// checkNode uses what of a node needs programs on others: volumes, a Service, a
// hostPort, NetworkPolicies.
func checkNode(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	ns.Kubectl(t, "create", "configmap", "settings", "--from-literal=colour=blue")
	ns.Kubectl(t, "create", "secret", "generic", "password", "--from-literal=word=hush")
	ns.Apply(t, workload)
	ns.WaitFor(t, "condition=Ready", "pod/web", "pod/client")

	if got := ns.Exec(t, "web", "sh", "-c", "cat /settings/one /secret/word; echo ' yes' >/memory/written && cat /memory/written"); got != "bluehush yes\n" {
		t.Errorf("volumes: got %q", got)
	}
	if got := ns.Exec(t, "web", "sh", "-c", "touch /settings/one 2>&1 || true"); !strings.Contains(got, "Read-only") {
		t.Errorf("a read-only volume: got %q", got)
	}
	if logs := ns.Kubectl(t, "logs", "web"); !strings.Contains(logs, "Started HTTP server") {
		t.Errorf("logs: got %q", logs)
	}
	service := ns.Field(t, "service/web", ".spec.clusterIP")
	answers(t, ns, service+":80")
	answers(t, ns, "web:80") // by name
	from := func(dialer cluster.Dialer) {
		t.Helper()
		cluster.Eventually(t, time.Minute, func() error {
			got, err := cluster.Get(dialer, "http://"+n.IP+":8081/hostname")
			if err != nil || got != "web" {
				return fmt.Errorf("hostPort: %q, %w", got, err)
			}
			return nil
		})
	}
	from(n)
	from(n.Network())

	ns.Apply(t, denial)
	cluster.Eventually(t, time.Minute, func() error {
		if got, err := connect(t, ns, service+":80"); err == nil {
			return fmt.Errorf("a policy forbids it, and yet the client got %q", got)
		}
		return nil
	})
	ns.Kubectl(t, "delete", "networkpolicy", "--all")
	answers(t, ns, service+":80")
}

// answers waits until the Service does.
func answers(t *testing.T, ns *cluster.Namespace, address string) {
	t.Helper()
	cluster.Eventually(t, time.Minute, func() error {
		got, err := connect(t, ns, address)
		if err != nil {
			return fmt.Errorf("connect to %s: %w: %s", address, err, got)
		}
		return nil
	})
}

func connect(t *testing.T, ns *cluster.Namespace, address string) (string, error) {
	return ns.KubectlErr(t, "exec", "client", "--", "/agnhost", "connect", "--timeout=1s", address)
}

const workload = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/agnhost:2
    args: [netexec, --http-port=8080]
    ports: [{containerPort: 8080, hostPort: 8081}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    volumeMounts:
    - {name: settings, mountPath: /settings/one, subPath: colour, readOnly: true}
    - {name: secret, mountPath: /secret}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: secret, secret: {secretName: password}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]
`

const denial = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
`

// skeleton makes the directories that a machine has something mounted on.
func skeleton(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"dev", "etc", "proc", "run", "sys", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const broken = "#!/bin/sh\necho broken >&2\nexit 139\n"

// nothing is a root without a single program. The kubelet wants to read
// /etc/passwd (1.37).
func nothing(t *testing.T) string {
	t.Helper()
	root := skeleton(t)
	if err := os.WriteFile(filepath.Join(root, "etc", "passwd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

// busyboxAlone has one static program under many names, as Alpine has: no glibc,
// no bash, and a mount that knows less than others.
func busyboxAlone(t *testing.T) string {
	t.Helper()
	root := skeleton(t)
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "root", "lib"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, file := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"bin/busybox": {string(content), 0o755},
		"etc/passwd":  {"root:x:0:0:root:/root:/bin/sh\n", 0o644},
		"etc/group":   {"root:x:0:\n", 0o644},
		// Those that are there do not work.
		"bin/nft":              {broken, 0o755},
		"bin/iptables":         {broken, 0o755},
		"bin/iptables-save":    {broken, 0o755},
		"bin/iptables-restore": {broken, 0o755},
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return root
}

// debian is what debootstrap calls minimal: no iptables, nft, ip or modprobe.
// scripts/test/images makes it.
func debian(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../dist/test-images/debian")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin", "bash")); err != nil {
		t.Fatalf("%v: run `make build` and scripts/test/images first", err)
	}
	for _, program := range []string{"iptables", "nft", "ip", "modprobe"} {
		for _, dir := range []string{"usr/sbin", "usr/bin"} {
			if _, err := os.Stat(filepath.Join(root, dir, program)); err == nil {
				t.Fatalf("%s has %s, so it shows nothing", root, program)
			}
		}
	}
	return root
}
