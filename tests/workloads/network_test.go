package workloads

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// Both pods behind a Service are reached: by its ClusterIP from the node and
// from pods, by its NodePort also from outside.
func (s suite) testService(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, cluster.Web(2)+"---"+server("client"))
	ns.WaitRollout(t, "deployment/web")
	ns.WaitFor(t, "condition=Ready", "pod/client")
	clusterIP := ns.Field(t, "service/web", ".spec.clusterIP") + ":80"
	nodePort := ns.Node.IP + ":" + ns.Field(t, "service/web", ".spec.ports[0].nodePort")
	client := ns.Field(t, "pod/client", ".status.podIP") + ":8080"
	hairpin := ns.Field(t, "pods", ".items[?(@.metadata.labels.app==\"web\")].status.podIP")
	hairpin = strings.Fields(hairpin)[0]

	direct := func(from cluster.Dialer, address string) func() (string, error) {
		return func() (string, error) { return cluster.Get(from, "http://"+address+"/hostname") }
	}
	fromPod := func(pod, address string) func() (string, error) {
		return func() (string, error) { return dialFromPod(ns.Node, pod, address) }
	}
	for name, hostname := range map[string]func() (string, error){
		"ClusterIP from the node":            direct(ns.Node, clusterIP),
		"ClusterIP from a pod":               fromPod(client, clusterIP),
		"ClusterIP from a pod that is of it": fromPod(hairpin+":8080", clusterIP),
		"NodePort from the node":             direct(ns.Node, nodePort),
		"NodePort from a pod":                fromPod(client, nodePort),
		"NodePort from outside":              direct(s.cluster.Network, nodePort),
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			eventually(t, func() error {
				name, err := hostname()
				if err != nil {
					return err
				}
				if seen[name] = true; len(seen) < 2 {
					return fmt.Errorf("only reached %v", seen)
				}
				return nil
			})
		})
	}
}

// dialFromPod asks a pod, by its address, to fetch /hostname of another one.
func dialFromPod(n *cluster.Node, pod, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	query := url.Values{"host": {host}, "port": {port}, "request": {"hostname"}, "protocol": {"http"}, "tries": {"1"}}
	answer, err := cluster.Get(n, "http://"+pod+"/dial?"+query.Encode())
	if err != nil {
		return "", err
	}
	var result struct{ Responses, Errors []string }
	if err := json.Unmarshal([]byte(answer), &result); err != nil {
		return "", fmt.Errorf("%w: %s", err, answer)
	}
	if len(result.Responses) != 1 {
		return "", fmt.Errorf("%s from pod %s: %v", address, pod, result.Errors)
	}
	return result.Responses[0], nil
}

// A hostPort of a pod is a port of the node, also seen from outside.
func (s suite) testHostPort(t *testing.T, ns *cluster.Namespace) {
	ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/agnhost:2
    args: [netexec, --http-port=8080]
    ports: [{containerPort: 8080, hostPort: 8081}]
`)
	ns.WaitFor(t, "condition=Ready", "pod/web")
	for name, from := range map[string]cluster.Dialer{"the node": ns.Node, "outside": s.cluster.Network} {
		eventually(t, func() error {
			got, err := cluster.Get(from, "http://"+ns.Node.IP+":8081/hostname")
			if err != nil || got != "web" {
				return fmt.Errorf("from %s: %q, %v", name, got, err)
			}
			return nil
		})
	}
	t.Run("OfTheClusterItself", func(t *testing.T) { hostPortsOfTheCluster(t, ns) })
}

// hostPortsOfTheCluster asks for ports on which something of the cluster listens: nobody
// would reach that any more, and with the API server's nobody could take the pod away.
func hostPortsOfTheCluster(t *testing.T, ns *cluster.Namespace) {
	for name, test := range map[string]struct {
		spec string
		ok   bool
	}{
		"API":                    {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 6443}]}]}", false},
		"kubelet":                {"{containers: [{name: c, image: i, ports: [{containerPort: 80}, {containerPort: 10250, hostPort: 10250, protocol: TCP}]}]}", false},
		"at loopback":            {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 2379, hostIP: 127.0.0.1}]}]}", false},
		"pod network":            {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 8472, protocol: UDP}]}]}", false},
		"DNS":                    {"{containers: [{name: c, image: i, ports: [{containerPort: 53, hostPort: 10053, protocol: UDP}]}]}", false},
		"DNS's metrics":          {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 9153}]}]}", false},
		"etcd's metrics":         {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 2381}]}]}", false},
		"exec of others":         {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 10350}]}]}", false},
		"pulls":                  {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 10351, hostIP: 127.0.0.1}]}]}", false},
		"SSH":                    {"{containers: [{name: c, image: i, ports: [{containerPort: 22, hostPort: 22}]}]}", false},
		"of a sidecar":           {"{containers: [{name: c, image: i}], initContainers: [{name: d, image: i, restartPolicy: Always, ports: [{containerPort: 80, hostPort: 10257}]}]}", false},
		"other protocol":         {"{containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 8472}, {containerPort: 81, hostPort: 6443, protocol: UDP}, {containerPort: 82, hostPort: 6443, protocol: SCTP}]}]}", true},
		"in the host's network":  {"{hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 10250}]}]}", true},
		"not a port of the node": {"{containers: [{name: c, image: i, ports: [{containerPort: 6443}, {containerPort: 10250}]}]}", true},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := ns.Node.Command(ctx, "lite", "kubectl", "create", "--dry-run=server", "-n", ns.Name, "-f", "-")
		cmd.Stdin = strings.NewReader("apiVersion: v1\nkind: Pod\nmetadata: {name: taker}\nspec: " + test.spec + "\n")
		out, err := cmd.CombinedOutput()
		cancel()
		if (err == nil) != test.ok || !test.ok && !strings.Contains(string(out), "hostPort is one of the cluster's own") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
