package nodes

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"lite.io/lite/tests/harness/cluster"
)

// TestDualStack gives pods and Services addresses of both families, on nodes that
// have both. IPv6 travels between nodes in the same tunnels.
func TestDualStack(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		n.AddIPv6(t)
		n.Output(t, "ip", "-6", "route", "add", "default", "via", "fd99::fe") // where nodes look for Services from
		if n.Role == "server" {
			n.WriteFile(t, "/etc/lite/config.yaml", cluster.DualStack)
		}
	}))
	ns := c.Server().Namespace(t)
	ns.Apply(t, daemonSet+`        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`)
	ns.WaitRollout(t, "daemonset/web")
	nodes := []*cluster.Node{c.Server(), c.Agents[0]}
	var pods []pod
	for _, n := range nodes {
		fields := strings.Fields(ns.Kubectl(t, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+n.Name,
			"-o", "jsonpath={.items[*].metadata.name} {.items[*].status.podIPs[*].ip}"))
		if len(fields) != 3 || !strings.HasPrefix(fields[1], "10.42.") || !strings.HasPrefix(fields[2], "fd42:") {
			t.Fatalf("on %s there are pods and addresses %q, want one pod with one address of each family", n.Name, fields)
		}
		pods = append(pods, pod{ns.PodNetwork(t, fields[0]), fields[2], fields[0], n}, pod{ns.PodNetwork(t, fields[0]), fields[1], fields[0], n})
	}
	clusterIPs := strings.Fields(ns.Kubectl(t, "get", "service", "both", "-o", "jsonpath={.spec.clusterIPs[*]}"))
	if len(clusterIPs) != 2 {
		t.Fatalf("the Service has the addresses %q", clusterIPs)
	}
	nodePort := ns.Field(t, "service/both", ".spec.ports[0].nodePort")
	for _, from := range pods {
		for _, to := range pods {
			url := fmt.Sprintf("http://%s/", net.JoinHostPort(to.IP, "8080"))
			what := fmt.Sprintf("%s to %s at %s", from, to, to.IP)
			reach(t, what, from, url+"hostname", to.name)
			if from.node != to.node && strings.Contains(from.IP, ":") == strings.Contains(to.IP, ":") {
				got, err := cluster.Get(from, url+"clientip")
				if err != nil || !strings.HasPrefix(strings.Trim(got, "["), from.IP) {
					t.Errorf("%s: comes from %q, %v, want %s", what, got, err, from.IP)
				}
			}
			reach(t, from.node.Name+" itself to "+to.IP, from.node, url+"hostname", to.name)
		}
		for _, ip := range clusterIPs {
			reach(t, from.String(), from, "http://"+net.JoinHostPort(ip, "80")+"/hostname", "")
			reach(t, from.node.Name, from.node, "http://"+net.JoinHostPort(ip, "80")+"/hostname", "")
		}
		for _, n := range nodes {
			reach(t, from.String(), from, "http://"+n.IP+":"+nodePort+"/hostname", "")
		}
	}
}
