package attacks

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"

	"lite.io/lite/tests/harness/cluster"
)

// perHour is how many nodes a token may admit in these tests.
const perHour = 10

// standing is the cluster's own token, as the API knows it.
func (s *suite) standing(t *testing.T) string {
	t.Helper()
	return bare(s.server.ReadFile(t, cluster.DataDir+"/server/token"))
}

// bare is ID and secret of a token in full.
func bare(token string) string {
	token, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(token), "lite://"), "@")
	return token
}

// client is one of the server's API with other credentials than the administrator's.
func (s *suite) client(t *testing.T, change func(*rest.Config)) kubernetes.Interface {
	t.Helper()
	admin := s.server.Config(t)
	config := &rest.Config{Host: admin.Host, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData}, Dial: s.server.DialContext, QPS: -1}
	change(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (s *suite) byToken(t *testing.T, token string) kubernetes.Interface {
	t.Helper()
	return s.client(t, func(c *rest.Config) { c.BearerToken = token })
}

func (s *suite) byCertificate(t *testing.T, cert, key []byte) kubernetes.Interface {
	t.Helper()
	return s.client(t, func(c *rest.Config) { c.CertData, c.KeyData = cert, key })
}

// requestFor is a request for a node's certificate.
func requestFor(node string, key crypto.Signer) (*certificates.CertificateSigningRequest, error) {
	csr, err := cluster.NodeCertificate(node).Sign(key)
	if err != nil {
		return nil, err
	}
	csr.GenerateName = "attack-" + node + "-"
	return csr, nil
}

// asks makes a request for a node's certificate, once, whatever the answer is.
func asks(ctx context.Context, client kubernetes.Interface, node string, key *ecdsa.PrivateKey) (*certificates.CertificateSigningRequest, error) {
	csr, err := requestFor(node, key)
	if err != nil {
		return nil, err
	}
	made := &certificates.CertificateSigningRequest{}
	err = client.CertificatesV1().RESTClient().Post().Resource("certificatesigningrequests").MaxRetries(0).Body(csr).Do(ctx).Into(made)
	return made, err
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// takes gets a certificate for a node by a token, and a client that uses it.
func (s *suite) takes(t *testing.T, token, node string) kubernetes.Interface {
	t.Helper()
	key := newKey(t)
	csr, err := asks(t.Context(), s.byToken(t, token), node, key)
	if err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, soon, func() error {
		csr, err = s.server.Client(t).CertificatesV1().CertificateSigningRequests().Get(t.Context(), csr.Name, metav1.GetOptions{})
		if err == nil && len(csr.Status.Certificate) == 0 {
			err = fmt.Errorf("node %s has no certificate: %+v", node, csr.Status.Conditions)
		}
		return err
	})
	text, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return s.byCertificate(t, csr.Status.Certificate, text)
}

// flood asks for certificates of nodes without end, by several connections.
type flood struct {
	mu       sync.Mutex
	made     int
	slowed   int
	answers  map[string]bool // others than these two
	lastSlow string
}

func (f *flood) run(ctx context.Context, client kubernetes.Interface, key *ecdsa.PrivateKey) {
	for i := 0; ctx.Err() == nil; i++ {
		_, err := asks(ctx, client, fmt.Sprintf("flood-%p-%d", client, i), key)
		f.mu.Lock()
		switch {
		case err == nil:
			f.made++
		case apierrors.IsTooManyRequests(err):
			f.slowed, f.lastSlow = f.slowed+1, err.Error()
		case ctx.Err() == nil:
			f.answers[err.Error()] = true
		}
		f.mu.Unlock()
	}
}

// One token asked for 1,794 certificates in 40 s, and got them all; an agent that came
// meanwhile waited for minutes. Here the agent even has the same token.
func (s *suite) testFlood(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	f, began := &flood{answers: map[string]bool{}}, time.Now()
	var running sync.WaitGroup
	for range 4 {
		client, key := s.byToken(t, s.standing(t)), newKey(t)
		running.Go(func() { f.run(ctx, client, key) })
	}
	defer running.Wait()
	defer stop()
	cluster.Eventually(t, soon, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.slowed == 0 {
			return fmt.Errorf("%d requests were taken, and none was refused: %v", f.made, f.answers)
		}
		return nil
	})
	joins := time.Now()
	s.honest.Start(t, "--token-file", cluster.TokenFile)
	t.Logf("the agent was ready after %s", time.Since(joins).Round(100*time.Millisecond))
	stop()
	running.Wait()
	lasted := time.Since(began)
	t.Logf("in %s %d requests were taken, %d were not", lasted.Round(time.Second), f.made, f.slowed)
	if most := 60 + int(lasted.Seconds()) + 2; f.made > most {
		t.Errorf("%d requests were taken, want %d at most", f.made, most)
	}
	id, _, _ := strings.Cut(s.standing(t), ".")
	if !strings.Contains(f.lastSlow, "token "+id) || !strings.Contains(f.lastSlow, "lite token revoke --nodes "+id) {
		t.Errorf("who asks too fast is told: %s", f.lastSlow)
	}
	for answer := range f.answers {
		t.Errorf("an answer was: %s", answer)
	}
	s.testCap(t, id)
}

// testCap looks at what came of the flood: no more nodes than the token may admit.
func (s *suite) testCap(t *testing.T, id string) {
	t.Helper()
	approved, told := 0, ""
	cluster.Eventually(t, soon, func() error {
		list, err := s.server.Client(t).CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		approved = 0
		for _, csr := range list.Items {
			if !strings.HasPrefix(csr.Name, "attack-flood-") {
				continue
			}
			if len(csr.Status.Conditions) == 0 {
				return fmt.Errorf("nobody has decided %s", csr.Name)
			}
			for _, c := range csr.Status.Conditions {
				if c.Type == certificates.CertificateApproved {
					approved++
				} else {
					told = c.Message
				}
			}
		}
		return nil
	})
	// Two agents have the token too.
	if approved == 0 || approved > perHour-2 {
		t.Errorf("%d of the flood were admitted, want up to %d", approved, perHour-2)
	}
	if !strings.Contains(told, "token "+id+" has admitted") || !strings.Contains(told, "token-nodes-per-hour") {
		t.Errorf("the others were told: %s", told)
	}
	if secret := s.standing(t)[len(id)+1:]; strings.Contains(told, secret) {
		t.Error("what they are told has the token's secret")
	}
	out := s.server.Output(t, "lite", "token", "list", "--nodes")
	for _, name := range []string{s.agent.Name, s.honest.Name, "flood-"} {
		if !strings.Contains(out, name) {
			t.Errorf("%s is not among what was admitted:\n%s", name, out)
		}
	}
}

// refusedAs wants a client to be told that its node is refused.
func refusedAs(ctx context.Context, client kubernetes.Interface, node, why string) error {
	_, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if !apierrors.IsUnauthorized(err) || !strings.Contains(err.Error(), why) {
		return fmt.Errorf("node %s is answered: %w", node, err)
	}
	return nil
}

// A token made node identities that nobody could take back.
func (s *suite) testToken(t *testing.T) {
	token := bare(s.server.Output(t, "lite", "token", "create"))
	id, _, _ := strings.Cut(token, ".")
	first, second := s.takes(t, token, "x1"), s.takes(t, token, "x2")
	if _, err := first.CoreV1().Nodes().Create(t.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	forever := int64(24 * 3600)
	watch, err := first.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=x1", TimeoutSeconds: &forever})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()

	out := s.server.Output(t, "lite", "token", "revoke", "--nodes", id)
	for _, name := range []string{"x1", "x2"} {
		if !strings.Contains(out, "node "+name+": its certificates are revoked") {
			t.Errorf("the command says %s", out)
		}
	}
	ended := time.After(soon)
	for open := true; open; {
		select {
		case _, open = <-watch.ResultChan():
		case <-ended:
			t.Fatal("the watch goes on")
		}
	}
	for name, client := range map[string]kubernetes.Interface{"x1": first, "x2": second} {
		cluster.Eventually(t, soon, func() error { return refusedAs(t.Context(), client, name, "node "+name+" was revoked at") })
		if _, err := asks(t.Context(), client, name, newKey(t)); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s may renew its certificate: %v", name, err)
		}
		_, err := client.CoreV1().Nodes().Create(t.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("%s may register: %v", name, err)
		}
	}
	if out, err := s.server.KubectlErr(t, "get", "node", "x1"); err == nil {
		t.Errorf("the node is there: %s", out)
	}
	// The API server remembers tokens for some seconds (1.37); the approver does not.
	csr, err := asks(t.Context(), s.byToken(t, token), "x3", newKey(t))
	if err == nil {
		cluster.Eventually(t, soon, func() error {
			csr, err := s.server.Client(t).CertificatesV1().CertificateSigningRequests().Get(t.Context(), csr.Name, metav1.GetOptions{})
			if err != nil || len(csr.Status.Conditions) == 0 || csr.Status.Conditions[0].Type != certificates.CertificateDenied {
				return fmt.Errorf("%v, %+v", err, csr.Status.Conditions)
			}
			return nil
		})
	} else if !apierrors.IsUnauthorized(err) {
		t.Errorf("the token is answered: %v", err)
	}
}

// identity is a client with what is on an agent's disk.
func (s *suite) identity(t *testing.T, agent *cluster.Node) kubernetes.Interface {
	t.Helper()
	pair := []byte(agent.Output(t, "cat", cluster.DataDir+"/agent/kubelet/pki/kubelet-client-current.pem")) // a link
	return s.byCertificate(t, pair, pair)
}

// A node that was taken over could not be shut out for up to a year, and neither could
// one that was deleted.
func (s *suite) testNode(t *testing.T) {
	for _, test := range []struct {
		agent      *cluster.Node
		why        string
		take       []string
		stopsFirst bool
	}{
		{s.honest, "was revoked at", []string{"lite", "node", "revoke", s.honest.Name}, false},
		{s.agent, "was deleted at", []string{"lite", "kubectl", "delete", "node", s.agent.Name}, true},
	} {
		name := test.agent.Name
		stolen := s.identity(t, test.agent)
		if _, err := stolen.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		if test.stopsFirst {
			test.agent.Stop(t)
		}
		s.server.Output(t, test.take[0], test.take[1:]...)
		cluster.Eventually(t, soon, func() error { return refusedAs(t.Context(), stolen, name, test.why) })
		if test.agent.Running() {
			test.agent.Stop(t)
		}
		// Without a token it is told so and ends, with one it is a new machine. It asks
		// for a second only, which a busy machine may need for other things.
		cluster.Eventually(t, 2*soon, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon/2)
			defer cancel()
			out, err := test.agent.Command(ctx, "lite", "agent").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "node "+name+" "+test.why) || !strings.Contains(string(out), "lite token create") {
				return fmt.Errorf("without a token: %v\n%s", err, out)
			}
			return nil
		})
		test.agent.Start(t, "--token-file", cluster.TokenFile)
		cluster.Eventually(t, soon, func() error {
			_, err := s.identity(t, test.agent).CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
			return err
		})
		if err := refusedAs(t.Context(), stolen, name, test.why); err != nil {
			t.Errorf("after %s is back, with what was on its disk before: %v", name, err)
		}
	}
	out, err := s.server.Command(t.Context(), "lite", "node", "revoke", s.server.Name).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is a server") {
		t.Errorf("a server is revoked: %v, %s", err, out)
	}
}
