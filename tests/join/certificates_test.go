package join

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// apiName is another name of the server.
const apiName = "api.example.com"

// TestCertificates gives certificates a life of a minute, and asks for others until those
// of an agent are over.
func TestCertificates(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		if n.Role == "server" {
			n.WriteFile(t, "/etc/lite/config.yaml", "tls-san: "+apiName+"\nkube-controller-manager-arg: cluster-signing-duration=60s\n")
		}
	}))
	first := firstCertificates(t, c.Agents[0])
	t.Run("Requests", func(t *testing.T) { testRequests(t, c.Server()) })
	t.Run("Rotation", func(t *testing.T) { testRotation(t, c, first) })
}

// firstCertificates are those that the kubelet of a node was given first, by their files.
func firstCertificates(t *testing.T, agent *cluster.Node) map[string]*x509.Certificate {
	t.Helper()
	first := map[string]*x509.Certificate{}
	for _, file := range []string{"kubelet-client-current.pem", "kubelet-server-current.pem"} {
		cluster.Eventually(t, 20*time.Second, func() error { // the serving one comes after the node is Ready
			_, err := agent.Command(t.Context(), "test", "-e", pkiDir+file).CombinedOutput()
			return err
		})
		first[file] = certificate(t, agent, file)
		if life := time.Until(first[file].NotAfter); life > 2*time.Minute {
			t.Fatalf("%s lives for %s", file, life) // its beginning is dated back by five minutes
		}
	}
	return first
}

// testRotation waits until the first certificates of an agent have expired: they were
// renewed while it ran, and all parts that use them go on.
func testRotation(t *testing.T, c *cluster.Cluster, first map[string]*x509.Certificate) {
	agent := c.Agents[0]
	for file := range first {
		cluster.Eventually(t, 2*time.Minute, func() error {
			now := certificate(t, agent, file)
			if time.Now().Before(first[file].NotAfter) {
				return fmt.Errorf("the first %s is valid until %s", file, first[file].NotAfter)
			}
			if time.Now().After(now.NotAfter) {
				return fmt.Errorf("%s has expired at %s", file, now.NotAfter)
			}
			return nil
		})
	}
	// The kubelet is told of a pod and reports it; the API server reaches the
	// kubelet; kube-proxy learns of a Service.
	ns := c.Server().Namespace(t)
	ns.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: "lite.test/agnhost:2", args: [netexec, --http-port=8080]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`, agent.Name))
	ns.WaitFor(t, "condition=Ready", "pod/web")
	if got := strings.TrimSpace(ns.Kubectl(t, "exec", "web", "--", "hostname")); got != "web" {
		t.Errorf("exec: %q", got)
	}
	soon(t, func() error {
		got, err := cluster.Get(agent, "http://"+ns.Field(t, "service/web", ".spec.clusterIP")+"/hostname")
		if err != nil || got != "web" {
			return fmt.Errorf("the Service: %q, %v", got, err)
		}
		return nil
	})
}

const pkiDir = cluster.DataDir + "/agent/kubelet/pki/"

// certificate reads one of the kubelet's.
func certificate(t *testing.T, n *cluster.Node, file string) *x509.Certificate {
	t.Helper()
	rest := []byte(n.Output(t, "cat", pkiDir+file)) // a link, within the host
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return certificate
		}
	}
	t.Fatalf("%s does not contain a certificate", file)
	return nil
}
