// Package nodes shows that the pods of all nodes reach each other and that the server
// reaches them, whatever happens to a node, its network or its name.
package nodes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestNodes runs what needs one server and two agents and leaves them as they
// were, but for the last test. Another program's policy on all three is to drop what is forwarded.
func TestNodes(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(2), cluster.Prepare(func(n *cluster.Node) {
		n.Output(t, "iptables", "-P", "FORWARD", "DROP")
	}))
	s := &suite{cluster: c, ns: c.Server().Namespace(t), nodes: append(c.Servers[:1:1], c.Agents...)}
	s.ns.Apply(t, s.workloads())
	for _, workload := range []string{"daemonset/web", "daemonset/host", "deployment/single"} {
		s.ns.WaitRollout(t, workload)
	}
	s.findPods(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"PodToPod", s.testPodToPod},
		{"BigDatagrams", s.testBigDatagrams},
		{"Ping", s.testPing},
		{"Service", s.testService},
		{"LocalTraffic", s.testLocalTraffic},
		{"SessionAffinity", s.testSessionAffinity},
		{"HostNetwork", s.testHostNetwork},
		{"HostPort", s.testHostPort},
		{"HundredPods", s.testHundredPods},
		{"Kubectl", s.testKubectl},
		{"ServingCertificate", s.testServingCertificate},
		{"Credentials", s.testCredentials},
		{"Keys", s.testKeys},
		{"AgentStops", s.testAgentStops},
		{"ServerStops", s.testServerStops},
		{"DeviceDeleted", s.testDeviceDeleted},
		{"Placing", s.testPlacing},
		{"ServerMoves", s.testServerMoves},
	} {
		t.Run(test.name, test.run)
	}
}

// suite is what all tests share.
type suite struct {
	cluster *cluster.Cluster
	ns      *cluster.Namespace
	nodes   []*cluster.Node // the server first
	pods    []pod           // of DaemonSet web, in the order of nodes
}

// pod is one that runs `agnhost netexec`.
type pod struct {
	*cluster.PodNetwork
	IP   string
	name string
	node *cluster.Node
}

func (p pod) String() string { return p.name + " on " + p.node.Name }

// pairs are all pairs of pods, both ways, and each pod with itself.
func (s *suite) pairs() (pairs [][2]pod) {
	for _, from := range s.pods {
		for _, to := range s.pods {
			pairs = append(pairs, [2]pod{from, to})
		}
	}
	return pairs
}

func (s *suite) workloads() string {
	return daemonSet + fmt.Sprintf(`        ports: [{containerPort: 8080, hostPort: 9091}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host}
spec:
  selector: {matchLabels: {app: host}}
  template:
    metadata: {labels: {app: host}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: lite.test/agnhost:2
        args: [netexec, --http-port=9090, --udp-port=9090]
        readinessProbe: {httpGet: {path: /hostname, port: 9090}, periodSeconds: 1}
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
---
apiVersion: v1
kind: Service
metadata: {name: single}
spec: {type: NodePort, selector: {app: single}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: single}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: host}
spec: {selector: {app: host}, ports: [{port: 80, targetPort: 9090}]}
`, s.nodes[2].Name)
}

// findPods fills in pods, for as long as t runs.
func (s *suite) findPods(t *testing.T) {
	s.pods = nil
	for _, n := range s.nodes {
		text := s.ns.Kubectl(t, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+n.Name,
			"-o", "jsonpath={.items[*].metadata.name} {.items[*].status.podIP}")
		name, ip, ok := strings.Cut(text, " ")
		if !ok || strings.Contains(ip, " ") {
			t.Fatalf("on %s there are pods %q, want one", n.Name, text)
		}
		s.pods = append(s.pods, pod{s.ns.PodNetwork(t, name), ip, name, n})
	}
}

// soon is for whatever is to happen soon.
func soon(t testing.TB, f func() error) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, f)
}

// reach fetches a path and compares the answer, soon.
func reach(t *testing.T, what string, from cluster.Dialer, url, want string) {
	t.Helper()
	soon(t, func() error {
		got, err := cluster.Get(from, url)
		if err != nil || got != want && want != "" {
			return fmt.Errorf("%s: GET %s: %q, %v, want %q", what, url, got, err, want)
		}
		return nil
	})
}

// Pods see each other's own addresses, and what nodes send arrives as well.
func (s *suite) testPodToPod(t *testing.T) {
	for _, pair := range s.pairs() {
		from, to := pair[0], pair[1]
		what := fmt.Sprintf("%s to %s", from, to)
		reach(t, what, from, "http://"+to.IP+":8080/hostname", to.name)
		got, err := cluster.Get(from, "http://"+to.IP+":8080/clientip")
		if host, _, _ := net.SplitHostPort(got); err != nil || host != from.IP {
			t.Errorf("%s: comes from %q, %v, want %s", what, got, err, from.IP)
		}
		if got, err := exchange(from, to.IP+":8081", []byte("hostname")); err != nil || string(got) != to.name {
			t.Errorf("%s: UDP: %q, %v", what, got, err)
		}
		reach(t, from.node.Name+" itself to "+to.String(), from.node, "http://"+to.IP+":8080/hostname", to.name)
	}
}

// exchange sends a datagram and returns the answer.
func exchange(from cluster.Dialer, address string, datagram []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	conn, err := from.DialContext(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.Write(datagram); err != nil {
		return nil, err
	}
	buffer := make([]byte, 1<<16)
	n, err := conn.Read(buffer)
	return buffer[:n], err
}

// Datagrams that are larger than any packet come through in fragments, there and
// back.
func (s *suite) testBigDatagrams(t *testing.T) {
	big := bytes.Repeat([]byte("lite"), 15000)
	for _, to := range s.pods {
		conn, err := to.ListenPacket("udp", to.IP+":7777")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go echo(conn)
	}
	for _, pair := range s.pairs() {
		for name, from := range map[string]cluster.Dialer{pair[0].String(): pair[0], pair[0].node.Name: pair[0].node} {
			soon(t, func() error {
				got, err := exchange(from, pair[1].IP+":7777", big)
				if err != nil || !bytes.Equal(got, big) {
					return fmt.Errorf("%s to %s: %d bytes of %d came back, %v", name, pair[1], len(got), len(big), err)
				}
				return nil
			})
		}
	}
}

func echo(conn net.PacketConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(buffer[:n], from)
	}
}

// A Service whose only pod is on one node is reached from all, by its ClusterIP
// from pods and nodes, by its NodePort also from outside.
func (s *suite) testService(t *testing.T) {
	clusterIP := "http://" + s.ns.Field(t, "service/single", ".spec.clusterIP") + "/hostname"
	port := s.ns.Field(t, "service/single", ".spec.ports[0].nodePort")
	for _, p := range s.pods {
		reach(t, p.String(), p, clusterIP, "")
		reach(t, p.node.Name, p.node, clusterIP, "")
		nodePort := "http://" + p.node.IP + ":" + port + "/hostname"
		reach(t, "outside", s.cluster.Network, nodePort, "")
		for _, from := range s.pods {
			reach(t, from.String(), from, nodePort, "")
			reach(t, from.node.Name, from.node, nodePort, "")
		}
	}
}

// With externalTrafficPolicy Local only the node with the pod answers, and the
// pod sees who asks.
func (s *suite) testLocalTraffic(t *testing.T) {
	port := s.ns.Field(t, "service/local", ".spec.ports[0].nodePort")
	with := s.nodes[2]
	reach(t, "outside", s.cluster.Network, "http://"+with.IP+":"+port+"/hostname", "")
	got, err := cluster.Get(s.cluster.Network, "http://"+with.IP+":"+port+"/clientip")
	if host, _, _ := net.SplitHostPort(got); err != nil || host != "10.99.0.254" {
		t.Errorf("the pod sees %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	for _, without := range s.nodes[:2] {
		asking.Go(func() {
			if conn, err := s.cluster.Network.DialContext(ctx, "tcp", without.IP+":"+port); err == nil {
				conn.Close()
				t.Errorf("%s answers, which has no pod", without.Name)
			}
		})
	}
	asking.Wait()
	// Within the cluster the policy does not count.
	clusterIP := "http://" + s.ns.Field(t, "service/local", ".spec.clusterIP") + "/hostname"
	for _, p := range s.pods {
		reach(t, p.String(), p, clusterIP, "")
	}
}

func (s *suite) testSessionAffinity(t *testing.T) {
	url := "http://" + s.ns.Field(t, "service/sticky", ".spec.clusterIP") + "/hostname"
	for _, p := range s.pods {
		reach(t, p.String(), p, url, "")
		first, _ := cluster.Get(p, url)
		for range 15 {
			if got, err := cluster.Get(p, url); err != nil || got != first {
				t.Fatalf("%s: reached %q, %v, and %q before", p, got, err, first)
			}
		}
	}
}

// Pods in the network of their node are reached by its address, and by a Service.
func (s *suite) testHostNetwork(t *testing.T) {
	service := "http://" + s.ns.Field(t, "service/host", ".spec.clusterIP") + "/hostname"
	for _, p := range s.pods {
		for _, n := range s.nodes {
			reach(t, p.String(), p, "http://"+n.IP+":9090/hostname", n.Name)
			if n == p.node {
				continue // it would answer from the address of the bridge, as every program does that does not choose
			}
			if got, err := exchange(p, n.IP+":9090", []byte("hostname")); err != nil || string(got) != n.Name {
				t.Errorf("%s to %s: UDP: %q, %v", p, n.Name, got, err)
			}
		}
		for _, from := range []cluster.Dialer{p, p.node} {
			soon(t, func() error {
				seen := map[string]bool{}
				for range 50 { // which of them is reached is chance
					name, err := cluster.Get(from, service)
					if err != nil {
						return err
					}
					if seen[name] = true; len(seen) == len(s.nodes) {
						return nil
					}
				}
				return fmt.Errorf("%s has reached only %v", p, seen)
			})
		}
	}
}

func (s *suite) testHostPort(t *testing.T) {
	for _, to := range s.pods {
		url := "http://" + to.node.IP + ":9091/hostname"
		reach(t, "outside", s.cluster.Network, url, to.name)
		for _, from := range s.pods {
			reach(t, from.String(), from, url, to.name)
			reach(t, from.node.Name, from.node, url, to.name)
		}
	}
}

// Somebody deletes the device of the overlay.
func (s *suite) testDeviceDeleted(t *testing.T) {
	s.findPods(t)
	from, to := s.pods[1], s.pods[2]
	from.node.Output(t, "ip", "link", "del", "lite-vxlan")
	cluster.Eventually(t, 35*time.Second, func() error {
		for _, p := range []pod{to, s.pods[0]} {
			if got, err := cluster.Get(p, "http://"+from.IP+":8080/hostname"); err != nil || got != from.name {
				return fmt.Errorf("%s to %s: %q, %w", p, from, got, err)
			}
		}
		return nil
	})
}

// daemonSet is a pod on each node that answers.
const daemonSet = `
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
        args: [netexec, --http-port=8080, --udp-port=8081]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
`
