// Package firewall shows that what a node has in the machine's packet filter, and its
// bridge, is back soon after somebody has removed it.
package firewall

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// TestSomebodyFlushesTheFirewall runs on a server, where nftables carries everything,
// and an agent, whose machine has rules of the older interface, and where iptables
// carries Services.
func TestSomebodyFlushesTheFirewall(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) { prepare(t, n) }))
	server, agent := c.Server(), c.Agents[0]
	ns := server.Namespace(t)
	onServer := newSuite(t, c, ns, server)
	onAgent := newSuite(t, c, ns, agent)
	for _, s := range []*suite{onServer, onAgent} {
		s.await(t, time.Now())
	}
	for _, test := range []struct {
		name string
		on   *suite
		does string   // to the node
		gone []string // what the log names, among other things
	}{
		{"Ruleset", onServer, "nft flush ruleset", []string{"by=nft", "chain LITE-FORWARD of ip filter"}},
		{"NftablesConf", onServer, `nft -f - <<X
flush ruleset
table inet filter { chain input { type filter hook input priority filter; }; chain forward { type filter hook forward priority filter; }; }
X
nft delete table inet filter`, []string{"chain LITE-FORWARD of ip filter"}},
		{"TableReplaced", onServer, `printf 'delete table ip kube-proxy\nadd table ip kube-proxy\n' | nft -f -`, []string{"table ip kube-proxy"}},
		{"IPTablesNat", onServer, "iptables -t nat -F; iptables -t nat -X", []string{"chain LITE-POSTROUTING of ip nat"}},
		{"IPTablesFilter", onServer, "iptables -F; iptables -X; ip6tables -F; ip6tables -X", []string{"chain KUBE-FIREWALL of ip filter", "chain LITE-FORWARD of ip filter"}},
		{"OneJump", onServer, "iptables -S FORWARD | grep LITE-FORWARD | sed s/-A/-D/ | xargs iptables", []string{"chain LITE-FORWARD of ip filter"}},
		{"TableOfServices", onServer, "nft delete table ip kube-proxy", []string{"table ip kube-proxy"}},
		{"TableOfServices6", onServer, "nft delete table ip6 kube-proxy", []string{"table ip6 kube-proxy"}},
		{"TableFlushed", onServer, "nft flush table ip kube-proxy", []string{"chains in table ip kube-proxy"}},
		{"ChainFlushed", onServer, "nft flush chain ip kube-proxy services", []string{"rules of chain services"}},
		{"MapFlushed", onServer, "nft flush map ip kube-proxy service-ips", []string{"elements of service-ips"}},
		{"HostPortTable", onServer, "nft delete table ip cni_hostport", []string{"hostPorts of pod " + ns.Name + "/web-"}},
		{"HostPortTable6", onServer, "nft delete table ip6 cni_hostport", []string{"hostPorts of pod " + ns.Name + "/web-"}},
		{"HostPortChain", onServer, "nft flush chain ip cni_hostport hostports", []string{"hostPorts of pod"}},
		{"HostPortBase", onServer, "nft flush chain ip cni_hostport prerouting", []string{"hostPorts of pod"}},
		{"PolicyTable", onServer, "nft delete table inet lite-policy", []string{"table inet lite-policy"}},
		{"PolicyChain", onServer, "nft flush chain inet lite-policy ingress", []string{"table inet lite-policy"}},
		{"Bridge", onServer, "ip link delete cni0", []string{"interface cni0"}},
		{"BridgeDown", onServer, "ip link set cni0 down", []string{"interface cni0"}},
		{"PodOffTheBridge", onServer, "ip link set $(ip -o link show master cni0 | head -1 | sed 's/^[0-9]*: //; s/@.*//') nomaster", []string{"pod " + ns.Name + "/"}},
		{"BridgeRenamed", onServer, "ip link set cni0 down; ip link set cni0 name elsewhere; ip link set elsewhere up", []string{"interface cni0"}},
		{"Addresses", onServer, "ip address flush dev cni0", []string{"address 10.42.0.1/24 of cni0", "address fd42::1/64 of cni0"}},
		{"Routes", onServer, "ip route flush dev cni0; ip -6 route flush dev cni0", []string{"the route to 10.42.0.0/24 by cni0"}},
		{"RuleReplaced", onServer, "iptables -R LITE-FORWARD 1 -j DROP", []string{"chain LITE-FORWARD of ip filter"}},
		// As by sysctl --system with a file for hardened machines.
		{"Forwarding", onServer, "echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", []string{"the setting net.ipv4.ip_forward"}},
		{"Settings", onServer, "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables; echo 0 >/proc/sys/net/ipv4/conf/cni0/route_localnet",
			[]string{"the setting net.bridge.bridge-nf-call-iptables", "the setting net.ipv4.conf.cni0.route_localnet"}},
		{"Dormant", onServer, `nft "$(for t in 'ip kube-proxy' 'ip nat' 'ip cni_hostport' 'inet lite-policy'; do echo "add table $t { flags dormant; }"; done)"`,
			[]string{"table ip kube-proxy, which is dormant", "table ip nat, which is dormant", "table ip cni_hostport, which is dormant", "table inet lite-policy, which is dormant"}},
		{"OlderNodePorts", onAgent, "iptables-legacy -t nat -F KUBE-NODEPORTS", []string{"rules of chain KUBE-NODEPORTS"}},
		{"OlderNat", onAgent, "iptables-legacy -t nat -F; iptables-legacy -t nat -X", []string{"chain LITE-POSTROUTING of ip nat"}},
		{"OlderFilter", onAgent, "iptables-legacy -F; iptables-legacy -X", []string{"chain LITE-FORWARD of ip filter"}},
		{"OlderServices", onAgent, "iptables-legacy -t nat -F KUBE-SERVICES", []string{"KUBE-SERVICES"}},
		// As docker does when it starts, where iptables is iptables-legacy.
		{"OlderPolicy", onServer, "for i in iptables-legacy ip6tables-legacy; do $i -P FORWARD DROP; done; ip link add docker9 type bridge; ip link delete docker9", []string{"chain LITE-FORWARD of ip filter of the older interface"}},
		{"Everything", onAgent, "nft flush ruleset; for i in iptables-legacy ip6tables-legacy; do for t in nat filter mangle; do $i -t $t -F; $i -t $t -X; done; done; ip link delete cni0",
			[]string{"interface cni0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := onAgent
			if test.on == onAgent {
				other = onServer
			}
			before := other.injuries()
			test.on.injure(t, test.does, test.gone...)
			if other.injuries() != before {
				t.Error("the other node was told of it")
			}
		})
	}
	t.Run("RoutesToOthers", onServer.testRoutesToOthers)
	t.Run("OwnChangesAreNoInjuries", onServer.testOwnChanges)
	t.Run("Killall", onAgent.testKillall)
}

// prepare gives a node both IP families, and an agent rules of the older interface.
func prepare(t *testing.T, n *cluster.Node) {
	n.AddIPv6(t)
	// On a fast machine these are more injuries than lite logs at info: it takes them for a fight.
	config := "node-ip: " + n.IP + "," + n.IPv6() + "\nlog-level: debug\n"
	if n.Role == "server" {
		config += cluster.DualStack
	} else {
		n.Output(t, "iptables-legacy", "-A", "FORWARD", "-s", "198.51.100.3", "-j", "DROP")
		config += "prefer-bundled-bin: true\nkube-proxy-arg: [proxy-mode=iptables]\n"
	}
	n.WriteFile(t, "/etc/lite/config.yaml", config)
}

// suite is the pods of one node and what they reach.
type suite struct {
	cluster *cluster.Cluster
	ns      *cluster.Namespace
	node    *cluster.Node
	client  *cluster.PodNetwork
	checks  []check
}

// check is something that works as long as nobody has injured the node.
type check struct {
	name string
	do   func() error
}

const workloads = `
apiVersion: v1
kind: Pod
metadata: {name: web-NODE, labels: {app: web-NODE}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/agnhost:2
    args: [netexec, --http-port=8080]
    ports: [{containerPort: 8080, hostPort: 8081}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client-NODE}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/busybox:1", command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: locked-NODE, labels: {app: locked-NODE}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [netexec, --http-port=8080]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: locked-NODE}
spec:
  podSelector: {matchLabels: {app: locked-NODE}}
  ingress: [{ports: [{port: 9}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web-NODE}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web-NODE}
  ports: [{port: PORT, targetPort: 8080}]
`

func newSuite(t *testing.T, c *cluster.Cluster, ns *cluster.Namespace, node *cluster.Node) *suite {
	s := &suite{cluster: c, ns: ns, node: node}
	port := map[string]string{"server": "88", "agent": "89"}[node.Role] // of which the load balancer has one
	ns.Apply(t, strings.NewReplacer("NODE", node.Name, "PORT", port).Replace(workloads))
	for _, pod := range []string{"web-", "client-", "locked-"} {
		ns.WaitFor(t, "condition=Ready", "pod/"+pod+node.Name)
	}
	s.client = ns.PodNetwork(t, "client-"+node.Name)
	outside, err := c.Network.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	go tellAddresses(outside)
	service, web := "service/web-"+node.Name, "web-"+node.Name
	ips := strings.Fields(ns.Field(t, service, ".spec.clusterIPs[*]"))
	locked := net.JoinHostPort(ns.Field(t, "pod/locked-"+node.Name, ".status.podIP"), "8080")
	nodePort := ns.Field(t, service, ".spec.ports[0].nodePort")
	for i, name := range []string{"ClusterIP", "ClusterIP of IPv6"} {
		s.checks = append(s.checks, check{name, reaches(s.client, net.JoinHostPort(ips[i], port), web)})
	}
	s.checks = append(s.checks,
		check{"NodePort", reaches(c.Network, node.IP+":"+nodePort, web)},
		check{"load balancer", reaches(c.Network, node.IP+":"+port, web)},
		check{"hostPort", reaches(c.Network, node.IP+":8081", web)},
		check{"hostPort at loopback", reaches(node, "127.0.0.1:8081", web)},
		check{"DNS", s.resolves},
		check{"other node", s.otherNode(t)},
		check{"NetworkPolicy", func() error { return s.isLocked(locked) }},
		check{"way out", func() error { return s.isMasqueraded(outside.Addr().(*net.TCPAddr).Port) }},
		check{"guard of loopback", s.isGuarded},
	)
	return s
}

func reaches(from cluster.Dialer, address, want string) func() error {
	return func() error {
		got, err := get(from, address)
		if err == nil && got != want {
			err = fmt.Errorf("got %q, want %s", got, want)
		}
		return err
	}
}

// get is cluster.Get with little patience: what is broken mostly does not answer.
func get(from cluster.Dialer, address string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer stop()
	conn, err := from.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	conn.Close()
	return cluster.Get(from, "http://"+address+"/hostname")
}

func (s *suite) resolves() error {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return s.client.DialContext(ctx, network, "10.43.0.10:53")
	}}
	_, err := r.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	return err
}

// otherNode reaches the DNS that every node has on its bridge: by the overlay.
func (s *suite) otherNode(t *testing.T) func() error {
	for _, n := range append(s.cluster.Servers[:1:1], s.cluster.Agents...) {
		if n != s.node {
			pods := s.ns.Field(t, "node/"+n.Name, ".spec.podCIDR")
			address := strings.TrimSuffix(pods, ".0/24") + ".1:10053"
			return func() error {
				ctx, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
				defer stop()
				conn, err := s.client.DialContext(ctx, "tcp", address)
				if err == nil {
					conn.Close()
				}
				return err
			}
		}
	}
	return func() error { return nil }
}

func (s *suite) isLocked(address string) error {
	if got, err := get(s.client, address); err == nil {
		return fmt.Errorf("reached the locked pod: %s", got)
	}
	return nil
}

// tellAddresses tells everybody the address that he comes from.
func tellAddresses(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		_, _ = conn.Write([]byte(host))
		conn.Close()
	}
}

func (s *suite) isMasqueraded(port int) error {
	ctx, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer stop()
	conn, err := s.client.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", cluster.Gateway, port))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	seen := make([]byte, 64)
	n, err := conn.Read(seen)
	if got := string(seen[:n]); err == nil && got != s.node.IP {
		return fmt.Errorf("seen as %s, want %s", got, s.node.IP)
	}
	return err
}

// isGuarded looks for the kubelet's rule that keeps others off loopback addresses.
func (s *suite) isGuarded() error {
	tool := "iptables"
	if s.node.Role == "agent" {
		tool = "iptables-legacy"
	}
	for _, chain := range []string{"INPUT", "KUBE-FIREWALL"} {
		out, err := s.node.Command(context.Background(), tool, "-S", chain).CombinedOutput()
		if want := map[string]string{"INPUT": "-j KUBE-FIREWALL", "KUBE-FIREWALL": "-j DROP"}[chain]; err != nil || !strings.Contains(string(out), want) {
			return fmt.Errorf("%s -S %s: %w: %s", tool, chain, err, out)
		}
	}
	return nil
}

// await waits until everything works, and returns for how long since start something
// did not, and what.
func (s *suite) await(t *testing.T, start time.Time) (took time.Duration, last string) {
	t.Helper()
	for _, c := range s.checks {
		cluster.Eventually(t, time.Minute, func() error {
			if err := c.do(); err != nil {
				took, last = time.Since(start), c.name
				return fmt.Errorf("%s on %s: %w", c.name, s.node.Name, err)
			}
			return nil
		})
	}
	return took, last
}

// injure does something to the node and waits until that is mended, and told.
func (s *suite) injure(t *testing.T, does string, gone ...string) {
	t.Helper()
	before, told, start := s.injuries(), len(s.node.Log()), time.Now()
	if out, err := s.node.Command(t.Context(), "sh", "-c", does).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", does, err, out)
	}
	cluster.Eventually(t, time.Minute, func() error {
		if s.injuries() == before {
			return fmt.Errorf("nobody has noticed")
		}
		return nil
	})
	took, last := s.await(t, start)
	var status string
	cluster.Eventually(t, time.Minute, func() error {
		out, err := s.node.Command(t.Context(), "lite", "status").CombinedOutput()
		status = string(out)
		if err != nil || !strings.Contains(status, "removed at ") || !strings.Contains(status, "restored after ") {
			return fmt.Errorf("lite status does not tell (%v):\n%s", err, status)
		}
		return nil
	})
	// A look that had begun before finds only a part of it, and the next one the rest.
	cluster.Eventually(t, time.Minute, func() error {
		for _, text := range gone {
			if log := s.node.Log()[told:]; !strings.Contains(log, text) {
				return fmt.Errorf("%q is not in the log:\n%s", text, log)
			}
		}
		return nil
	})
	line := status[strings.Index(status, "removed at "):]
	t.Logf("all checks passed after %s (last failed: %s); %s", took.Round(time.Millisecond), last, strings.TrimSpace(strings.SplitN(line, "\n", 2)[0]))
}

// testRoutesToOthers takes the way to the pods of other nodes, which the overlay puts back
// and tells of itself.
func (s *suite) testRoutesToOthers(t *testing.T) {
	const routes, neighbours = "ip route show proto 76 | grep lite-vxlan || true", "ip neigh show dev lite-vxlan nud permanent"
	for does, back := range map[string]string{
		"ip route flush dev lite-vxlan": routes, "ip route flush proto 76": routes, "ip address flush dev lite-vxlan": "ip -4 -o address show dev lite-vxlan",
		"ip neigh flush dev lite-vxlan nud permanent":                                        neighbours,
		"ip link set lite-vxlan down; ip link set lite-vxlan name away; ip link set away up": routes,
	} {
		before, told, start := s.injuries(), len(s.node.Log()), time.Now()
		s.node.Output(t, "sh", "-ec", does)
		cluster.Eventually(t, 10*time.Second, func() error {
			if s.node.Output(t, "sh", "-ec", back) == "" {
				return fmt.Errorf("%s: it is not back", does)
			}
			return nil
		})
		took, last := s.await(t, start)
		t.Logf("%s: all checks passed after %s (last failed: %s)", does, took.Round(time.Millisecond), last)
		if s.injuries() != before {
			t.Errorf("%s: told of as an injury of the packet filter:\n%s", does, s.node.Log()[told:])
		}
	}
}

// noticed is how the log begins to tell of an injury.
const noticed = "Somebody has removed rules of this node"

func (s *suite) injuries() int { return strings.Count(s.node.Log(), noticed) }

// testOwnChanges takes away a Service, a policy and a pod with a hostPort, which the
// parts of the node do by removing rules as well.
func (s *suite) testOwnChanges(t *testing.T) {
	more := strings.NewReplacer("web-NODE", "more", "client-NODE", "more-client", "locked-NODE", "more-locked", "NODE", s.node.Name, "8081", "8082", "PORT", "90").Replace(workloads)
	// What the last injury is looked at for once more comes first.
	s.injure(t, "nft delete table ip kube-proxy")
	before := s.injuries()
	s.ns.Apply(t, more)
	s.ns.WaitFor(t, "condition=Ready", "pod/more")
	cluster.Eventually(t, time.Minute, reaches(s.cluster.Network, s.node.IP+":8082", "more"))
	s.ns.Kubectl(t, "delete", "pod/more", "pod/more-client", "pod/more-locked", "service/more", "networkpolicy/more-locked", "--wait")
	cluster.Eventually(t, time.Minute, func() error {
		out, err := s.node.Command(t.Context(), "nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			return err
		}
		if strings.Contains(string(out), "dport 8082") {
			return fmt.Errorf("rules of a hostPort are left:\n%s", out)
		}
		return nil
	})
	// News come in their order: when this one is noticed, those of before were looked at.
	s.injure(t, "nft delete table ip kube-proxy")
	if got := s.injuries() - before; got != 1 {
		t.Errorf("%d injuries were told of, want only the last:\n%s", got, s.node.Log())
	}
}

// testKillall has lite itself take away what it would put back.
func (s *suite) testKillall(t *testing.T) {
	before := s.injuries()
	s.node.Output(t, "lite", "killall")
	rules := s.node.Output(t, "sh", "-c", "nft list ruleset; iptables-legacy-save; ip6tables-legacy-save; ip -o link")
	for _, name := range []string{"LITE-", "kube-proxy", "KUBE-S", "cni_hostport", "lite-policy", "cni0"} {
		if strings.Contains(rules, name) {
			t.Errorf("%s is left:\n%s", name, rules)
		}
	}
	if s.injuries() != before {
		t.Errorf("somebody fought:\n%s", s.node.Log())
	}
}
