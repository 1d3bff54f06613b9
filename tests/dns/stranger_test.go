package dns

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lite.io/lite/tests/harness/cluster"
)

// silence is how long a stranger waits for an answer that is not to come.
const silence = 2 * time.Second

// A machine of the network needs a route, and nothing else, to send packets to the
// addresses of pods and Services: DNS answers it at none of them, nor do the metrics.
// Pods and nodes, on either node, are answered at all.
func (s suite) testStranger(t *testing.T) {
	server, agent := s.cluster.Server(), s.cluster.Agents[0]
	stranger := cluster.NewHost(t, cluster.On(server.Network()))
	at := map[string]string{} // where a node answers, by the node's name
	for _, n := range []*cluster.Node{server, agent} {
		pods := server.Kubectl(t, "get", "node", n.Name, "-o", "jsonpath={.spec.podCIDR}")
		stranger.Output(t, "ip", "route", "add", pods, "via", n.IP)
		at[n.Name] = strings.TrimSuffix(pods, "0/24") + "1"
	}
	stranger.Output(t, "ip", "route", "add", "10.43.0.0/16", "via", server.IP)
	for pod := range s.pods { // the routes lead there
		ip := s.ns.Field(t, "pod/"+pod, ".status.podIP")
		if _, err := cluster.Get(stranger, "http://"+net.JoinHostPort(ip, "8080")+"/hostname"); err != nil {
			t.Fatalf("the stranger's routes lead nowhere: %v", err)
		}
	}
	for _, route := range []string{"each by its own node", "all by the agent"} {
		var asked sync.WaitGroup // at once: each takes its time
		for _, host := range []string{at[server.Name], at[agent.Name], "10.43.0.10"} {
			for _, port := range []string{"53", "10053", "9153"} {
				for _, network := range []string{"udp", "tcp"} {
					asked.Go(func() {
						if answers(t.Context(), stranger, network, net.JoinHostPort(host, port)) {
							t.Errorf("%s:%s answers a stranger by %s, routed %s", host, port, network, route)
						}
					})
				}
			}
		}
		asked.Wait()
		stranger.Output(t, "ip", "route", "replace", strings.TrimSuffix(at[server.Name], "1")+"0/24", "via", agent.IP)
		stranger.Output(t, "ip", "route", "replace", "10.43.0.0/16", "via", agent.IP)
	}

	all := map[string]cluster.Dialer{"node " + server.Name: server, "node " + agent.Name: agent}
	for pod, dialer := range s.pods {
		all["pod "+pod] = dialer
	}
	for who, from := range all {
		for _, where := range []string{at[server.Name] + ":10053", at[agent.Name] + ":10053", clusterDNS} {
			for _, network := range []string{"udp", "tcp"} {
				m, err := ask(t.Context(), from, network, where, "kubernetes.default.svc.cluster.local", dns.TypeA)
				if err != nil || answer(m, "kubernetes.default.svc.cluster.local") != "A 10.43.0.1" {
					t.Errorf("%s is not answered at %s by %s: %v, %v", who, where, network, m, err)
				}
			}
		}
		for _, host := range []string{at[server.Name], at[agent.Name], "10.43.0.10"} {
			body, err := cluster.Get(from, fmt.Sprintf("http://%s:9153/metrics", host))
			if err != nil || !strings.Contains(body, "coredns_") {
				t.Errorf("%s has no metrics of %s: %v", who, host, err)
			}
		}
	}
}

// answers reports whether there is a connection or, by UDP, an answer of any kind.
func answers(ctx context.Context, from cluster.Dialer, network, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := from.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if network == "tcp" {
		return true
	}
	client := dns.Client{Net: network, Timeout: silence}
	_, _, err = client.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion("kubernetes.default.svc.cluster.local.", dns.TypeA), &dns.Conn{Conn: conn})
	return err == nil
}
