package attacks

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"lite.io/lite/tests/harness/cluster"
)

// What a second round of attacks found, by somebody who had read docs/security.md alone.

// mirror is the pod by which a kubelet shows a static pod.
func (s *suite) mirror(t *testing.T, namespace, labels string) string {
	t.Helper()
	name := s.agent.Name
	uid := s.server.Kubectl(t, "get", "node", name, "-o", "jsonpath={.metadata.uid}")
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: static-%s, namespace: %s, labels: {%s}, annotations: {kubernetes.io/config.mirror: x},
		ownerReferences: [{apiVersion: v1, kind: Node, name: %[1]s, uid: %[4]s, controller: true}]},
		spec: {nodeName: %[1]s, tolerations: [{operator: Exists}], containers: [{name: c, image: i}]}}`, name, namespace, labels, uid)
}

// A taken-over agent made a mirror pod with the labels of another's pods, said that it was
// ready at an address of its choice, and got the packets of that Service's clients.
func (s *suite) testForeignService(t *testing.T) {
	const why = "a static pod may not have labels"
	for _, namespace := range []string{s.ns.Name, "default", "kube-system"} {
		s.refused(t, why, s.agent.Name, s.mirror(t, namespace, "app: web"), "create", "-f", "-")
	}
	if out, err := s.as(t, s.agent.Name, s.mirror(t, s.ns.Name, ""), "create", "-f", "-"); err != nil {
		t.Errorf("a static pod that no Service selects: %s", out)
	}
	allowed := s.server.Namespace(t, "lite.io/static-pods=true")
	if out, err := s.as(t, s.agent.Name, s.mirror(t, allowed.Name, "app: web"), "create", "-f", "-"); err != nil {
		t.Errorf("where its namespace says that it may: %s", out)
	}
}

// A Node with a finalizer of its own stayed when it was deleted, and its certificate was
// good; so did requests for certificates.
func (s *suite) testStays(t *testing.T) {
	const why = "may not prevent its own deletion"
	name := s.agent.Name
	s.refused(t, why, "z1", "{apiVersion: v1, kind: Node, metadata: {name: z1, finalizers: [attack.test/stays]}}", "create", "-f", "-")
	s.refused(t, why, name, "", "patch", "node", name, "--type=merge", "-p", `{"metadata":{"finalizers":["attack.test/stays"]}}`)
	s.server.Kubectl(t, "patch", "node", name, "--type=merge", "-p", `{"metadata":{"finalizers":["admin.test/drains"]}}`)
	s.refused(t, why, name, "", "patch", "node", name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	if out, err := s.as(t, name, "", "annotate", "node", name, "own.test/x=y"); err != nil {
		t.Errorf("a node with a finalizer of the administrator's cannot write itself: %s", out)
	}
	s.server.Kubectl(t, "patch", "node", name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)

	csr := request(t, "z1", newKey(t))
	csr.Finalizers = []string{"attack.test/stays"}
	_, err := s.byToken(t, s.standing(t)).CertificatesV1().CertificateSigningRequests().Create(t.Context(), csr, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "may not create objects with finalizers") {
		t.Errorf("a request that nobody can remove: %v", err)
	}
}

// One agent wrote 121 MiB of events in 8 s, and would have filled the datastore in some
// minutes; a token did it more slowly.
func (s *suite) testDatastore(t *testing.T) {
	client, taken := s.identity(t, s.agent).CoreV1().RESTClient(), 0
	err := error(nil)
	for ; err == nil && taken < 100; taken++ {
		err = client.Post().Namespace("default").Resource("events").MaxRetries(0).Body(&v1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "attack-", Namespace: "default"},
			InvolvedObject: v1.ObjectReference{Kind: "Node", Name: s.agent.Name}, Reason: "Attack", Message: strings.Repeat("a", 1<<20),
		}).Do(t.Context()).Error()
	}
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "lite node revoke") {
		t.Errorf("after %d MiB of events it is told %v", taken, err)
	}
	s.server.Kubectl(t, "delete", "events", "-n", "default", "--field-selector", "reason=Attack")
	csr := request(t, "z1", newKey(t))
	csr.Annotations = map[string]string{"attack.test/a": strings.Repeat("a", 100<<10)}
	_, err = s.byToken(t, s.standing(t)).CertificatesV1().CertificateSigningRequests().Create(t.Context(), csr, metav1.CreateOptions{})
	if !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("a request for a certificate of 100 KiB: %v", err)
	}
}

// One request with a megabyte in its path, in its name or in a header wrote as much into the
// audit log, and some thousands of them all that it holds.
func (s *suite) testAuditLog(t *testing.T) {
	client, long := s.identity(t, s.agent).CoreV1().RESTClient(), strings.Repeat("a", 400<<10)
	for what, request := range map[string]*rest.Request{
		"path":   client.Post().Namespace("default").Resource("pods").Param("attack-path", long).Body(&v1.Pod{}),
		"name":   client.Post().Namespace("default").Resource("pods").Param("attack-name", "").Body(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: long}}),
		"header": client.Post().Namespace("default").Resource("pods").Param("attack-header", "").SetHeader("X-Forwarded-For", strings.Repeat("192.0.2.1,", 40<<10)).Body(&v1.Pod{}),
	} {
		if err := request.MaxRetries(0).Do(t.Context()).Error(); err == nil {
			t.Errorf("%s: a pod without a container is made", what)
		}
		cluster.Eventually(t, soon, func() error {
			found := false
			for line := range strings.Lines(s.server.ReadFile(t, "/var/log/lite/audit.log")) {
				found = found || strings.Contains(line, "attack-"+what)
				if len(line) > 64<<10 {
					t.Errorf("%s: a line of the audit log has %d bytes", what, len(line))
				}
			}
			if !found {
				return fmt.Errorf("%s: who asks is not in the audit log", what)
			}
			return nil
		})
	}
}

// One line from one kubelet ended the control plane.
func (s *suite) testFigures(t *testing.T) {
	pair := []byte(s.agent.Output(t, "cat", cluster.DataDir+"/agent/kubelet/pki/kubelet-server-current.pem"))
	cert, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := s.agent.Listen("tcp", s.agent.IP+":10251")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	server := &http.Server{ReadHeaderTimeout: soon, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "container_cpu_usage_seconds_total 1\n")
		asked.Add(1)
	})}
	defer server.Close()
	go func() {
		_ = server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	}()

	before := s.server.PID(t)
	s.server.KubectlStdin(t, "{apiVersion: v1, kind: Node, metadata: {name: liar}}", "create", "-f", "-")
	defer s.server.Kubectl(t, "delete", "node", "liar")
	s.server.Kubectl(t, "patch", "node", "liar", "--subresource=status", "-p",
		fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10251}}}}`, s.agent.IP))
	cluster.Eventually(t, soon, func() error {
		if n := asked.Load(); n < 2 {
			return fmt.Errorf("it was asked %d times", n)
		}
		return nil
	})
	if after := s.server.PID(t); after != before {
		t.Errorf("the server was started anew: process %d, then %d", before, after)
	}
	s.server.Kubectl(t, "get", "--raw", "/readyz")
}

// tunneled is a datagram in a packet of VXLAN.
func tunneled(t *testing.T, mac string, from, to netip.Addr, port uint16, text string) []byte {
	t.Helper()
	hardware, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(mac), ":", ""))
	if err != nil {
		t.Fatal(err)
	}
	const network = 7104884
	b := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, network<<8)
	b = append(append(b, hardware...), 2, 0, 0, 0, 0, 9, 8, 0)
	head := append([]byte{0x45, 0}, byte((28+len(text))>>8), byte(28+len(text)), 0, 1, 0, 0, 64, 17, 0, 0)
	head = append(append(head, from.AsSlice()...), to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(head); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(head[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(head[10:], ^uint16(sum))
	b = append(b, head...)
	for _, field := range []uint16{4000, port, uint16(8 + len(text)), 0} { // without a checksum
		b = binary.BigEndian.AppendUint16(b, field)
	}
	return append(b, text...)
}

// testTunnel is a pod that sends packets for other pods to the tunnels of nodes, by an
// ordinary socket: it was whoever it said it was, and no NetworkPolicy held.
func (s *suite) testTunnel(t *testing.T) {
	s.ns.Apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: reached}, spec: {nodeName: %s, terminationGracePeriodSeconds: 0,
		containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]}}`, s.server.Name))
	s.ns.WaitFor(t, "condition=Ready", "pod/reached")
	attacker := s.ns.PodNetwork(t, "reaches")
	const port = 8081
	for _, test := range []struct {
		pod      string
		at, from *cluster.Node // where the pod is, and another node
	}{{"reached", s.server, s.agent}, {"reaches", s.agent, s.server}} {
		ip := netip.MustParseAddr(s.ns.Field(t, "pod/"+test.pod, ".status.podIP"))
		bridge := netip.MustParsePrefix(s.ranges(t, test.at.Name)).Addr().Next()
		mac := test.at.Output(t, "cat", "/sys/class/net/lite-vxlan/address")
		got, err := s.ns.PodNetwork(t, test.pod).ListenPacket("udp", netip.AddrPortFrom(ip, port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		source := netip.MustParsePrefix(s.ranges(t, test.from.Name)).Addr().Next()
		sends := func(by cluster.Dialer, to, text string) {
			t.Helper()
			conn, err := by.DialContext(t.Context(), "udp", net.JoinHostPort(to, "8472"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// A refusal comes back as an error of a socket; none is to be seen here.
			_, _ = conn.Write(tunneled(t, mac, source, ip, port, text))
		}
		for _, to := range []string{test.at.IP, bridge.String()} {
			sends(attacker, to, "attack at "+to)
		}
		sends(test.from, test.at.IP, "of a node") // which shows that such packets arrive
		if err := got.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 100)
		for !bytes.HasPrefix(buffer, []byte("of a node")) {
			clear(buffer)
			n, _, err := got.ReadFrom(buffer)
			if err != nil {
				t.Fatalf("on the %s: %v", test.at.Role, err)
			}
			if text := string(buffer[:n]); text != "of a node" {
				t.Errorf("the pod on the %s got %q", test.at.Role, text)
			}
		}
	}
}

// request is one for a node's certificate.
func request(t *testing.T, node string, key crypto.Signer) *certificates.CertificateSigningRequest {
	t.Helper()
	csr, err := requestFor(node, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
