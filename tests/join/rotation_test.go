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

// TestRotation gives certificates a life of a minute. Those of an agent are renewed
// while it runs, and all parts that use them go on when the first have expired.
func TestRotation(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Agents(1), cluster.Prepare(func(n *cluster.Node) {
		if n.Role == "server" {
			n.WriteFile(t, "/etc/lite/config.yaml", "kube-controller-manager-arg: cluster-signing-duration=60s\n")
		}
	}))
	agent := c.Agents[0]
	files := []string{"kubelet-client-current.pem", "kubelet-server-current.pem"}
	first := map[string]*x509.Certificate{}
	for _, file := range files {
		cluster.Eventually(t, 20*time.Second, func() error { // the serving one comes after the node is Ready
			_, err := agent.Command(t.Context(), "test", "-e", pkiDir+file).CombinedOutput()
			return err
		})
		first[file] = certificate(t, agent, file)
		if life := time.Until(first[file].NotAfter); life > 2*time.Minute {
			t.Fatalf("%s lives for %s", file, life) // its beginning is dated back by five minutes
		}
	}
	for _, file := range files {
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
	reach(t, agent.Name, agent, "http://"+ns.Field(t, "service/web", ".spec.clusterIP")+"/hostname", "web")
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
