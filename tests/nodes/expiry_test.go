package nodes

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/status"
	"lite.io/lite/tests/harness/cluster"
)

const (
	serverPKI = cluster.DataDir + "/server/pki"
	agentCA   = cluster.DataDir + "/agent/ca.crt"
)

// Authorities, and all that they have signed, end under a cluster: that is told a
// month before, by all means and on each node; when they have ended the parts that
// cannot work are not ready, a start is refused, and what docs/security.md says mends it.
func (s *suite) testAuthorityEnds(t *testing.T) {
	server, agent := s.cluster.Server(), s.cluster.Agents[0]
	agent.Stop(t)
	server.Stop(t)
	s.shorten(t, time.Now().Add(20*24*time.Hour))
	server.Start(t)
	agent.Start(t)
	for node, path := range map[*cluster.Node]string{server: serverPKI + "/ca.crt", agent: agentCA} {
		s.tellsOfEnd(t, node, path)
	}

	s.shorten(t, time.Now().Add(10*time.Second))
	for node, parts := range map[*cluster.Node][]string{
		server: {"etcd", "apiserver", "scheduler", "controller-manager", "approver", "metrics", "kubelet", "kube-proxy", "network", "node"},
		agent:  {"load-balancer", "kubelet", "kube-proxy", "network", "node"},
	} {
		cluster.Eventually(t, time.Minute, func() error {
			n := statusOf(t, node)
			for _, name := range parts {
				i := slices.IndexFunc(n.Components, func(c status.Component) bool { return c.Name == name })
				if i < 0 || n.Components[i].State != component.Failed || !strings.Contains(n.Components[i].Reason, " expired on ") {
					return fmt.Errorf("on %s %s is not shown as failed: %+v", node.Name, name, n.Components)
				}
			}
			if len(n.Certificates) == 0 || n.Certificates[0].State != "ended" {
				return fmt.Errorf("the status of %s has %+v", node.Name, n.Certificates)
			}
			return nil
		})
	}
	if out, err := server.KubectlErr(t, "get", "nodes"); err == nil || !strings.Contains(out, "expired") {
		t.Errorf("the certificates are not over: %v, %s", err, out)
	}

	agent.Stop(t)
	server.Stop(t)
	out, err := server.Command(t.Context(), "lite", "server").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no restart renews an authority") {
		t.Errorf("the start says %v\n%s", err, out)
	}
	for _, name := range []pki.Authority{pki.ClusterCA, pki.FrontProxyCA, pki.EtcdCA} {
		server.Output(t, "mv", pki.Dir(serverPKI).CA(name), pki.Dir(serverPKI).CA(name)+".old")
	}
	server.Start(t)
	agent.WriteFile(t, agentCA, server.ReadFile(t, serverPKI+"/ca.crt"))
	agent.Start(t)
	for _, node := range []*cluster.Node{server, agent} {
		if n := statusOf(t, node); len(n.Certificates) > 0 {
			t.Errorf("%s still shows %+v", node.Name, n.Certificates)
		}
		pod := s.podOn(t, node)
		cluster.Eventually(t, time.Minute, func() error {
			out, err := s.ns.KubectlErr(t, "exec", pod, "--", "hostname")
			if err != nil || strings.TrimSpace(out) != pod {
				return fmt.Errorf("hostname in %s: %w: %s", pod, err, out)
			}
			return nil
		})
	}
}

// tellsOfEnd looks everywhere for an authority that ends soon.
func (s *suite) tellsOfEnd(t *testing.T, node *cluster.Node, path string) {
	t.Helper()
	const remedy = "no restart renews an authority"
	n := statusOf(t, node)
	if !n.Ready {
		t.Errorf("%s is not ready, though nothing has ended", node.Name)
	}
	i := slices.IndexFunc(n.Certificates, func(c status.Certificate) bool { return c.Path == path })
	if i < 0 || n.Certificates[i].State != "ends soon" || !strings.Contains(n.Certificates[i].Remedy, remedy) {
		t.Errorf("the status of %s has %+v", node.Name, n.Certificates)
	}
	checked, _ := node.Command(t.Context(), "lite", "check").CombinedOutput()
	for what, text := range map[string]string{
		"lite status": node.Output(t, "lite", "status"), "the log": node.Log(), "lite check": string(checked),
	} {
		if !strings.Contains(text, path) || !strings.Contains(text, remedy) {
			t.Errorf("%s on %s does not tell of %s:\n%s", what, node.Name, path, text)
		}
	}
	server := s.cluster.Server()
	cluster.Eventually(t, time.Minute, func() error {
		out := server.Kubectl(t, "get", "events", "-n", "default", "--field-selector", "reason=CertificateExpiring,involvedObject.name="+node.Name, "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, path) || !strings.Contains(out, remedy) {
			return fmt.Errorf("no event of node %s: %s", node.Name, out)
		}
		return nil
	})
	metrics := server.Kubectl(t, "get", "--raw", "/api/v1/nodes/"+node.Name+"/proxy/metrics")
	if want := `lite_certificate_expiration_timestamp_seconds{path="` + path + `",subject="kubernetes-ca"} `; !strings.Contains(metrics, want) {
		t.Errorf("the kubelet of %s does not serve %s", node.Name, want)
	}
}

func statusOf(t *testing.T, node *cluster.Node) (n status.Node) {
	t.Helper()
	out, _ := node.Command(t.Context(), "lite", "status", "-o", "json").Output() // it fails if a part does
	if err := json.Unmarshal(out, &n); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return n
}

func (s *suite) podOn(t *testing.T, node *cluster.Node) string {
	t.Helper()
	return s.ns.Kubectl(t, "get", "pods", "--field-selector", "spec.nodeName="+node.Name, "-o", "jsonpath={.items[0].metadata.name}")
}

// shorten gives every certificate of the server, and the authority's copy on the agent,
// another end. Keys and names stay.
func (s *suite) shorten(t *testing.T, until time.Time) {
	t.Helper()
	server, agent := s.cluster.Server(), s.cluster.Agents[0]
	dir := pki.Dir(server.Path(serverPKI))
	var authorities []*x509.Certificate
	keys := map[*x509.Certificate]any{}
	for i, f := range dir.Files() {
		cert, _ := read(t, f.Path)
		signer := cert
		if !cert.IsCA {
			signer = authorities[slices.IndexFunc(authorities, func(a *x509.Certificate) bool { return cert.CheckSignatureFrom(a) == nil })]
		} else {
			_, keys[cert] = read(t, dir.CAKey([]pki.Authority{pki.ClusterCA, pki.FrontProxyCA, pki.EtcdCA}[i]))
			authorities = append(authorities, cert)
		}
		cert.NotAfter = until
		der, err := x509.CreateCertificate(rand.Reader, cert, signer, cert.PublicKey, keys[signer])
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if f.Path == dir.Cert(pki.APIServer) {
			ca, err := os.ReadFile(dir.CA(pki.ClusterCA))
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, ca...)
		}
		if err := os.WriteFile(f.Path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agent.WriteFile(t, agentCA, server.ReadFile(t, serverPKI+"/ca.crt"))
}

// read reads the first certificate of a file, or its key.
func read(t *testing.T, path string) (cert *x509.Certificate, key any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block.Type == "CERTIFICATE" {
		cert, err = x509.ParseCertificate(block.Bytes)
	} else {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
