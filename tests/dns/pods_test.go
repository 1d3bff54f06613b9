package dns

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lite.io/lite/tests/harness/cluster"
)

// Programs in pods find short names by what dnsPolicy and dnsConfig put into their
// /etc/resolv.conf.
func (s suite) testPolicies(t *testing.T) {
	s.ns.Apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: none}
spec:
  dnsPolicy: None
  dnsConfig:
    nameservers: [10.43.0.10]
    searches: [svc.cluster.local, outside.test]
    options: [{name: ndots, value: "3"}]
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]
---
apiVersion: v1
kind: Pod
metadata: {name: default}
spec:
  dnsPolicy: Default
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]
---
apiVersion: v1
kind: Pod
metadata: {name: hostnet}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]
---
apiVersion: v1
kind: Pod
metadata: {name: added}
spec:
  dnsConfig: {searches: [outside.test]}
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]
`)
	s.ns.WaitFor(t, "condition=Ready", "pod/none", "pod/default", "pod/hostnet", "pod/added")
	domains := "search " + s.ns.Name + ".svc.cluster.local svc.cluster.local cluster.local"
	for pod, want := range map[string]struct {
		conf     []string // lines of /etc/resolv.conf
		resolves []string
		unknown  []string
	}{
		s.cluster.Agents[0].Name: {
			[]string{domains, "nameserver 10.43.0.10", "options ndots:5"},
			[]string{"web", "web." + s.ns.Name, "web." + s.ns.Name + ".svc", "web." + s.ns.Name + ".svc.cluster.local", "kubernetes.default", "www.outside.test"},
			[]string{"nothing", "www"},
		},
		"none": {
			[]string{"search svc.cluster.local outside.test", "nameserver 10.43.0.10", "options ndots:3"},
			[]string{"web." + s.ns.Name, "kubernetes.default", "www", "www.outside.test"},
			[]string{"web"},
		},
		"default": {[]string{"nameserver " + cluster.Gateway}, []string{"www.outside.test"}, []string{"web", "kubernetes.default.svc.cluster.local"}},
		"hostnet": {[]string{domains, "nameserver 10.43.0.10"}, []string{"web", "www.outside.test"}, []string{"nothing"}},
		"added":   {[]string{domains + " outside.test", "nameserver 10.43.0.10"}, []string{"web", "www"}, []string{"nothing"}},
	} {
		conf := "\n" + s.ns.Exec(t, pod, "cat", "/etc/resolv.conf")
		for _, line := range want.conf {
			if !strings.Contains(conf, "\n"+line+"\n") {
				t.Errorf("pod %s: /etc/resolv.conf has no line %q:%s", pod, line, conf)
			}
		}
		// It connects, or says why not; "DNS" is when there is no such name.
		connect := func(name string) string {
			out, _ := s.ns.KubectlErr(t, "exec", pod, "--", "/agnhost", "connect", "--timeout=1s", name+":80")
			return out
		}
		for _, name := range want.resolves {
			if out := connect(name); strings.Contains(out, "DNS") {
				t.Errorf("pod %s: %s is not known: %s", pod, name, out)
			}
		}
		for _, name := range want.unknown {
			if out := connect(name); !strings.Contains(out, "DNS") {
				t.Errorf("pod %s: %s is known: %s", pod, name, out)
			}
		}
	}
}

// What is not of the cluster is asked of the machine's name server, once: answers
// are kept, also that there is none, and are given when it is silent.
func (s suite) testForward(t *testing.T) {
	from := s.pods[s.cluster.Server().Name]
	must := func(network, name, want string) {
		t.Helper()
		m, err := ask(t.Context(), from, network, clusterDNS, name, dns.TypeA)
		if err != nil {
			t.Fatal(err)
		}
		if got := answer(m, name); got != want {
			t.Errorf("%s, by %s, is %s, not %s", name, network, got, want)
		}
	}
	for range 5 {
		must("udp", "other.outside.test", "A 192.0.2.81")
		must("udp", "nobody.outside.test", "NXDOMAIN")
	}
	for _, question := range []string{"other.outside.test. A udp", "nobody.outside.test. A udp"} {
		if n := s.upstream.count(question); n != 1 {
			t.Errorf("the machine's name server was asked %d times for %q, not once", n, question)
		}
	}

	m, err := ask(t.Context(), from, "udp", clusterDNS, "big.outside.test", dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	if !m.Truncated {
		t.Errorf("%d records came in a datagram, whole", len(m.Answer))
	}
	if m, err = ask(t.Context(), from, "tcp", clusterDNS, "big.outside.test", dns.TypeA); err != nil || len(m.Answer) != 200 {
		t.Errorf("by TCP: %v, %v", m, err)
	}

	must("udp", "short.outside.test", "A 192.0.2.82")
	s.upstream.silence(true)
	defer s.upstream.silence(false)
	cluster.Eventually(t, time.Minute, func() error {
		m, err := ask(t.Context(), from, "udp", clusterDNS, "short.outside.test", dns.TypeA)
		if err != nil || answer(m, "short.outside.test") != "A 192.0.2.82" {
			t.Fatalf("not known any more: %v, %v", m, err)
		}
		if ttl := m.Answer[0].Header().Ttl; ttl > 0 {
			return errorf("it is to be kept for %d s still", ttl)
		}
		return nil
	})
}

// Metrics are where Prometheus looks for them, by the Service.
func (s suite) testMetrics(t *testing.T) {
	client := http.Client{Transport: &http.Transport{DialContext: s.pods[s.cluster.Agents[0].Name].DialContext, DisableKeepAlives: true}}
	res, err := client.Get("http://10.43.0.10:9153/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(body), `coredns_dns_requests_total{`) {
		t.Errorf("got %v, %d bytes", err, len(body))
	}
}

// The Service has one endpoint per node, which nothing but the coming and going of
// nodes changes.
func (s suite) testEndpoints(t *testing.T) {
	server := s.cluster.Server()
	get := func(path string) string {
		return server.Kubectl(t, "get", "endpointslices", "--namespace=kube-system", "--selector=kubernetes.io/service-name=kube-dns", "-o", "jsonpath={"+path+"}")
	}
	want := map[string]bool{}
	for _, n := range []*cluster.Node{server, s.cluster.Agents[0]} {
		pods := server.Kubectl(t, "get", "node", n.Name, "-o", "jsonpath={.spec.podCIDR}")
		want[strings.TrimSuffix(pods, "0/24")+"1"] = true
	}
	got := strings.Fields(get(".items[*].endpoints[*].addresses[*]"))
	for _, address := range got {
		if !want[address] {
			t.Errorf("%s is nobody's", address)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the endpoints are %v, not %v", got, want)
	}
	before := get(".items[*].metadata.resourceVersion")
	for name := range s.pods { // heartbeats do no more than this
		server.Kubectl(t, "annotate", "node", name, "test.lite.io/x=y")
	}
	if after := get(".items[*].metadata.resourceVersion"); after != before {
		t.Errorf("the slice was written again: version %s, then %s", before, after)
	}
}
