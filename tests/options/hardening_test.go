package options

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// event is what the test wants to know of a line of the audit log.
type event struct {
	Level, Stage, Verb string
	RequestURI         string
	User               struct{ Username string }
	ObjectRef          struct{ Resource, Name string }
	RequestObject      any
}

// TestHardening starts a server that was told nothing, and then by --profile cis, with
// an audit policy of the user's: what the one and the other refuse, and what they log.
func TestHardening(t *testing.T) {
	t.Parallel()
	n := cluster.NewNode(t)
	n.Start(t)
	for name, test := range map[string]func(*testing.T, *cluster.Node){
		"AuditLog": testAuditLog, "Listeners": testListeners, "Pods": testPods, "ForkBomb": testForkBomb, "Namespaces": testNamespaces, "ExternalIPs": testExternalIPs,
	} {
		t.Run(name, func(t *testing.T) { test(t, n) })
	}
	older := deploy(t, n)
	n.Stop(t)
	n.WriteFile(t, ownPolicy, `
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Request
  resources: [{resources: [configmaps]}]
- level: None
`)
	n.Start(t, "--profile=cis", "--audit-log-path="+ownLog, "--audit-policy-file="+ownPolicy,
		"--kube-apiserver-arg=disable-admission-plugins=AlwaysPullImages") // there is no registry
	t.Run("CIS/AuditPolicyOfTheUser", func(t *testing.T) { testOwnPolicy(t, n) })
	t.Run("CIS/Pods", func(t *testing.T) { testRestricted(t, n) })
	t.Run("CIS/Anonymous", func(t *testing.T) {
		for _, path := range []string{"/readyz", "/livez", clusterInfo} {
			if got := ask(t, n, path, ""); got != http.StatusUnauthorized {
				t.Errorf("%s answers %d", path, got)
			}
		}
	})
	t.Run("CIS/WhatIsOlder", func(t *testing.T) { older.staysAndGetsNoMore(t, n) })
	n.Stop(t)
	n.Start(t)
	t.Run("CISLeftOut", func(t *testing.T) { older.isAsBefore(t, n) })
	n.Stop(t)
}

// workload is a Deployment from before the profile, whose pods are not as it wants
// them (rancher#48880).
type workload struct {
	ns         *cluster.Namespace
	containers map[string]string
}

func deploy(t *testing.T, n *cluster.Node) workload {
	ns := n.Namespace(t)
	ns.Apply(t, cluster.Web(1))
	ns.WaitRollout(t, "deployment/web")
	return workload{ns, ns.Containers(t)}
}

// serves: its pods of before were not touched, and answer.
func (w workload) serves(t *testing.T, n *cluster.Node) {
	t.Helper()
	now := w.ns.Containers(t)
	for id, restarts := range w.containers {
		if got, there := now[id]; !there || got != restarts {
			t.Errorf("container %s is gone or was restarted: %v", id, now)
		}
	}
	if _, err := cluster.Get(n, "http://"+w.ns.Field(t, "service/web", ".spec.clusterIP")+"/hostname"); err != nil {
		t.Error(err)
	}
}

func (w workload) staysAndGetsNoMore(t *testing.T, n *cluster.Node) {
	w.serves(t, n)
	w.ns.Kubectl(t, "scale", "deployment/web", "--replicas=2")
	eventually(t, func() error {
		if said := w.ns.Kubectl(t, "get", "events", "--field-selector=reason=FailedCreate"); !strings.Contains(said, `violates PodSecurity "restricted:latest"`) {
			return fmt.Errorf("no event says why there is no second pod: %s", said)
		}
		return nil
	})
}

func (w workload) isAsBefore(t *testing.T, n *cluster.Node) {
	w.serves(t, n)
	w.ns.WaitRollout(t, "deployment/web")
	eventually(t, func() error {
		if left := n.Kubectl(t, "get", "networkpolicies", "-A", "-o", "name"); left != "" {
			return fmt.Errorf("of the profile there are still %s", left)
		}
		return nil
	})
}

const ownLog, ownPolicy = "/var/log/audit/lite.log", "/etc/lite/audit-policy.yaml"

// testAuditLog: it is there, root's alone, and tells of a Secret but not what is in it.
func testAuditLog(t *testing.T, n *cluster.Node) {
	const file = "/var/log/lite/audit.log"
	ns := n.Namespace(t)
	ns.Kubectl(t, "create", "secret", "generic", "one", "--from-literal=password=sesame")
	ns.Kubectl(t, "get", "secret", "one", "-o", "yaml")
	e := awaitEvent(t, n, file, "create", "secrets", "one")
	if e.Level != "Metadata" || e.Stage != "ResponseComplete" || e.User.Username == "" || e.RequestObject != nil {
		t.Errorf("got %+v", e)
	}
	awaitEvent(t, n, file, "get", "secrets", "one")
	log := n.ReadFile(t, file)
	for _, content := range []string{"sesame", base64.StdEncoding.EncodeToString([]byte("sesame"))} {
		if strings.Contains(log, content) {
			t.Error("the content of a Secret is in the log")
		}
	}
	for _, e := range logged(t, n, file) {
		noise := slices.Contains([]string{"leases", "events"}, e.ObjectRef.Resource) && !strings.HasPrefix(e.Verb, "delete")
		if noise || strings.HasPrefix(e.RequestURI, "/readyz") || e.User.Username == "" {
			t.Errorf("the log tells of %+v", e)
			break
		}
	}
	for path, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir} {
		if info, err := os.Stat(n.Path(path)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, info.Mode(), want, err)
		}
	}
}

// testOwnPolicy: a log and a policy of the user's take the place of lite's.
func testOwnPolicy(t *testing.T, n *cluster.Node) {
	n.Kubectl(t, "create", "secret", "generic", "own", "--from-literal=password=sesame")
	n.Kubectl(t, "create", "configmap", "own")
	if e := awaitEvent(t, n, ownLog, "create", "configmaps", "own"); e.Level != "Request" || e.RequestObject == nil {
		t.Errorf("got %+v", e)
	}
	if e := events(t, n, ownLog, "create", "secrets", "own"); len(e) != 0 {
		t.Errorf("the policy leaves Secrets out, got %+v", e)
	}
	if strings.Contains(n.ReadFile(t, "/var/log/lite/audit.log"), `"name":"own"`) {
		t.Error("lite's own log is written as well")
	}
}

// testListeners shakes hands with each listener. CBC with SHA-1 and versions before 1.2
// are refused, and what is strong is not.
func testListeners(t *testing.T, n *cluster.Node) {
	weak := []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	}
	for port, shows := range map[string]string{ // what a client has to show, if anything
		"6443": "", "10250": "", "10257": "", "10259": "", "2379": "apiserver-etcd-client", "2380": "etcd/peer", "10349": "front-proxy-client",
	} {
		name := "port " + port
		var certificates []tls.Certificate
		if file := n.Path(cluster.DataDir + "/server/pki/" + shows); shows != "" {
			pair, err := tls.LoadX509KeyPair(file+".crt", file+".key")
			if err != nil {
				t.Fatal(err)
			}
			certificates = append(certificates, pair)
		}
		shake := func(version uint16, suites []uint16) error {
			conn, err := n.DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
				t.Fatal(err)
			}
			client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, CipherSuites: suites, Certificates: certificates})
			return client.HandshakeContext(t.Context())
		}
		if err := shake(tls.VersionTLS12, weak); err == nil || !strings.Contains(err.Error(), "handshake failure") {
			t.Errorf("%s takes weak suites: %v", name, err)
		}
		if err := shake(tls.VersionTLS11, nil); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s takes TLS 1.1: %v", name, err)
		}
		for _, suites := range [][]uint16{{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, {tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}} {
			if err := shake(tls.VersionTLS12, suites); err != nil {
				t.Errorf("%s refuses a strong suite: %v", name, err)
			}
		}
	}
}

const shell = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  securityContext: %s
  containers: [{name: main, image: "lite.test/busybox:1", command: [sh, -c, %q], securityContext: %s}]
`

// testPods: what a pod that says nothing may do, and that one may say otherwise.
func testPods(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	ns.Apply(t, fmt.Sprintf(shell, "plain", "{}", "exec sleep 1000", "{}")+"---"+
		fmt.Sprintf(shell, "unconfined", "{seccompProfile: {type: Unconfined}}", "exec sleep 1000", "{}")+"---"+
		fmt.Sprintf(shell, "privileged", "{}", "exec sleep 1000", "{privileged: true}"))
	ns.WaitFor(t, "condition=Ready", "pod/plain", "pod/unconfined", "pod/privileged")
	for pod, want := range map[string]string{"plain": "2", "unconfined": "0", "privileged": "0"} {
		if got := strings.TrimSpace(ns.Exec(t, pod, "sed", "-n", `s/^Seccomp:\t//p`, "/proc/self/status")); got != want {
			t.Errorf("seccomp of pod %s has mode %q, want %s", pod, got, want)
		}
	}
	token := ns.Exec(t, "plain", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	var claims struct{ Iat, Exp int64 }
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if life := time.Duration(claims.Exp-claims.Iat) * time.Second; err != nil || life < 50*time.Minute || life > 2*time.Hour {
		t.Errorf("a pod's token is good for %v (%v)", life, err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", n.MachinePID(t)))
	if err != nil || !regexp.MustCompile(`(?m)^Max core file size +0 `).Match(limits) {
		t.Errorf("lite may leave a core: %v\n%s", err, limits)
	}
}

// testForkBomb: a pod that forks without end comes to its own, and no other's. (It does end,
// in case that nothing stops it.)
func testForkBomb(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	ns.Apply(t, fmt.Sprintf(shell, "bomb", "{}", "exec 2>&1; i=0; while [ $i -lt 6000 ]; do sleep 1000 & i=$((i+1)); echo $i; done", "{}"))
	ns.WaitFor(t, "jsonpath={.status.phase}=Failed", "pod/bomb")
	log := strings.Split(strings.TrimSpace(ns.Kubectl(t, "logs", "bomb", "--tail=5")), "\n")
	if len(log) < 2 || !strings.Contains(strings.Join(log, "\n"), "can't fork") {
		t.Fatalf("the bomb ended by %q", log)
	}
	forks := 0
	for _, line := range log {
		if i, err := strconv.Atoi(line); err == nil {
			forks = max(forks, i)
		}
	}
	if forks < 4000 || forks > 4096 {
		t.Errorf("a pod has %d processes", forks)
	}
}

// testNamespaces: those that every cluster has, beside one of a user's.
func testNamespaces(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	for name, want := range map[string]string{"kube-system": "privileged", "kube-public": "restricted", "kube-node-lease": "restricted", "default": "", ns.Name: ""} {
		if got := n.Kubectl(t, "get", "namespace", name, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); got != want {
			t.Errorf("namespace %s enforces %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"kube-system": false, "default": true, ns.Name: true} {
		out := n.KubectlStdin(t, fmt.Sprintf(shell, "dry", "{}", "true", "{}"), "create", "--namespace="+name, "--dry-run=server", "-f", "-", "-o", "jsonpath={.spec.volumes[*].name}")
		if got := strings.Contains(out, "kube-api-access"); got != want {
			t.Errorf("a pod in namespace %s gets a token: %t (%s)", name, got, out)
		}
	}
}

// testExternalIPs: CVE-2020-8554.
func testExternalIPs(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	for name, spec := range map[string]string{"new": "externalIPs: [192.0.2.1], ", "two": "externalIPs: [192.0.2.1, 10.43.0.1], ", "beside": "type: NodePort, externalIPs: [192.0.2.1], "} {
		said, err := ns.ApplyErr(t, "apiVersion: v1\nkind: Service\nmetadata: {name: "+name+"}\nspec: {"+spec+"ports: [{port: 80}]}\n")
		if err == nil || !strings.Contains(said, "external IPs is denied") {
			t.Errorf("%s: %v %s", name, err, said)
		}
	}
}

// testRestricted: a pod that is not of the standard is refused, and told why; one that
// is runs, with what lite has for it: DNS, a volume, policies.
func testRestricted(t *testing.T, n *cluster.Node) {
	ns := n.Namespace(t)
	for name, pod := range map[string]string{
		"runAsNonRoot != true":                fmt.Sprintf(shell, "root", "{}", "true", "{}"),
		"privileged (container \"main\" must": fmt.Sprintf(shell, "privileged", "{}", "true", "{privileged: true}"),
		"host namespaces (hostNetwork=true)":  strings.Replace(fmt.Sprintf(shell, "host", "{}", "true", "{}"), "spec:", "spec:\n  hostNetwork: true", 1),
	} {
		said, err := ns.ApplyErr(t, pod)
		if err == nil || !strings.Contains(said, `violates PodSecurity "restricted:latest"`) || !strings.Contains(said, name) {
			t.Errorf("%s: %v %s", name, err, said)
		}
	}
	pod := fmt.Sprintf(shell, "good", "{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}",
		"nslookup kubernetes.default.svc.cluster.local && echo data >/data/file && exec sleep 1000", "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}")
	pod = strings.Replace(pod, "containers: [{", "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]\n  containers: [{volumeMounts: [{name: data, mountPath: /data}], ", 1)
	pod = strings.Replace(pod, "securityContext: {allow", "readinessProbe: {exec: {command: [cat, /data/file]}}, securityContext: {allow", 1)
	ns.Apply(t, "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}\n---"+pod)
	ns.WaitFor(t, "condition=Ready", "pod/good")
	out := n.KubectlStdin(t, fmt.Sprintf(shell, "dry", "{}", "true", "{privileged: true}"), "create", "--namespace=kube-system", "--dry-run=server", "-f", "-", "-o", "name")
	if !strings.Contains(out, "pod/dry") {
		t.Errorf("kube-system: %s", out)
	}
	if got := n.Kubectl(t, "get", "networkpolicies", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"); got != "default kube-node-lease kube-public kube-system" {
		t.Errorf("there are policies in %q", got)
	}
}

// awaitEvent waits for the log of a request; it may be written a moment later.
func awaitEvent(t *testing.T, n *cluster.Node, file, verb, resource, name string) (e event) {
	t.Helper()
	eventually(t, func() error {
		found := events(t, n, file, verb, resource, name)
		if len(found) == 0 {
			return fmt.Errorf("%s does not tell of %s %s %s", file, verb, resource, name)
		}
		e = found[len(found)-1]
		return nil
	})
	return e
}

// events returns what the audit log tells of requests for an object.
func events(t *testing.T, n *cluster.Node, file, verb, resource, name string) []event {
	t.Helper()
	return slices.DeleteFunc(logged(t, n, file), func(e event) bool {
		return e.Verb != verb || e.ObjectRef.Resource != resource || e.ObjectRef.Name != name
	})
}

// logged is all of an audit log. Each of its lines must be JSON; the last may be about
// to be written.
func logged(t *testing.T, n *cluster.Node, file string) (all []event) {
	t.Helper()
	lines := strings.Split(n.ReadFile(t, file), "\n")
	for _, line := range lines[:len(lines)-1] {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, e)
	}
	return all
}
