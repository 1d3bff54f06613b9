package workloads

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"lite.io/lite/tests/cluster"
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
}
