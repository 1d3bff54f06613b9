package software

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"lite.io/lite/tests/harness/cluster"
)

// authority is a CA in the cluster, and who issues from it.
const authority = `
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self-signed}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: ca}
spec:
  isCA: true
  commonName: Example CA
  secretName: ca
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: self-signed}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: ca}
spec: {ca: {secretName: ca}}
`

// testCertManager has an operator with definitions, webhooks, injected CAs and
// elections issue certificates, whatever happens to lite meanwhile.
func testCertManager(t *testing.T, node *cluster.Node) {
	dir := made(t, "cert-manager")
	archives, err := filepath.Glob(dir + "/images/*.tar")
	if err != nil || len(archives) != 4 {
		t.Fatalf("images in %s: %q, %v", dir, archives, err)
	}
	for _, archive := range archives {
		importImages(t, node, archive)
	}
	h := newHelm(t, node.Namespace(t))
	// --wait includes the chart's own check, a Job that asks the webhook.
	h.run(t, "install", "cert-manager", put(t, node, dir+"/chart", "/tmp/chart"), "--wait", "--timeout", "110s",
		"--set", "installCRDs=true,replicaCount=2,webhook.replicaCount=2,cainjector.replicaCount=2",
		"--set", "global.leaderElection.leaseDuration=15s,global.leaderElection.renewDeadline=10s,global.leaderElection.retryPeriod=2s")
	apply(t, h.Namespace, authority)
	h.issues(t, "installed")
	if out, err := h.ApplyErr(t, certificate("wrong", "duration: 1m, ")); err == nil || !strings.Contains(out, "admission webhook") {
		t.Errorf("the webhook lets pass what is wrong: %v: %s", err, out)
	}

	t.Log("the leader of the controllers is deleted")
	before, err := holder(t, node, "cert-manager-controller")
	if err != nil {
		t.Fatal(err)
	}
	pod, _, _ := strings.Cut(before, "-external-")
	h.Kubectl(t, "delete", "pod", pod, "--grace-period=0", "--force")
	cluster.Eventually(t, soon, func() error {
		now, err := holder(t, node, "cert-manager-controller")
		if err == nil && now == before {
			err = fmt.Errorf("%s still leads", now)
		}
		return err
	})
	h.issues(t, "led")

	node.Stop(t)
	node.Start(t)
	h.issues(t, "restarted")
	node.Kill(t)
	node.Start(t)
	h.issues(t, "killed")
	node.Reboot(t)
	node.Start(t)
	h.issues(t, "rebooted")

	// All addresses of pods are others now, and the Secret goes back to who owns it.
	h.Kubectl(t, "delete", "secret", "installed")
	h.verify(t, "installed")
}

// certificate asks for one of the CA, with more fields.
func certificate(name, more string) string {
	return fmt.Sprintf("apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: %[1]s}\n"+
		"spec: {%[2]ssecretName: %[1]s, dnsNames: [%[1]s.example.test], privateKey: {algorithm: ECDSA}, issuerRef: {name: ca}}\n", name, more)
}

// apply applies what a webhook judges, which may have to come up first.
func apply(t *testing.T, ns *cluster.Namespace, manifests string) {
	t.Helper()
	cluster.Eventually(t, 2*soon, func() error {
		if out, err := ns.ApplyErr(t, manifests); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// issues asks for a certificate and wants it.
func (h helm) issues(t *testing.T, name string) {
	t.Helper()
	apply(t, h.Namespace, certificate(name, ""))
	h.WaitFor(t, "condition=Ready", "certificate/"+name)
	h.verify(t, name)
}

// verify wants a Secret with a key and a certificate of the CA for it.
func (h helm) verify(t *testing.T, name string) {
	t.Helper()
	cluster.Eventually(t, 2*soon, func() error {
		out, err := h.KubectlErr(t, "get", "secret", name, "-o", "json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var secret corev1.Secret
		if err := json.Unmarshal([]byte(out), &secret); err != nil {
			return err
		}
		pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
		if err != nil {
			return fmt.Errorf("secret %s: %w", name, err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(secret.Data["ca.crt"])
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name + ".example.test"})
		return err
	})
}
