package dns

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// asking asks from within a pod of a node until it is ended, each query once, and
// returns what went wrong.
func (s suite) asking(t *testing.T, node string, answers map[string]string) (end func() (asked int, wrong []error)) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var wg sync.WaitGroup
	asked, wrong := 0, []error(nil)
	for name, want := range answers {
		wg.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				err := s.says(t, node, name, want)
				mu.Lock()
				asked++
				if err != nil {
					wrong = append(wrong, err)
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		cancel()
		wg.Wait()
		return asked, wrong
	}
}

// Neither lite on another node nor the API need be there: for a minute without both,
// and while they come back, no lookup fails.
func (s suite) testOthersRestart(t *testing.T) {
	server, agent := s.cluster.Server(), s.cluster.Agents[0]
	web := s.ns.Field(t, "service/web", ".spec.clusterIP")
	end := s.asking(t, agent.Name, map[string]string{
		"web." + s.ns.Name + ".svc.cluster.local":      "A " + web,
		"nobody." + s.ns.Name + ".cluster.local":       "NXDOMAIN",
		"www.outside.test":                             "A 192.0.2.80",
		"kubernetes.default.svc.cluster.local":         "A 10.43.0.1",
		"headless.nowhere." + "svc.cluster.local":      "NXDOMAIN",
		"10-0-0-1." + s.ns.Name + ".pod.cluster.local": "A 10.0.0.1",
	})
	server.Stop(t)
	pause := time.NewTimer(time.Minute)
	<-pause.C
	server.Start(t)
	asked, wrong := end()
	if len(wrong) > 0 {
		t.Errorf("%d of %d lookups failed, the first with: %v", len(wrong), asked, wrong[0])
	}
	// It is not asleep either: what is new is known.
	s.ns.Kubectl(t, "create", "service", "clusterip", "new", "--tcp=80")
	ip := s.ns.Field(t, "service/new", ".spec.clusterIP")
	s.everywhere(t, "new."+s.ns.Name+".svc.cluster.local", "A "+ip)
}

// A node that starts while the Corefile is broken serves the last good one. lite
// leaves alone what the user has edited.
func (s suite) testBrokenAtStart(t *testing.T) {
	server := s.cluster.Server()
	s.edit(t, "loop {", "loop")
	status(t, server, "Corefile broken", true)
	server.Stop(t)
	if n := sockets(t, server.Host); n != 0 {
		t.Errorf("%d sockets are left of DNS", n)
	}
	server.Start(t)
	status(t, server, "Corefile broken", true)
	s.everywhere(t, "edited.test", "A 192.0.2.97")
	s.edit(t, "loop", "loop {")
	status(t, server, "Corefile broken", false)
	s.everywhere(t, "edited.test", "A 192.0.2.97")
}

// sockets counts those on the port of DNS.
func sockets(t *testing.T, h *cluster.Host) int {
	n := 0
	for _, protocol := range []string{"udp", "tcp", "udp6", "tcp6"} {
		for line := range strings.Lines(h.Output(t, "cat", "/proc/net/"+protocol)) {
			// 10053, and 0A is what listens; 07 is the state of all of UDP.
			if f := strings.Fields(line); strings.HasSuffix(f[1], ":2745") && (f[3] == "0A" || f[3] == "07") {
				n++
			}
		}
	}
	return n
}

// Switched off, DNS takes along what it had put into the cluster; switched on again,
// it is as before.
func (s suite) testDisabled(t *testing.T) {
	server, agent := s.cluster.Server(), s.cluster.Agents[0]
	if n := sockets(t, server.Host); n != 2 {
		t.Errorf("DNS has %d sockets, not one each for UDP and TCP", n)
	}
	server.Stop(t)
	agent.Stop(t)
	server.Start(t, "--disable=dns")
	agent.Start(t)
	left := func() string {
		out := ""
		for _, what := range []string{"configmap/coredns", "service/kube-dns", "role/lite:dns", "rolebinding/lite:dns", "clusterrole/lite:dns", "clusterrolebinding/lite:dns"} {
			out += server.Kubectl(t, "get", what, "--namespace=kube-system", "--ignore-not-found", "-o", "name")
		}
		return out + server.Kubectl(t, "get", "endpointslices", "--namespace=kube-system", "--selector=kubernetes.io/service-name=kube-dns", "-o", "name")
	}
	cluster.Eventually(t, time.Minute, func() error {
		if out := left(); out != "" {
			return errorf("still there: %s", out)
		}
		return nil
	})
	for _, n := range []*cluster.Node{server, agent} {
		if out := n.Output(t, "lite", "status"); strings.Contains(out, "\ndns") {
			t.Errorf("DNS runs:\n%s", out)
		}
		if n := sockets(t, n.Host); n != 0 {
			t.Errorf("DNS has %d sockets", n)
		}
		if rules := n.Output(t, "iptables", "-S"); strings.Contains(rules, "--dport 10053") {
			t.Errorf("there are rules for DNS:\n%s", rules)
		}
	}
	server.Stop(t)
	agent.Stop(t)
	server.Start(t)
	agent.Start(t)
	s.everywhere(t, "kubernetes.default.svc.cluster.local", "A 10.43.0.1")
	s.everywhere(t, "www.outside.test", "A 192.0.2.80")
}
