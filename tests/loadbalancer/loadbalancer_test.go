// Package loadbalancer shows what Services of type LoadBalancer get, and who is
// led to them.
package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// outside is the address from which the test's network asks, which is no node's.
const outside = "10.99.0.254"

// TestLoadBalancer runs on one server and two agents. Each test has ports of its own.
func TestLoadBalancer(t *testing.T) {
	c := cluster.New(t, cluster.Agents(2), cluster.Prepare(func(n *cluster.Node) {
		n.AddIPv6(t)
		n.Output(t, "ip", "-6", "route", "add", "default", "via", "fd99::fe") // where nodes look for Services from
		config := "node-ip: " + n.IP + "," + n.IPv6() + "\n"
		if n.Role == "server" {
			config += cluster.DualStack +
				"kube-controller-manager-arg: node-monitor-grace-period=20s\n" // or a test would wait for 50 s
		}
		n.WriteFile(t, "/etc/lite/config.yaml", config)
	}))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), server: c.Server(), agents: c.Agents}
	s.ns.Apply(t, fmt.Sprintf(workloads, s.agents[1].Name))
	s.ns.WaitRollout(t, "daemonset/web")
	s.ns.WaitRollout(t, "deployment/single")
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Addresses", s.testAddresses},
		{"Families", s.testFamilies},
		{"SourceRanges", s.testSourceRanges},
		{"LocalTraffic", s.testLocalTraffic},
		{"Class", s.testClass},
		{"Conflict", s.testConflict},
		{"Reserved", s.testReserved},
		{"TypeChanged", s.testTypeChanged},
		{"Labels", s.testLabels},
		{"NodeNotReady", s.testNodeNotReady},
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
	agents  []*cluster.Node
}

const workloads = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: single}
spec:
  selector: {matchLabels: {app: single}}
  template:
    metadata: {labels: {app: single}}
    spec:
      nodeName: %s
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
`

// service is a manifest of a Service of pods app=web; more is further lines of
// its spec, in YAML's flow style.
func service(name string, port int, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: %d, targetPort: 8080}]%s}
---
`, name, port, more)
}

// all is the addresses of all nodes.
func (s *suite) all() []string { return []string{s.server.IP, s.agents[0].IP, s.agents[1].IP} }

// addresses are those that a Service has.
func (s *suite) addresses(t *testing.T, name string) []string {
	t.Helper()
	return strings.Fields(s.ns.Field(t, "service/"+name, ".status.loadBalancer.ingress[*].ip"))
}

// soon is for whatever is to happen soon; the machine is busy.
const soon = 20 * time.Second

func (s *suite) awaitAddresses(t *testing.T, timeout time.Duration, name string, want ...string) {
	t.Helper()
	cluster.Eventually(t, timeout, func() error {
		if got := s.addresses(t, name); !slices.Equal(got, want) {
			return fmt.Errorf("Service %s has the addresses %v, want %v", name, got, want)
		}
		return nil
	})
}

// reach fetches a path and compares the answer, soon; "" is any.
func reach(t *testing.T, what string, from cluster.Dialer, url, want string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		got, err := cluster.Get(from, url)
		if err != nil || got != want && want != "" {
			return fmt.Errorf("%s: GET %s: %q, %v, want %q", what, url, got, err, want)
		}
		return nil
	})
}

// refused wants that no connection comes about.
func refused(t *testing.T, what string, from cluster.Dialer, address string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	conn.Close()
	return fmt.Errorf("%s reaches %s", what, address)
}

// All nodes' addresses lead to the Service, from everywhere, without node ports.
func (s *suite) testAddresses(t *testing.T) {
	s.ns.Apply(t, service("plain", 80, ", allocateLoadBalancerNodePorts: false"))
	s.awaitAddresses(t, soon, "plain", s.all()...)
	if modes := s.ns.Field(t, "service/plain", ".status.loadBalancer.ingress[*].ipMode"); modes != "VIP VIP VIP" {
		t.Errorf("the modes of the addresses are %q", modes)
	}
	if port := s.ns.Field(t, "service/plain", ".spec.ports[0].nodePort"); port != "" {
		t.Errorf("there is a node port %s", port)
	}
	pod := s.ns.PodNetwork(t, strings.Fields(s.ns.Field(t, "pods", ".items[*].metadata.name"))[0])
	for _, ip := range s.all() {
		for what, from := range map[string]cluster.Dialer{"outside": s.cluster.Network, "the server": s.server, "an agent": s.agents[0], "a pod": pod} {
			reach(t, what, from, "http://"+ip+"/hostname", "")
		}
	}
	if table := s.ns.Kubectl(t, "get", "service", "plain"); !strings.Contains(table, s.server.IP+",") {
		t.Errorf("kubectl get service shows no address:\n%s", table)
	}
	if err := refused(t, "outside", s.cluster.Network, s.server.IP+":79"); err != nil {
		t.Errorf("another port: %v", err)
	}
}

// A Service gets addresses of its families, the first one first, and they lead to it.
func (s *suite) testFamilies(t *testing.T) {
	var six []string
	for _, n := range []*cluster.Node{s.server, s.agents[0], s.agents[1]} {
		six = append(six, n.IPv6())
	}
	// One port may be a Service's of IPv4 and another's of IPv6.
	s.ns.Apply(t, service("four", 89, ", ipFamilies: [IPv4]")+service("six", 89, ", ipFamilies: [IPv6]")+
		service("both", 90, ", ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]"))
	s.awaitAddresses(t, soon, "four", s.all()...)
	s.awaitAddresses(t, soon, "six", six...)
	s.awaitAddresses(t, soon, "both", append(six, s.all()...)...)
	pod := s.ns.PodNetwork(t, strings.Fields(s.ns.Field(t, "pods", ".items[*].metadata.name"))[0])
	for what, from := range map[string]cluster.Dialer{"the server": s.server, "an agent": s.agents[0], "a pod": pod} {
		for _, ip := range six {
			reach(t, what, from, "http://["+ip+"]:89/hostname", "")
			reach(t, what, from, "http://["+ip+"]:90/hostname", "")
		}
	}
	s.ns.Kubectl(t, "delete", "service", "four", "six", "both")
}

func (s *suite) testSourceRanges(t *testing.T) {
	address := net.JoinHostPort(s.server.IP, "81")
	s.ns.Apply(t, service("ranges", 81, ", loadBalancerSourceRanges: ["+outside+"/32]"))
	s.awaitAddresses(t, soon, "ranges", s.all()...)
	reach(t, "outside, which is allowed,", s.cluster.Network, "http://"+address+"/hostname", "")
	if err := refused(t, "an agent, which is not allowed,", s.agents[0], address); err != nil {
		t.Error(err)
	}
	s.ns.Apply(t, service("ranges", 81, ", loadBalancerSourceRanges: ["+s.agents[0].IP+"/32]"))
	reach(t, "an agent, which is allowed now,", s.agents[0], "http://"+address+"/hostname", "")
	cluster.Eventually(t, soon, func() error {
		return refused(t, "outside, which is no longer allowed,", s.cluster.Network, address)
	})
}

// With externalTrafficPolicy Local only the node with the pod is an address, and
// the pod sees who asks.
func (s *suite) testLocalTraffic(t *testing.T) {
	with := s.agents[1]
	s.ns.Apply(t, strings.Replace(service("local", 82, ", externalTrafficPolicy: Local"), "app: web", "app: single", 1))
	s.awaitAddresses(t, soon, "local", with.IP)
	reach(t, "outside", s.cluster.Network, "http://"+with.IP+":82/hostname", "")
	got, err := cluster.Get(s.cluster.Network, "http://"+with.IP+":82/clientip")
	if host, _, _ := net.SplitHostPort(got); err != nil || host != outside {
		t.Errorf("the pod sees %q, %v", got, err)
	}
	health := s.ns.Field(t, "service/local", ".spec.healthCheckNodePort")
	reach(t, "the health check", s.cluster.Network, "http://"+with.IP+":"+health+"/healthz", "")
	if got, err := cluster.Get(s.cluster.Network, "http://"+s.server.IP+":"+health+"/healthz"); err == nil {
		t.Errorf("the health check of a node without endpoints: %s", got)
	}
	s.ns.Kubectl(t, "scale", "deployment/single", "--replicas=0")
	s.awaitAddresses(t, soon, "local")
	s.ns.Kubectl(t, "scale", "deployment/single", "--replicas=1")
	s.awaitAddresses(t, soon, "local", with.IP)
	s.ns.Apply(t, strings.Replace(service("local", 82, ", externalTrafficPolicy: Cluster"), "app: web", "app: single", 1))
	s.awaitAddresses(t, soon, "local", s.all()...)
	s.ns.Kubectl(t, "delete", "service", "local")
}

// A Service of another class is another's, with what that wrote.
func (s *suite) testClass(t *testing.T) {
	s.ns.Apply(t, service("other", 83, ", loadBalancerClass: example.com/other"))
	s.ns.Kubectl(t, "patch", "service", "other", "--subresource=status", "--type=merge",
		"-p", `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ipMode":"Proxy"}]}}}`)
	// Its port is not taken: it is another load balancer's.
	s.ns.Apply(t, service("named", 83, ", loadBalancerClass: lite.io/node"))
	s.awaitAddresses(t, soon, "named", s.all()...)
	if got := s.addresses(t, "other"); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("the Service of another class has %v", got)
	}
	s.ns.Kubectl(t, "delete", "service", "named")
}

// The older Service keeps the port; the younger is told, and gets it at once
// when the older goes.
func (s *suite) testConflict(t *testing.T) {
	s.ns.Apply(t, service("first", 84, ""))
	s.awaitAddresses(t, soon, "first", s.all()...)
	s.ns.Apply(t, strings.Replace(service("second", 84, ""), "[{", "[{name: further, port: 85}, {name: main, ", 1))
	message := s.awaitEvent(t, "second", "PortConflict")
	if want := "port 84/TCP is used by Service " + s.ns.Name + "/first"; !strings.Contains(message, want) {
		t.Errorf("the event says %q, want %q", message, want)
	}
	if got := s.addresses(t, "second"); len(got) > 0 {
		t.Errorf("the loser has %v", got)
	}
	if status := s.server.Output(t, "lite", "status"); !strings.Contains(status, "Service "+s.ns.Name+"/second has no address: port 84/TCP") {
		t.Errorf("lite status does not name the loser:\n%s", status)
	}
	// The other protocol is another port.
	s.ns.Apply(t, strings.Replace(service("datagrams", 84, ""), "port: 84", "protocol: UDP, port: 84", 1))
	s.awaitAddresses(t, soon, "datagrams", s.all()...)
	s.ns.Kubectl(t, "delete", "service", "first")
	s.awaitAddresses(t, soon, "second", s.all()...)
	reach(t, "outside", s.cluster.Network, "http://"+s.server.IP+":84/hostname", "")
	if events := s.events(t, "first"); strings.Contains(events, "PortConflict") {
		t.Errorf("the winner was told: %s", events)
	}
	s.ns.Kubectl(t, "delete", "service", "second", "datagrams")
}

func (s *suite) events(t *testing.T, name string) string {
	t.Helper()
	return s.ns.Kubectl(t, "get", "events", "--field-selector", "involvedObject.kind=Service,involvedObject.name="+name,
		"-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
}

// awaitEvent returns the message of the one event of a reason.
func (s *suite) awaitEvent(t *testing.T, name, reason string) (message string) {
	t.Helper()
	cluster.Eventually(t, soon, func() error {
		var found int
		for line := range strings.Lines(s.events(t, name)) {
			if rest, ok := strings.CutPrefix(line, reason+": "); ok {
				found, message = found+1, rest
			}
		}
		if found != 1 {
			return fmt.Errorf("Service %s has %d events %s, want one", name, found, reason)
		}
		return nil
	})
	return message
}

// No Service can cut the cluster's own traffic off.
func (s *suite) testReserved(t *testing.T) {
	for port, who := range map[int]string{6443: "the API server", 10250: "the kubelet", 22: "SSH server"} {
		name := fmt.Sprintf("reserved-%d", port)
		s.ns.Apply(t, service(name, port, ""))
		if message := s.awaitEvent(t, name, "PortReserved"); !strings.Contains(message, who) {
			t.Errorf("the event for port %d does not name %s: %s", port, who, message)
		}
		if got := s.addresses(t, name); len(got) > 0 {
			t.Errorf("port %d has %v", port, got)
		}
	}
	s.agents[0].Output(t, "lite", "status")
	s.ns.Kubectl(t, "annotate", "service", "reserved-22", "lite.io/lb-allow-ssh-port=true")
	s.awaitAddresses(t, soon, "reserved-22", s.all()...)
	s.ns.Kubectl(t, "delete", "service", "reserved-22", "reserved-6443", "reserved-10250")
}

// A Service that is no longer of the type has no address, and its port is free.
func (s *suite) testTypeChanged(t *testing.T) {
	s.ns.Apply(t, service("changed", 86, ""))
	s.awaitAddresses(t, soon, "changed", s.all()...)
	s.ns.Apply(t, service("heir", 86, ""))
	s.awaitEvent(t, "heir", "PortConflict")
	s.ns.Kubectl(t, "patch", "service", "changed", "-p", `{"spec":{"type":"ClusterIP"}}`)
	s.awaitAddresses(t, soon, "changed")
	s.awaitAddresses(t, soon, "heir", s.all()...)
	s.ns.Kubectl(t, "delete", "service", "changed", "heir")
}

// Labels choose the nodes whose addresses are given.
func (s *suite) testLabels(t *testing.T) {
	first, second := s.agents[0], s.agents[1]
	s.server.Kubectl(t, "label", "node", first.Name, "node-restriction.kubernetes.io/lite-lb=true")
	s.awaitAddresses(t, soon, "plain", first.IP)
	s.server.Kubectl(t, "label", "node", first.Name, "node-restriction.kubernetes.io/lite-lb-")
	s.server.Kubectl(t, "label", "node", second.Name, "node.kubernetes.io/exclude-from-external-load-balancers=")
	s.awaitAddresses(t, soon, "plain", s.server.IP, first.IP)
	s.server.Kubectl(t, "label", "node", second.Name, "node.kubernetes.io/exclude-from-external-load-balancers-")
	s.awaitAddresses(t, soon, "plain", s.all()...)
}

func (s *suite) testNodeNotReady(t *testing.T) {
	s.agents[0].Kill(t)
	s.awaitAddresses(t, time.Minute, "plain", s.server.IP, s.agents[1].IP)
	s.agents[0].Start(t)
	s.awaitAddresses(t, time.Minute, "plain", s.all()...)
}

// What a server that was killed had given is still there, and what changes
// afterwards is seen.
func (s *suite) testServerKilled(t *testing.T) {
	s.server.Kill(t)
	reach(t, "outside, without the server,", s.cluster.Network, "http://"+s.agents[1].IP+"/hostname", "")
	s.server.Start(t)
	if got := s.addresses(t, "plain"); !slices.Equal(got, s.all()) {
		t.Errorf("after a restart the Service has %v", got)
	}
	s.ns.Apply(t, service("after", 87, ""))
	s.awaitAddresses(t, soon, "after", s.all()...)
}

// Switched off, it takes back what it gave, and nothing else.
func (s *suite) testDisabled(t *testing.T) {
	s.ns.Kubectl(t, "patch", "service", "after", "--subresource=status", "--type=merge",
		"-p", `{"status":{"loadBalancer":{"ingress":null}}}`)
	s.awaitAddresses(t, soon, "after", s.all()...) // it is ours to write
	s.server.Stop(t)
	s.server.Start(t, "--disable=loadbalancer")
	if got := s.addresses(t, "plain"); len(got) > 0 {
		t.Errorf("after --disable the Service has %v", got)
	}
	if got := s.addresses(t, "other"); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("after --disable the Service of another class has %v", got)
	}
	cluster.Eventually(t, soon, func() error {
		return refused(t, "outside", s.cluster.Network, s.agents[0].IP+":80")
	})
	s.ns.Apply(t, service("theirs", 88, ""))
	s.ns.Kubectl(t, "patch", "service", "theirs", "--subresource=status", "--type=merge",
		"-p", `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.2","ipMode":"VIP"}]}}}`)
	s.server.Stop(t)
	s.server.Start(t, "--disable=loadbalancer")
	if got := s.addresses(t, "theirs"); !slices.Equal(got, []string{"192.0.2.2"}) {
		t.Errorf("a Service that somebody else gave an address to has %v", got)
	}
	if out, err := s.server.Command(t.Context(), "lite", "status").CombinedOutput(); err != nil {
		t.Error(errors.Join(err, errors.New(string(out))))
	}
}
