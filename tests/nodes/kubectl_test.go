package nodes

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// What kubectl does with a pod by way of the server works for pods of all nodes.
func (s *suite) testKubectl(t *testing.T) {
	for _, p := range s.pods {
		t.Run(p.node.Name, func(t *testing.T) {
			if got := s.ns.Kubectl(t, "logs", p.name); !strings.Contains(got, "8080") {
				t.Errorf("logs: %q", got)
			}
			if got := s.ns.Exec(t, p.name, "hostname"); got != p.name+"\n" {
				t.Errorf("exec: %q", got)
			}
			if got := s.ns.KubectlStdin(t, "typed\n", "exec", "-i", p.name, "--", "cat"); got != "typed\n" {
				t.Errorf("exec -i: %q", got)
			}
			for _, path := range []string{"stats/summary", "metrics/resource", "metrics"} {
				got := s.ns.Node.Kubectl(t, "get", "--raw", "/api/v1/nodes/"+p.node.Name+"/proxy/"+path)
				if len(got) < 100 {
					t.Errorf("%s: %q", path, got)
				}
			}
			s.copy(t, p)
			s.forward(t, p)
			s.attach(t, p)
		})
	}
}

func (s *suite) copy(t *testing.T, p pod) {
	n := s.ns.Node
	n.WriteFile(t, "/tmp/copy-"+p.name, strings.Repeat("0123456789\n", 100_000))
	s.ns.Kubectl(t, "cp", "/tmp/copy-"+p.name, p.name+":/tmp/here")
	s.ns.Kubectl(t, "cp", p.name+":/tmp/here", "/tmp/back-"+p.name)
	n.Output(t, "cmp", "/tmp/copy-"+p.name, "/tmp/back-"+p.name)
}

func (s *suite) forward(t *testing.T, p pod) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	forward := s.ns.Node.Command(ctx, "lite", "kubectl", "-n", s.ns.Name, "port-forward", "pod/"+p.name, ":8080")
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	var address string
	if _, err := fmt.Fscanf(stdout, "Forwarding from %s ->", &address); err != nil {
		t.Errorf("port-forward: %v", err)
	} else if got, err := cluster.Get(s.ns.Node, "http://"+address+"/hostname"); err != nil || got != p.name {
		t.Errorf("port-forward: got %q, %v", got, err)
	}
	cancel()
	_ = forward.Wait() // killed
}

func (s *suite) attach(t *testing.T, p pod) {
	name := "echo-" + p.node.Name
	s.ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: %s
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    stdin: true
    stdinOnce: true
    command: [sh, -c, "while read -r line; do echo got $line; done"]
`, name, p.node.Name))
	s.ns.WaitFor(t, "condition=Ready", "pod/"+name)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	attach := s.ns.Node.Command(ctx, "lite", "kubectl", "-n", s.ns.Name, "attach", "-i", name)
	stdin, err := attach.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	defer attach.Wait()
	defer stdin.Close()
	fmt.Fprintln(stdin, "hello")
	if lines := bufio.NewScanner(stdout); !lines.Scan() || lines.Text() != "got hello" {
		t.Errorf("attach: got %q", lines.Text())
	}
}

// The kubelets of agents serve with a certificate that the cluster's CA has
// signed for their name and address.
func (s *suite) testServingCertificate(t *testing.T) {
	for _, n := range s.cluster.Agents {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(n.ReadFile(t, cluster.DataDir+"/agent/ca.crt"))) {
			t.Fatal("no CA on the agent")
		}
		conn, err := s.cluster.Network.DialContext(t.Context(), "tcp", n.IP+":10250")
		if err != nil {
			t.Fatal(err)
		}
		secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: n.IP})
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		} else if leaf := secure.ConnectionState().PeerCertificates[0]; leaf.Subject.CommonName != "system:node:"+n.Name || !slices.Equal(leaf.DNSNames, []string{n.Name}) {
			t.Errorf("%s: certificate of %s for %v", n.Name, leaf.Subject, leaf.DNSNames)
		}
		conn.Close()
	}
}
