package policy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

const (
	denyIngress = `{podSelector: {}, policyTypes: [Ingress]}`
	denyAll     = `{podSelector: {}, policyTypes: [Ingress, Egress]}`
)

// hasTable reports whether a node has the table of policies.
func hasTable(t *testing.T, n *cluster.Node) bool {
	t.Helper()
	return strings.Contains(n.Output(t, "nft", "list", "tables"), "lite-policy")
}

// While there is no policy there is no table either.
func (s *suite) testNoTable(t *testing.T) {
	cluster.Eventually(t, 10*time.Second, func() error {
		for _, n := range s.nodes {
			if hasTable(t, n) {
				return fmt.Errorf("%s has a table", n.Name)
			}
		}
		return nil
	})
}

// Policies, pods and namespaces that change take others along.
func (s *suite) testLiveChanges(t *testing.T) {
	friends := `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {friend: "yes"}}}, {namespaceSelector: {matchLabels: {friend: "yes"}}}]}]}`
	into := func(allowed func(from *pod) bool) func(connection) bool {
		return func(c connection) bool { return c.to.space != "red" || c.from == c.to || allowed(c.from) }
	}
	onlyBlue := func(c connection) bool { return c.to.String() != "red/a" || c.from == c.to || c.from.space == "blue" }
	s.apply(t, "red", "friends", friends)
	s.check(t, into(func(*pod) bool { return false }))

	server := s.cluster.Server()
	server.Kubectl(t, "label", "pod", "b", "-n", "red", "friend=yes")
	s.check(t, into(func(from *pod) bool { return from.String() == "red/b" }))

	server.Kubectl(t, "label", "namespace", "green", "friend=yes")
	s.check(t, into(func(from *pod) bool { return from.String() == "red/b" || from.space == "green" }))

	server.Kubectl(t, "label", "pod", "b", "-n", "red", "friend-")
	server.Kubectl(t, "label", "namespace", "green", "friend-")
	s.check(t, into(func(*pod) bool { return false }))

	s.apply(t, "red", "friends", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`)
	s.check(t, onlyBlue)

	// A pod that loses the label by which a policy selects it is free.
	server.Kubectl(t, "label", "pod", "a", "-n", "red", "pod=other", "--overwrite")
	s.check(t, func(connection) bool { return true })
	server.Kubectl(t, "label", "pod", "a", "-n", "red", "pod=a", "--overwrite")
	s.check(t, onlyBlue)

	server.Kubectl(t, "delete", "networkpolicy", "friends", "-n", "red")
	s.check(t, func(connection) bool { return true })
}

// Connections that there are when a policy comes are kept; new ones are not made.
func (s *suite) testEstablished(t *testing.T) {
	to := s.pod(t, "red/a")
	var open []net.Conn
	for _, from := range []*pod{s.pod(t, "red/b"), s.pod(t, "green/a")} { // of the same node and of another
		for _, ip := range to.ips {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			conn, err := from.DialContext(ctx, "tcp", net.JoinHostPort(ip, "80"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			open = append(open, conn)
		}
	}
	answered := func(when string) {
		t.Helper()
		for i, conn := range open {
			if !ask(conn, time.Now().Add(10*time.Second), to.String()) {
				t.Errorf("%s: connection %d is not answered", when, i)
			}
		}
	}
	answered("before")
	s.apply(t, "red", "deny", denyAll)
	s.check(t, func(c connection) bool { return c.from == c.to || c.from.space != "red" && c.to.space != "red" })
	answered("after")
}

// testNodes: what nodes send of their own, and pods in their network, reaches pods
// whatever their policies; a pod always reaches its own node.
func (s *suite) testNodes(t *testing.T) {
	var manifests []string
	for i, n := range s.nodes {
		manifests = append(manifests, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: host%d}
spec:
  nodeName: %s
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: lite.test/busybox:1, command: [sleep, "100000"]}
`, i, n.Name))
	}
	ns := &cluster.Namespace{Name: "blue", Node: s.cluster.Server()}
	ns.Apply(t, strings.Join(manifests, "---"))
	s.apply(t, "red", "deny", denyAll)
	s.check(t, func(c connection) bool { return c.from == c.to || c.from.space != "red" && c.to.space != "red" })
	var attempts []attempt
	for i, n := range s.nodes {
		name := fmt.Sprintf("host%d", i)
		ns.WaitFor(t, "condition=Ready", "pod/"+name)
		for what, from := range map[string]cluster.Dialer{n.Name: n, name: ns.PodNetwork(t, name)} {
			for _, to := range s.in("red") {
				for _, service := range []service{tcp80, udp80} {
					for _, ip := range to.ips {
						attempts = append(attempts, attempt{what, from, service, net.JoinHostPort(ip, "80"), to.String(), true})
					}
				}
			}
		}
	}
	for _, n := range s.nodes {
		l, err := n.Listen("tcp", "0.0.0.0:7777")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go (&pod{space: "node", name: n.Name}).serve(l)
		for _, from := range s.in("red") {
			attempts = append(attempts, attempt{from.String() + " on " + from.node.Name, from, tcp80, n.IP + ":7777", "node/" + n.Name, n == from.node})
		}
	}
	expect(t, "deny all", attempts)
	ns.Kubectl(t, "delete", "pod", "host0", "host1", "host2", "--wait=false")
}

// The kubelet's probes of a pod that nobody may reach succeed.
func (s *suite) testProbes(t *testing.T) {
	s.apply(t, "blue", "deny", denyAll)
	ns := &cluster.Namespace{Name: "blue", Node: s.cluster.Server()}
	for i, n := range s.nodes {
		ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: probed%d}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: lite.test/agnhost:2
    args: [netexec, --http-port=8080]
    readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, failureThreshold: 1}
`, i, n.Name))
	}
	for i := range s.nodes {
		ns.WaitFor(t, "condition=Ready", fmt.Sprintf("pod/probed%d", i))
	}
	ns.Kubectl(t, "delete", "pod", "probed0", "probed1", "probed2", "--wait=false")
}

// Behind a Service it is the pod that counts. Whoever comes from outside by a node's
// port counts with the address that it has there.
func (s *suite) testServices(t *testing.T) {
	ns := &cluster.Namespace{Name: "red", Node: s.cluster.Server()}
	ns.Apply(t, `
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {type: NodePort, selector: {pod: a}, ports: [{port: 8080, targetPort: 80}]}
`)
	to := s.pod(t, "red/a")
	byService := ns.Field(t, "service/a", ".spec.clusterIP") + ":8080"
	nodePort := ":" + ns.Field(t, "service/a", ".spec.ports[0].nodePort")
	var services, nodePorts, outside, nodes []attempt
	for _, from := range s.pods {
		services = append(services, attempt{from.String(), from, tcp80, byService, to.String(), true})
		for _, n := range s.nodes {
			if from != to { // the node would answer it by its own address
				nodePorts = append(nodePorts, attempt{from.String(), from, tcp80, n.IP + nodePort, to.String(), true})
			}
		}
	}
	for _, n := range s.nodes {
		outside = append(outside, attempt{"outside", s.cluster.Network, tcp80, n.IP + nodePort, to.String(), true})
		nodes = append(nodes, attempt{n.Name, n, tcp80, byService, to.String(), true})
	}
	// wanting returns attempts of which those succeed whose name is among some.
	wanting := func(attempts []attempt, some ...string) []attempt {
		attempts = slices.Clone(attempts)
		for i := range attempts {
			attempts[i].want = slices.Contains(some, attempts[i].what)
		}
		return attempts
	}
	expect(t, "no policy", slices.Concat(services, nodePorts, outside, nodes))

	s.apply(t, "red", "deny", denyAll)
	expect(t, "deny all", slices.Concat(wanting(services, to.String()), wanting(nodePorts), wanting(outside), nodes))

	s.apply(t, "red", "deny", `{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {ipBlock: {cidr: 10.99.0.254/32}}], ports: [{port: 80}]}]}`)
	expect(t, "some are let in", slices.Concat(wanting(services, to.String(), "red/b"), outside, nodes))
	ns.Kubectl(t, "delete", "service", "a")
}

// A pod is isolated from its first packet on: its programs start after the rules
// are there.
func (s *suite) testNewPods(t *testing.T) {
	s.apply(t, "red", "deny", `{podSelector: {matchLabels: {young: "yes"}}, policyTypes: [Egress]}`)
	s.check(t, func(connection) bool { return true }) // also lets the nodes learn of the policy
	target := s.pod(t, "green/a")
	ns := &cluster.Namespace{Name: "red", Node: s.cluster.Server()}
	var names []string
	for i := range 6 {
		name := fmt.Sprintf("young%d", i)
		names = append(names, "pod/"+name)
		ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {young: "yes"}}
spec:
  nodeName: %s
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: lite.test/agnhost:2, args: [connect, --timeout=900ms, "%s:80"]}
`, name, s.nodes[i%3].Name, target.ips[0]))
	}
	for _, name := range names {
		var phase string
		cluster.Eventually(t, 40*time.Second, func() error {
			if phase = ns.Field(t, name, ".status.phase"); phase != "Failed" && phase != "Succeeded" {
				return fmt.Errorf("%s is %s", name, phase)
			}
			return nil
		})
		if out := ns.Kubectl(t, "logs", name); phase != "Failed" || !strings.Contains(out, "TIMEOUT") {
			t.Errorf("%s: %s, %s: connected before it was isolated", name, phase, out)
		}
	}
	ns.Kubectl(t, append([]string{"delete", "--wait=false"}, names...)...)
}

// away is how long the API is away in testAway.
const away = 60 * time.Second

// The API is away for a minute, and lite starts anew on an agent meanwhile: what
// is blocked stays blocked all the time, what is not is reached. A table that
// somebody removes on another agent is put back, although there is no API.
func (s *suite) testAway(t *testing.T) {
	s.apply(t, "red", "deny", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`)
	want := func(c connection) bool { return c.to.space != "red" || c.from == c.to || c.from.space == "blue" }
	s.check(t, want)
	server, restarted, tampered := s.nodes[0], s.nodes[1], s.nodes[2]

	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for _, to := range s.in("red") {
		for _, from := range []*pod{s.pod(t, "green/a"), s.pod(t, "green/b"), s.pod(t, "blue/a"), s.pod(t, "blue/c")} {
			if to.node == tampered {
				continue
			}
			c := connection{from, to, tcp80, 0}
			watching.Go(func() { s.watch(t, ctx, c, want(c)) })
		}
	}
	server.Stop(t)
	end := time.After(away)
	tampered.Output(t, "nft", "delete", "table", "inet", "lite-policy")
	restarted.Stop(t)
	restarted.Launch(t)
	<-end
	cluster.Eventually(t, 10*time.Second, func() error {
		if !hasTable(t, tampered) {
			return fmt.Errorf("%s still has no table", tampered.Name)
		}
		return nil
	})
	server.Start(t)
	for _, agent := range s.nodes[1:] {
		agent.WaitReady(t)
	}
	stop()
	watching.Wait()
	s.client = server.Client(t)
	s.check(t, want)
	// And policies go on to be followed.
	s.removePolicies(t)
	s.check(t, func(connection) bool { return true })
}

// watch tries a connection over and over: one that is to be blocked must never be
// made, one that is not may be late once in a while, but not twice in a row.
func (s *suite) watch(t *testing.T, ctx context.Context, c connection, want bool) {
	missed := 0
	for ctx.Err() == nil {
		got := reaches(c)
		if got {
			missed = 0
		} else {
			missed++
		}
		if got != want && (got || missed > 5) {
			t.Errorf("%s: connects: %t, want %t", c, got, want)
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// Nothing is left of the part once it is disabled: no table, no right of nodes.
func (s *suite) testDisabled(t *testing.T) {
	s.apply(t, "red", "deny", denyIngress)
	s.check(t, func(c connection) bool { return c.to.space != "red" || c.from == c.to })
	server := s.cluster.Server()
	roles := func() string {
		return server.Kubectl(t, "get", "clusterroles,clusterrolebindings", "-o", "name")
	}
	if !strings.Contains(roles(), "lite:networkpolicy") {
		t.Errorf("nodes have no right to see policies:\n%s", roles())
	}
	server.Stop(t)
	server.Start(t, "--disable=networkpolicy")
	for _, agent := range s.nodes[1:] {
		agent.Stop(t)
		agent.Start(t)
	}
	s.client = server.Client(t)
	for _, n := range s.nodes {
		if hasTable(t, n) {
			t.Errorf("%s still has a table", n.Name)
		}
	}
	if got := roles(); strings.Contains(got, "lite:networkpolicy") {
		t.Errorf("left are %s", got)
	}
	s.check(t, func(connection) bool { return true })
}
