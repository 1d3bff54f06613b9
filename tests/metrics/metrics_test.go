// Package metrics shows that figures of nodes and pods are there for people and
// for autoscalers, and who may not have them.
package metrics

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const api = "/apis/metrics.k8s.io/v1beta1"

// TestMetrics runs on one server and one agent.
func TestMetrics(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		// Upstream's defaults are 15 s and 5 minutes.
		n.WriteFile(t, "/etc/lite/config.yaml", configuration(t, n.Role,
			"horizontal-pod-autoscaler-sync-period=2s", "horizontal-pod-autoscaler-cpu-initialization-period=10s"))
	}))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), server: c.Server(), agent: c.Agents[0]}
	s.ns.Apply(t, workloads)
	s.ns.WaitRollout(t, "daemonset/busy")
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Top", s.testTop},
		{"API", s.testAPI},
		{"Strangers", s.testStrangers},
		{"Prometheus", s.testPrometheus},
		{"OpenedPorts", s.testOpenedPorts},
		{"Autoscaling", s.testAutoscaling},
		{"WrongAuthority", s.testWrongAuthority},
		{"ServerKilled", s.testServerKilled},
		{"Disabled", s.testDisabled},
	} {
		t.Run(test.name, test.run)
	}
}

type suite struct {
	cluster *cluster.Cluster
	ns      *cluster.Namespace
	server  *cluster.Node
	agent   *cluster.Node
}

// busy uses what it may have of a processor, on each node; scaled does while
// there is a file on its node.
const workloads = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: lite.test/busybox:1
        command: [sh, -c, "while true; do :; done"]
        resources: {limits: {cpu: 50m, memory: 20Mi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: scaled}
spec:
  selector: {matchLabels: {app: scaled}}
  template:
    metadata: {labels: {app: scaled}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: lite.test/busybox:1
        command: [sh, -c, "while true; do [ -e /load/on ] || sleep 1; done"]
        resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}
        volumeMounts: [{name: load, mountPath: /load}]
      volumes: [{name: load, hostPath: {path: /var/lib/load, type: DirectoryOrCreate}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: scaled}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: scaled}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
`

// timeout is for whatever needs two readings of a kubelet; the machine is busy.
const timeout = 80 * time.Second

// lines is what a kubectl command prints, by the first word of each line.
func lines(out string) map[string][]string {
	of := map[string][]string{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 {
			of[fields[0]] = fields[1:]
		}
	}
	return of
}

func (s *suite) pods(t *testing.T, selector string) []string {
	t.Helper()
	return strings.Fields(s.ns.Kubectl(t, "get", "pods", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"))
}

// used wants a quantity that is more than none.
func used(what, text string) error {
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() <= 0 {
		return fmt.Errorf("%s: %q, want some", what, text)
	}
	return nil
}

// usage is what the first container of a PodMetrics uses.
func usage(podMetrics string) (u struct{ CPU, Memory string }) {
	var p struct {
		Containers []struct{ Usage struct{ CPU, Memory string } }
	}
	if json.Unmarshal([]byte(podMetrics), &p) == nil && len(p.Containers) > 0 {
		return p.Containers[0].Usage
	}
	return u
}

// kubectl top knows all nodes and the pods of all nodes.
func (s *suite) testTop(t *testing.T) {
	cluster.Eventually(t, timeout, func() error {
		out, err := s.server.KubectlErr(t, "top", "node", "--no-headers")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, n := range []*cluster.Node{s.server, s.agent} {
			figures := lines(out)[n.Name]
			if len(figures) != 4 {
				return fmt.Errorf("top node: no figures of %s in\n%s", n.Name, out)
			}
			if err := errors.Join(used(n.Name+"'s CPU", figures[0]), used(n.Name+"'s memory", figures[2])); err != nil {
				return err
			}
		}
		return nil
	})
	pods := s.pods(t, "app=busy")
	if len(pods) != 2 {
		t.Fatalf("there are %v, want a pod on each node", pods)
	}
	cluster.Eventually(t, timeout, func() error {
		out, err := s.ns.KubectlErr(t, "top", "pod", "--no-headers", "-l", "app=busy")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if len(lines(out)) != 2 {
			return fmt.Errorf("top pod -l app=busy:\n%s", out)
		}
		for _, p := range pods {
			figures := lines(out)[p]
			if len(figures) != 2 {
				return fmt.Errorf("top pod: no figures of %s in\n%s", p, out)
			}
			// A shell's memory is less than the 1 Mi that would be shown.
			memory := s.ns.Kubectl(t, "get", "--raw", api+"/namespaces/"+s.ns.Name+"/pods/"+p)
			if err := errors.Join(used(p+"'s CPU", figures[0]), used(p+"'s memory", usage(memory).Memory)); err != nil {
				return err
			}
		}
		return nil
	})
	if out := s.ns.Kubectl(t, "top", "pod", "--containers", "--no-headers", pods[0]); !strings.Contains(out, "main") {
		t.Errorf("top pod --containers:\n%s", out)
	}
	if out := s.server.Output(t, "lite", "top"); !strings.Contains(out, pods[0]) || !strings.Contains(out, s.agent.Name) {
		t.Errorf("lite top does not show the pod or the node:\n%s", out)
	}
	if out := s.server.Kubectl(t, "top", "pod", "-A"); !strings.Contains(out, pods[0]) {
		t.Errorf("top pod -A:\n%s", out)
	}
}

// The API server verifies who answers, and users have the rights that they have
// of pods.
func (s *suite) testAPI(t *testing.T) {
	s.server.Kubectl(t, "wait", "--timeout=60s", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io")
	var service struct {
		Spec struct {
			CABundle              []byte
			InsecureSkipTLSVerify bool
		}
	}
	if err := json.Unmarshal([]byte(s.server.Kubectl(t, "get", "apiservice", "v1beta1.metrics.k8s.io", "-o", "json")), &service); err != nil {
		t.Fatal(err)
	}
	if ca := s.server.ReadFile(t, cluster.DataDir+"/server/pki/ca.crt"); string(service.Spec.CABundle) != ca || service.Spec.InsecureSkipTLSVerify {
		t.Errorf("the API server is told to verify by %q, insecure %v", service.Spec.CABundle, service.Spec.InsecureSkipTLSVerify)
	}
	if out := s.server.Kubectl(t, "api-resources", "--api-group=metrics.k8s.io"); !strings.Contains(out, "NodeMetrics") || !strings.Contains(out, "PodMetrics") {
		t.Errorf("api-resources:\n%s", out)
	}
	s.ns.Kubectl(t, "create", "serviceaccount", "reader")
	s.ns.Kubectl(t, "create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount="+s.ns.Name+":reader")
	as := "--as=system:serviceaccount:" + s.ns.Name + ":reader"
	cluster.Eventually(t, timeout, func() error { // the role view is put together a moment later
		if out, err := s.ns.KubectlErr(t, "top", "pod", as); err != nil {
			return fmt.Errorf("who may view the namespace: %w: %s", err, out)
		}
		return nil
	})
	for _, args := range [][]string{{"top", "node", as}, {"top", "pod", "-A", as}} {
		if out, err := s.ns.KubectlErr(t, args...); err == nil || !strings.Contains(out, "forbidden") {
			t.Errorf("kubectl %v: %v, %s, want it to be forbidden", args, err, out)
		}
	}
	cluster.Eventually(t, timeout, func() error { // the API server asks for it a moment later
		if out, err := s.server.KubectlErr(t, "explain", "podmetrics.containers.usage"); err != nil || !strings.Contains(out, "PodMetrics") {
			return fmt.Errorf("explain: %v: %s", err, out)
		}
		return nil
	})
	if log := s.server.Log(); strings.Contains(log, "metrics.k8s.io") {
		t.Errorf("the log of the server complains:\n%s", log)
	}
	if out, err := s.ns.KubectlErr(t, "get", "--raw", api+"/namespaces/"+s.ns.Name+"/pods/nobody"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("a pod that is not: %v, %s", err, out)
	}
}

// The port speaks to the API server only.
func (s *suite) testStrangers(t *testing.T) {
	const port = "10349"
	admin, err := rest.TLSConfigFor(s.server.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, certificates := range map[string][]tls.Certificate{"anonymous": nil, "the cluster's administrator": certificates(t, admin)} {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DialContext:     s.server.DialContext,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates},
		}}
		for _, path := range []string{"/", "/healthz", "/metrics", api + "/nodes"} {
			response, err := client.Get("https://127.0.0.1:" + port + path)
			if err == nil {
				response.Body.Close()
				t.Errorf("%s: GET %s: %s", name, path, response.Status)
			} else if !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%s: GET %s: %v, want it to be for want of a certificate", name, path, err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if conn, err := s.agent.DialContext(ctx, "tcp", net.JoinHostPort(s.server.IP, port)); err == nil {
		conn.Close()
		t.Error("another machine can connect")
	}
}

func certificates(t *testing.T, c *tls.Config) []tls.Certificate {
	t.Helper()
	cert, err := c.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{*cert}
}

// A Deployment grows under load and shrinks again.
func (s *suite) testAutoscaling(t *testing.T) {
	await := func(want string) {
		t.Helper()
		cluster.Eventually(t, 2*timeout, func() error {
			if got := s.ns.Field(t, "deployment/scaled", ".status.readyReplicas"); got != want {
				return fmt.Errorf("%s pods are ready, want %s: %s", got, want, s.ns.Field(t, "hpa/scaled", ".status"))
			}
			return nil
		})
	}
	await("1")
	nodes := []*cluster.Node{s.server, s.agent}
	for _, n := range nodes {
		n.WriteFile(t, "/var/lib/load/on", "")
	}
	await("3")
	for _, n := range nodes {
		n.Output(t, "rm", "/var/lib/load/on")
	}
	await("1")
	s.ns.Kubectl(t, "delete", "hpa/scaled", "deployment/scaled")
}

// A kubelet that cannot show who it is has no figures.
func (s *suite) testWrongAuthority(t *testing.T) {
	figures := func(n *cluster.Node) error {
		out, err := s.server.KubectlErr(t, "get", "--raw", api+"/nodes/"+n.Name)
		if err != nil {
			return fmt.Errorf("%s: %w: %s", n.Name, err, out)
		}
		return nil
	}
	s.agent.Stop(t)
	s.agent.Output(t, "sh", "-c", `mkdir -p /var/lib/wrong && cd /var/lib/wrong && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-keyout key.pem -out cert.pem -days 1 -subj "/O=system:nodes/CN=system:node:`+s.agent.Name+`" -addext "subjectAltName=IP:`+s.agent.IP+`,DNS:`+s.agent.Name+`" 2>&1`)
	const current = cluster.DataDir + "/agent/kubelet/pki/kubelet-server-current.pem"
	s.agent.Output(t, "sh", "-ec", "cd /var/lib/wrong; cp "+current+" was.pem; cat cert.pem key.pem >"+current)
	s.agent.Start(t)
	cluster.Eventually(t, timeout, func() error {
		if err := figures(s.agent); err == nil || !strings.Contains(err.Error(), "not found") {
			return fmt.Errorf("figures of a kubelet with a wrong certificate: %v, want none", err)
		}
		if log := s.server.Log(); !strings.Contains(log, "certificate signed by unknown authority") {
			return errors.New("the log of the server does not say why")
		}
		return figures(s.server)
	})
	s.agent.Stop(t)
	s.agent.Output(t, "sh", "-ec", "cat /var/lib/wrong/was.pem >"+current)
	s.agent.Start(t)
	cluster.Eventually(t, timeout, func() error { return figures(s.agent) })
}

func (s *suite) testServerKilled(t *testing.T) {
	s.server.Kill(t)
	s.server.Start(t)
	s.server.Kubectl(t, "wait", "--timeout=60s", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io")
	cluster.Eventually(t, timeout, func() error {
		out, err := s.server.KubectlErr(t, "top", "node", s.agent.Name)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// theirs is what the manifest of metrics-server makes of the same names.
const theirs = `
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system, labels: {k8s-app: metrics-server}}
spec: {selector: {k8s-app: metrics-server}, ports: [{name: https, port: 443, protocol: TCP, targetPort: https}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io, labels: {k8s-app: metrics-server}}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system}
`

// Switched off it leaves nothing behind that anybody would wait for.
func (s *suite) testDisabled(t *testing.T) {
	s.server.Stop(t)
	s.server.Start(t, "--disable=metrics")
	for _, object := range []string{"apiservice/v1beta1.metrics.k8s.io", "service/metrics-server", "clusterrole/lite:metrics", "clusterrole/lite:metrics-reader", "clusterrolebinding/lite:metrics"} {
		if out, err := s.server.KubectlErr(t, "get", object, "--namespace=kube-system"); err == nil || !strings.Contains(out, "NotFound") {
			t.Errorf("%s: %v, %s, want it to be gone", object, err, out)
		}
	}
	if out, err := s.server.KubectlErr(t, "top", "node"); err == nil || !strings.Contains(out, "Metrics API not available") {
		t.Errorf("top node: %v, %s", err, out)
	}
	if out := s.server.Output(t, "lite", "status"); strings.Contains(out, "metrics") {
		t.Errorf("lite status speaks of metrics:\n%s", out)
	}
	s.server.Kubectl(t, "create", "namespace", "gone")
	s.server.Kubectl(t, "delete", "namespace", "gone", "--timeout=60s")

	// What the user brings in its place is the user's while it is switched off, and
	// gives way when it is switched on again.
	s.server.KubectlStdin(t, theirs, "apply", "-f", "-")
	s.server.Stop(t)
	s.server.Start(t, "--disable=metrics")
	s.server.Kubectl(t, "get", "apiservice/v1beta1.metrics.k8s.io", "service/metrics-server", "--namespace=kube-system")
	s.server.Stop(t)
	s.server.Start(t)
	s.server.Kubectl(t, "wait", "--timeout=60s", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io")
	s.server.Kubectl(t, "get", "--raw", api+"/nodes")
	s.server.Kubectl(t, "create", "namespace", "gone")
	s.server.Kubectl(t, "delete", "namespace", "gone", "--timeout=60s")
}
