// Package dns shows that names resolve in every pod as Kubernetes specifies it,
// whatever happens to the Corefile, the API, other nodes and the machine's own
// name servers.
package dns

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// clusterDNS is the address of Service kube-dns.
const clusterDNS = "10.43.0.10:53"

// suite is one cluster, of a server and an agent, and the name server that their
// machines are given.
type suite struct {
	cluster  *cluster.Cluster
	upstream *upstream
	ns       *cluster.Namespace
	pods     map[string]*cluster.PodNetwork // by the name of the pod, which is that of its node
}

// TestDNS runs everything on one cluster. What disturbs it comes last.
func TestDNS(t *testing.T) {
	t.Parallel()
	var u *upstream
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		if u == nil {
			u = serveUpstream(t, n.Network())
		}
	}))
	s := suite{cluster: c, upstream: u, ns: c.Server().Namespace(t), pods: map[string]*cluster.PodNetwork{}}
	s.deploy(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Records", s.testRecords},
		{"Policies", s.testPolicies},
		{"Forward", s.testForward},
		{"Metrics", s.testMetrics},
		{"Stranger", s.testStranger},
		{"Firewall", s.testFirewall},
		{"Endpoints", s.testEndpoints},
		{"Corefile", s.testCorefile},
		{"Resolvers", s.testResolvers},
		{"OthersRestart", s.testOthersRestart},
		{"BrokenAtStart", s.testBrokenAtStart},
		{"Disabled", s.testDisabled},
	} {
		t.Run(test.name, test.run)
	}
}

// deploy makes a pod on each node, and what there are names for.
func (s suite) deploy(t testing.TB) {
	t.Helper()
	var names []string
	for _, node := range append(slices.Clone(s.cluster.Servers), s.cluster.Agents...) {
		s.ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: web, on: %[1]s}}
spec:
  nodeName: %[1]s
  hostname: %[1]s
  subdomain: headless
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: lite.test/agnhost:2, args: [netexec, --http-port=8080]}
`, node.Name))
		names = append(names, "pod/"+node.Name)
	}
	s.ns.Apply(t, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: echo, port: 8081, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  clusterIP: None
  selector: {app: nobody}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: external}
spec: {type: ExternalName, externalName: www.outside.test}
---
apiVersion: v1
kind: Service
metadata: {name: internal}
spec: {type: ExternalName, externalName: web.`+s.ns.Name+`.svc.cluster.local}
`)
	s.ns.WaitFor(t, "condition=Ready", names...)
	for _, name := range names {
		pod := strings.TrimPrefix(name, "pod/")
		s.pods[pod] = s.ns.PodNetwork(t, pod)
	}
}

// ask asks a server from within a pod, over udp or tcp, once.
func ask(ctx context.Context, from cluster.Dialer, network, server, name string, qtype uint16) (*dns.Msg, error) {
	conn, err := from.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := client.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), &dns.Conn{Conn: conn})
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", server, name, err)
	}
	return m, nil
}

// answer is what an answer says, in one line: the records, sorted, without the
// names that were asked for and their times; else what it says instead.
func answer(m *dns.Msg, asked string) string {
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	if len(m.Answer) == 0 {
		return "NODATA"
	}
	var lines []string
	for _, rr := range m.Answer {
		line := strings.TrimPrefix(rr.String(), rr.Header().String())
		line = dns.TypeToString[rr.Header().Rrtype] + " " + line
		if !strings.EqualFold(rr.Header().Name, dns.Fqdn(asked)) {
			line = rr.Header().Name + " " + line
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

// testRecords compares answers with what Kubernetes' specification of DNS says
// (https://github.com/kubernetes/dns/blob/master/docs/specification.md), from a pod
// of each node.
func (s suite) testRecords(t *testing.T) {
	clusterIP := s.ns.Field(t, "service/web", ".spec.clusterIP")
	var podIPs, hostnames, headless []string
	for pod := range s.pods {
		ip := s.ns.Field(t, "pod/"+pod, ".status.podIP")
		podIPs = append(podIPs, ip)
		hostnames = append(hostnames, pod)
		headless = append(headless, "A "+ip)
	}
	slices.Sort(headless)
	svc, pod := s.ns.Name+".svc.cluster.local", s.ns.Name+".pod.cluster.local"
	reverse := func(ip string) string { r, _ := dns.ReverseAddr(ip); return r }
	dashed := strings.ReplaceAll(podIPs[0], ".", "-")
	var srv []string
	for _, h := range hostnames {
		srv = append(srv, fmt.Sprintf("SRV 0 50 8080 %s.headless.%s.", h, svc))
	}
	slices.Sort(srv)

	for _, q := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web." + svc, dns.TypeA, "A " + clusterIP},
		{"WEB." + svc, dns.TypeA, "A " + clusterIP},
		{"web." + svc, dns.TypeAAAA, "NODATA"},
		{"_http._tcp.web." + svc, dns.TypeSRV, "SRV 0 100 80 web." + svc + "."},
		{"_echo._udp.web." + svc, dns.TypeSRV, "SRV 0 100 8081 web." + svc + "."},
		{"_http._udp.web." + svc, dns.TypeSRV, "NXDOMAIN"},
		{"_nothing._tcp.web." + svc, dns.TypeSRV, "NXDOMAIN"},
		{reverse(clusterIP), dns.TypePTR, "PTR web." + svc + "."},
		{"headless." + svc, dns.TypeA, strings.Join(headless, ", ")},
		{hostnames[0] + ".headless." + svc, dns.TypeA, "A " + podIPs[0]},
		{"nothing.headless." + svc, dns.TypeA, "NXDOMAIN"},
		{"_http._tcp.headless." + svc, dns.TypeSRV, strings.Join(srv, ", ")},
		{reverse(podIPs[0]), dns.TypePTR, fmt.Sprintf("PTR %s.web.%s., PTR %s.headless.%[2]s.", dashed, svc, hostnames[0])}, // it is of both
		{"nobody." + svc, dns.TypeA, "NXDOMAIN"},
		{"external." + svc, dns.TypeA, "CNAME www.outside.test., www.outside.test. A 192.0.2.80"},
		{"external." + svc, dns.TypeCNAME, "CNAME www.outside.test."},
		{"internal." + svc, dns.TypeA, "CNAME web." + svc + "., web." + svc + ". A " + clusterIP},
		{dashed + "." + pod, dns.TypeA, "A " + podIPs[0]},
		{"192-0-2-1." + pod, dns.TypeA, "A 192.0.2.1"},
		{"kubernetes.default.svc.cluster.local", dns.TypeA, "A 10.43.0.1"},
		{"_https._tcp.kubernetes.default.svc.cluster.local", dns.TypeSRV, "SRV 0 100 443 kubernetes.default.svc.cluster.local."},
		{"kube-dns.kube-system.svc.cluster.local", dns.TypeA, "A 10.43.0.10"},
		{reverse("10.43.0.10"), dns.TypePTR, "PTR kube-dns.kube-system.svc.cluster.local."},
		{"dns-version.cluster.local", dns.TypeTXT, `TXT "1.1.0"`},
		{"nothing." + svc, dns.TypeA, "NXDOMAIN"},
		{"web.nowhere.svc.cluster.local", dns.TypeA, "NXDOMAIN"},
		{"web", dns.TypeA, "NXDOMAIN"}, // search domains are the client's
		{"www.outside.test", dns.TypeA, "A 192.0.2.80"},
		{"www.outside.test", dns.TypeAAAA, "NODATA"},
		{"nothing.outside.test", dns.TypeA, "NXDOMAIN"},
	} {
		for node, from := range s.pods {
			for _, network := range []string{"udp", "tcp"} {
				m, err := ask(t.Context(), from, network, clusterDNS, q.name, q.qtype)
				if err != nil {
					t.Errorf("on %s, by %s: %v", node, network, err)
					continue
				}
				if got := answer(m, q.name); got != q.want {
					t.Errorf("on %s, by %s, %s of %s is\n\t%s\nnot\n\t%s", node, network, dns.TypeToString[q.qtype], q.name, got, q.want)
				}
			}
		}
	}
}
