package webhooks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is far above what anything here takes; the machine may be busy.
const soon = 90 * time.Second

type suite struct {
	cluster       *cluster.Cluster
	server, agent *cluster.Node
	web           *cluster.Namespace // pods on both nodes, which nobody makes anew
}

// TestWebhooks restarts nodes of one cluster in every way under what users have
// put in the way of writes. Each step leaves the cluster whole.
func TestWebhooks(t *testing.T) {
	c := cluster.New(t, cluster.Agents(1))
	s := &suite{cluster: c, server: c.Server(), agent: c.Agents[0], web: c.Server().Namespace(t)}
	s.web.Apply(t, strings.Replace(cluster.Web(2), "      terminationGracePeriodSeconds", spread+"      terminationGracePeriodSeconds", 1))
	s.web.WaitRollout(t, "deployment/web")

	t.Run("PolicyEngine", s.testPolicyEngine)
	t.Run("Everything", s.testEverything)
	t.Run("Condition", func(t *testing.T) {
		s.apply(t, read(t, "condition.yaml"))
		s.held(t, "a webhook's matchConditions cannot be evaluated")
		s.server.Kubectl(t, "delete", "validatingwebhookconfiguration/hold")
		s.engineWorks(t)
	})
	t.Run("OwnGroups", s.testOwnGroups)
	for _, h := range holds {
		t.Run(h.name, func(t *testing.T) { s.testHold(t, h) })
	}
}

const spread = `      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]
`

// testPolicyEngine has a policy engine, which runs on the agent of the cluster that
// it checks.
// After an end of all pods their addresses are others.
func (s *suite) testPolicyEngine(t *testing.T) {
	cert := certificate(t, "hook.hook.svc")
	s.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: hook}\n---\n"+cert.secret("hook"))
	s.apply(t, strings.NewReplacer(`"example.test/webhook:1"`, "lite.test/agnhost:2"+
		", args: [webhook, --port=8443, --tls-cert-file=/tls/tls.crt, --tls-private-key-file=/tls/tls.key], volumeMounts: [{name: tls, mountPath: /tls}]",
		"containers:", "nodeSelector: {kubernetes.io/hostname: "+s.agent.Name+"}\n      volumes: [{name: tls, secret: {secretName: tls}}]\n      containers:").Replace(read(t, "server.yaml")))
	s.server.Kubectl(t, "rollout", "status", "--timeout=110s", "--namespace=hook", "deployment/hook")
	// What upstream's test server answers to everything without looking at it is a
	// patch, which a validating webhook of the older version may.
	s.apply(t, strings.NewReplacer("/v}", "/add-label}", "<the certificate of the server>", cert.bundle(),
		"admissionReviewVersions: [v1]", "admissionReviewVersions: [v1beta1]").Replace(read(t, "policy-engine.yaml")))
	defer s.server.Kubectl(t, "delete", "namespace", "hook")
	defer s.server.Kubectl(t, "delete", "validatingwebhookconfiguration", "policy")
	s.engineWorks(t)

	for _, end := range []struct {
		name string
		do   func()
	}{
		{"lite killall on both, the agent starts first", func() {
			s.server.Output(t, "lite", "killall")
			s.agent.Output(t, "lite", "killall")
			s.agent.Launch(t)
			s.server.Start(t)
			s.agent.WaitReady(t)
		}},
		{"the server reboots", func() { s.server.Reboot(t); s.server.Start(t) }},
		{"both reboot, the server starts alone", func() {
			s.server.Reboot(t)
			s.agent.Reboot(t)
			s.server.Start(t)
			s.held(t, `webhook "policy.example.com" cannot be called`)
			s.agent.Start(t)
		}},
	} {
		t.Log(end.name)
		end.do()
		s.nodesReady(t)
		s.engineWorks(t)
	}

	t.Log("the engine is gone")
	s.server.Kubectl(t, "delete", "--namespace=hook", "deployment/hook")
	s.server.Kubectl(t, "wait", "--namespace=hook", "--for=delete", "--timeout=110s", "pod", "-l", "app=hook")
	s.held(t, `webhook "policy.example.com" cannot be called`)
	s.server.Kill(t)
	s.server.Start(t)
	s.nodesReady(t)
}

// engineWorks waits until the engine is asked and answers.
func (s *suite) engineWorks(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, soon, func() error { return s.create(t, "default") })
}

// testEverything has a webhook on everything that nobody serves. An agent joins,
// and nodes boot in every order.
func (s *suite) testEverything(t *testing.T) {
	before := s.pods(t)
	s.apply(t, read(t, "everything.yaml"))
	s.held(t, `webhook "all.example.com" cannot be called`)
	s.server.Output(t, "lite", "killall")
	s.server.Start(t)
	s.nodesReady(t)

	// Whoever makes a token that moment is lite.
	token := strings.TrimSpace(s.server.Output(t, "lite", "token", "create"))
	joined := s.cluster.NewAgent(t)
	joined.WriteFile(t, cluster.TokenFile, token)
	joined.Start(t, "--token-file", cluster.TokenFile)
	s.nodesReady(t)
	joined.Reboot(t)
	joined.Start(t)

	s.server.Reboot(t)
	s.agent.Reboot(t)
	s.agent.Launch(t)
	s.server.Start(t)
	s.agent.WaitReady(t)
	s.nodesReady(t)
	// Pods that are there run again, and the Service leads to them.
	cluster.Eventually(t, soon, func() error {
		if now := s.pods(t); !slices.Equal(now, before) {
			return fmt.Errorf("ready pods are %v, were %v", now, before)
		}
		_, err := cluster.Get(s.server, "http://"+s.server.IP+":"+s.web.Field(t, "service/web", ".spec.ports[0].nodePort")+"/hostname")
		return err
	})

	s.server.Kubectl(t, "delete", "validatingwebhookconfiguration", "everything")
	s.engineWorks(t)
	joined.Stop(t)
	s.server.Kubectl(t, "delete", "node", joined.Name)
}

// testOwnGroups leads APIs of Kubernetes' own to nobody while it runs: the cluster stood
// still until the next start.
func (s *suite) testOwnGroups(t *testing.T) {
	for _, api := range []string{"v1.", "v1.apps", "v1.coordination.k8s.io"} {
		s.server.Kubectl(t, "patch", "apiservice", api, "--type=merge", "--patch",
			`{"spec": {"service": {"namespace": "default", "name": "thief", "port": 443}, "insecureSkipTLSVerify": true}}`)
		cluster.Eventually(t, soon, func() error {
			if got, err := s.server.KubectlErr(t, "get", "apiservice", api, "-o", "jsonpath={.spec.service}"); err != nil || got != "" {
				return fmt.Errorf("%s leads to %q, %w", api, got, err)
			}
			if err := s.create(t, "default"); err != nil {
				return err
			}
			if out, err := s.server.Command(t.Context(), "lite", "status").CombinedOutput(); err != nil {
				return fmt.Errorf("not all parts are ready: %w\n%s", err, out)
			}
			return nil
		})
		if log := s.server.Log(); !strings.Contains(log, "apiservice="+api+" ") {
			t.Errorf("the log does not name %s", api)
		}
	}
	s.nodesReady(t)
}

// pods lists the web pods that are ready.
func (s *suite) pods(t *testing.T) []string {
	t.Helper()
	out := s.web.Kubectl(t, "get", "pods", "-o", `jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.uid}{"\n"}{end}`)
	return slices.Sorted(slices.Values(strings.Fields(out)))
}

// hold is something that keeps users' writes up, or nothing but what asks for all
// kinds; and what the server is told besides.
type hold struct{ name, file, kinds, note, argument string }

var holds = []hold{
	{"Mutating", "mutating.yaml", "mutatingwebhookconfiguration/hold", `webhook "mutate.example.com" cannot be called`, ""},
	// Its controllers write under one name then, in place of each under its own.
	{"BlackHole", "black-hole.yaml", "validatingwebhookconfiguration/hold", `webhook "silent.example.com" cannot be called`,
		"--kube-controller-manager-arg=use-service-account-credentials=false"},
	{"ValidatingPolicy", "validating-policy.yaml", "validatingadmissionpolicybinding/hold validatingadmissionpolicy/hold", "policy 'hold' cannot be evaluated", ""},
	{"MutatingPolicy", "mutating-policy.yaml", "mutatingadmissionpolicybinding/hold mutatingadmissionpolicy/hold", "cannot be evaluated", ""},
	{"Labels", "labels.yaml", "validatingadmissionpolicybinding/hold validatingadmissionpolicy/hold", "", ""},
	{"AggregatedAPI", "aggregated.yaml", "apiservice/v1.silent.example.com service/silent endpointslice/silent", "APIService v1.silent.example.com does not answer", ""},
}

// testHold starts all nodes anew under it.
func (s *suite) testHold(t *testing.T, h hold) {
	s.apply(t, read(t, h.file))
	s.held(t, h.note)
	s.server.Kill(t)
	s.server.Output(t, "lite", "killall")
	s.agent.Stop(t)
	s.server.Start(t, strings.Fields(h.argument)...)
	s.agent.Start(t)
	s.nodesReady(t)
	s.held(t, h.note)
	s.server.Kubectl(t, append([]string{"delete"}, strings.Fields(h.kinds)...)...)
	s.engineWorks(t)
}

// held waits until a write of a user's is held up, and `lite status`, whose parts
// are all ready, names what holds it.
func (s *suite) held(t *testing.T, note string) {
	t.Helper()
	if note == "" {
		return
	}
	cluster.Eventually(t, soon, func() error {
		refused := s.create(t, "default")
		out, err := s.server.Command(t.Context(), "lite", "status").CombinedOutput()
		if err != nil || !strings.Contains(string(out), note) {
			return fmt.Errorf("lite status does not say %q: %w\n%s\nwhen a ConfigMap was created: %v", note, err, out, refused)
		}
		return nil
	})
}

// create makes a ConfigMap and deletes it. One that is there is of an attempt whose
// deletion was refused.
func (s *suite) create(t *testing.T, namespace string) error {
	if out, err := s.server.KubectlErr(t, "create", "configmap", "probe", "--namespace", namespace); err != nil && !strings.Contains(out, "already exists") {
		return fmt.Errorf("%w: %s", err, out)
	}
	if out, err := s.server.KubectlErr(t, "delete", "configmap", "probe", "--namespace", namespace); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// nodesReady waits until the API says that all nodes are ready, by heartbeats that
// come.
func (s *suite) nodesReady(t *testing.T) {
	t.Helper()
	nodes := strings.Fields(s.server.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))
	s.server.Kubectl(t, append([]string{"wait", "--timeout=110s", "--for=condition=Ready", "node"}, nodes...)...)
	renewed := func() []string {
		return strings.Fields(s.server.Kubectl(t, "get", "leases", "--namespace=kube-node-lease", "-o", `jsonpath={range .items[*]}{.metadata.name}={.spec.renewTime}{"\n"}{end}`))
	}
	before := renewed()
	cluster.Eventually(t, soon, func() error {
		for _, lease := range renewed() {
			if name, _, _ := strings.Cut(lease, "="); slices.Contains(nodes, name) && slices.Contains(before, lease) {
				return fmt.Errorf("the lease of node %s is not renewed", name)
			}
		}
		return nil
	})
}

func (s *suite) apply(t *testing.T, manifests string) {
	t.Helper()
	s.server.KubectlStdin(t, manifests, "apply", "-f", "-")
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// pair is a certificate that signs itself, with its key, PEM.
type pair struct{ cert, key []byte }

func certificate(t *testing.T, name string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
}

// bundle is the certificate as a caBundle.
func (p pair) bundle() string { return base64.StdEncoding.EncodeToString(p.cert) }

func (p pair) secret(namespace string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: %s}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n",
		namespace, p.bundle(), base64.StdEncoding.EncodeToString(p.key))
}
