package dns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"lite.io/lite/tests/harness/cluster"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// says checks what a name is, asked from within a pod of a node.
func (s suite) says(t *testing.T, node, name, want string) error {
	t.Helper()
	m, err := ask(t.Context(), s.pods[node], "udp", clusterDNS, name, dns.TypeA)
	if err != nil {
		return err
	}
	if got := answer(m, name); got != want {
		return fmt.Errorf("on %s, %s is %s, not %s", node, name, got, want)
	}
	return nil
}

// everywhere waits until a name is something on all nodes.
func (s suite) everywhere(t *testing.T, name, want string) {
	t.Helper()
	for node := range s.pods {
		cluster.Eventually(t, time.Minute, func() error { return s.says(t, node, name, want) })
	}
}

// status waits until `lite status` of a node says something of its DNS, or does
// not.
func status(t *testing.T, n *cluster.Node, text string, says bool) {
	t.Helper()
	cluster.Eventually(t, time.Minute, func() error {
		for line := range strings.Lines(n.Output(t, "lite", "status")) {
			if strings.HasPrefix(line, "dns ") && strings.Contains(line, text) != says {
				return fmt.Errorf("lite status on %s says %s", n.Name, line)
			}
		}
		return nil
	})
}

const custom = `
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns-custom, namespace: kube-system}
data:
  test.override: |
    hosts {
      192.0.2.99 custom.test
      fallthrough
    }
    rewrite name alias.test www.outside.test
  test.server: |
    more.test:53 {
      log
      template IN A {
        answer "{{ .Name }} 60 IN A 192.0.2.98"
      }
    }
`

// A Corefile may be extended and changed; each node serves it at once. A broken one
// is served by nobody, and said.
func (s suite) testCorefile(t *testing.T) {
	server, agent := s.cluster.Server(), s.cluster.Agents[0]
	server.KubectlStdin(t, custom, "apply", "-f", "-")
	s.everywhere(t, "custom.test", "A 192.0.2.99")
	s.everywhere(t, "any.more.test", "A 192.0.2.98")
	s.everywhere(t, "alias.test", "A 192.0.2.80")
	if !strings.Contains(agent.Log(), "any.more.test. udp") {
		t.Error("queries that plugin log is to log are not in the log")
	}

	server.Kubectl(t, "patch", "configmap", "coredns-custom", "--namespace=kube-system", "--type=merge", `--patch={"data":{"bad.override":"nonsense on\n"}}`)
	for _, n := range []*cluster.Node{server, agent} {
		status(t, n, "custom/bad.override:1 - Error during parsing: Unknown directive 'nonsense'; serving the last good one", true)
	}
	var events string
	cluster.Eventually(t, time.Minute, func() error {
		events = server.Kubectl(t, "get", "events", "--namespace=kube-system", "--field-selector=reason=BrokenCorefile,involvedObject.name=coredns", "-o", "jsonpath={.items[*].message}")
		if events == "" {
			return errorf("there is no event")
		}
		return nil
	})
	if n := strings.Count(events, "nonsense"); n != 1 {
		t.Errorf("the event was made %d times, not once: %s", n, events)
	}
	for node := range s.pods {
		for name, want := range map[string]string{"custom.test": "A 192.0.2.99", "www.outside.test": "A 192.0.2.80", "kubernetes.default.svc.cluster.local": "A 10.43.0.1"} {
			if err := s.says(t, node, name, want); err != nil {
				t.Error(err)
			}
		}
	}

	// Deleting what was added mends it.
	server.Kubectl(t, "delete", "configmap", "coredns-custom", "--namespace=kube-system")
	s.everywhere(t, "custom.test", "NXDOMAIN")
	for _, n := range []*cluster.Node{server, agent} {
		status(t, n, "broken", false)
	}

	// The main one is the user's from now on, see testBrokenAtStart.
	s.edit(t, `hosts {\n 192.0.2.97 edited.test\n fallthrough\n }\n loop`, "loop")
	s.everywhere(t, "edited.test", "A 192.0.2.97")
}

// edit replaces a text of the Corefile, as kubectl edit would. What is new is
// written as in JSON.
func (s suite) edit(t *testing.T, text, old string) {
	t.Helper()
	now := s.cluster.Server().Kubectl(t, "get", "configmap", "coredns", "--namespace=kube-system", "-o", `jsonpath={.data.Corefile}`)
	changed := strings.Replace(now, old, strings.ReplaceAll(text, `\n`, "\n"), 1)
	if changed == now {
		t.Fatalf("the Corefile has no %q:\n%s", old, now)
	}
	s.cluster.Server().Kubectl(t, "patch", "configmap", "coredns", "--namespace=kube-system", "--type=merge", fmt.Sprintf(`--patch={"data":{"Corefile":%q}}`, changed))
}

// A machine that takes nothing in but what it knows takes questions of its pods.
func (s suite) testFirewall(t *testing.T) {
	agent := s.cluster.Agents[0]
	rule := []string{"INPUT", "-i", "cni0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"}
	agent.Output(t, "iptables", append([]string{"-A"}, rule...)...)
	defer agent.Output(t, "iptables", append([]string{"-D"}, rule...)...)
	for range 3 {
		if err := s.says(t, agent.Name, "kubernetes.default.svc.cluster.local", "A 10.43.0.1"); err != nil {
			t.Error(err)
		}
	}
}

// The machine's name servers are followed as they change, and seen through where
// they are systemd-resolved's; one that asks us in turn is left alone.
func (s suite) testResolvers(t *testing.T) {
	agent := s.cluster.Agents[0]
	const outside = "www.outside.test"
	inside := func() {
		t.Helper()
		if err := s.says(t, agent.Name, "kubernetes.default.svc.cluster.local", "A 10.43.0.1"); err != nil {
			t.Error(err)
		}
	}
	become := func(want string) {
		t.Helper()
		cluster.Eventually(t, time.Minute, func() error { return s.says(t, agent.Name, outside, want) })
		inside()
	}

	agent.WriteFile(t, "/etc/resolv.conf", "")
	become("REFUSED")
	status(t, agent, "/etc/resolv.conf contains no name server", true)
	logs := func(text string) {
		t.Helper()
		cluster.Eventually(t, time.Minute, func() error {
			if !strings.Contains(agent.Log(), text) {
				return errorf("the log does not say %q", text)
			}
			return nil
		})
	}
	logs("The machine has no name server")

	agent.WriteFile(t, "/run/systemd/resolve/resolv.conf", "nameserver "+cluster.Gateway+"\n")
	agent.WriteFile(t, "/etc/resolv.conf", "nameserver 127.0.0.53\n")
	become("A 192.0.2.80")
	status(t, agent, "contains no name server", false)
	logs("The machine has name servers again")

	agent.WriteFile(t, "/etc/resolv.conf", "nameserver 10.43.0.10\n")
	become("REFUSED")
	status(t, agent, "name servers 10.43.0.10 lead back to this server: not forwarding to them", true)
	cluster.Eventually(t, time.Minute, func() error {
		if out := s.cluster.Server().Kubectl(t, "get", "events", "--field-selector=reason=DNSLoop,involvedObject.name="+agent.Name, "-o", "name"); out == "" {
			return errorf("no event says that there is a loop")
		}
		return nil
	})

	agent.WriteFile(t, "/etc/resolv.conf", "nameserver "+cluster.Gateway+"\n")
	become("A 192.0.2.80")
	status(t, agent, "lead back", false)
}
