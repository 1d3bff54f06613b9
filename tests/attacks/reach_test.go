package attacks

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// testReach has everybody of the table in docs/security.md who is not a node try what it
// says is kept from him.
func (s *suite) testReach(t *testing.T) {
	s.ns.Apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: reaches}, spec: {nodeName: %s, terminationGracePeriodSeconds: 0,
		containers: [{name: main, image: "lite.test/agnhost:2", args: [pause]}]}}`, s.agent.Name))
	s.ns.WaitFor(t, "condition=Ready", "pod/reaches")
	t.Run("NamespaceAdmin", s.testNamespaceAdmin)
	t.Run("Pod", s.testPod)
	t.Run("Tunnel", s.testTunnel)
	t.Run("HostNetwork", s.testHostNetwork)
	t.Run("Stranger", s.testStranger)
	t.Run("LocalUser", s.testLocalUser)
	t.Run("Ports", s.testPorts)
	t.Run("Handover", s.testHandover)
}

// testNamespaceAdmin is who has the role admin in a namespace.
func (s *suite) testNamespaceAdmin(t *testing.T) {
	s.ns.Kubectl(t, "create", "rolebinding", "of-the-namespace", "--clusterrole=admin", "--user=owner")
	as := func(line string) (string, error) {
		return s.server.KubectlErr(t, append([]string{"--as=owner"}, strings.Fields(line)...)...)
	}
	ns := " -n " + s.ns.Name
	for _, line := range []string{"get secrets" + ns, "get pods" + ns, "create configmap own" + ns} {
		if out, err := as(line); err != nil {
			t.Errorf("may not %s: %s", line, out)
		}
	}
	for _, line := range []string{
		"get secrets -n kube-system", "get configmaps -n kube-system", "get secrets -A", "get nodes", "get pv", "get csr",
		"annotate configmap coredns a=b -n kube-system", "create configmap coredns-custom -n kube-system", "annotate node " + s.agent.Name + " a=b",
		"create clusterrole own --verb=get --resource=secrets", "create clusterrolebinding own --clusterrole=admin --user=owner",
		"create rolebinding own --clusterrole=cluster-admin --user=owner" + ns, "create rolebinding own --clusterrole=admin --user=owner -n default",
		"get --raw /metrics", "get --raw /api/v1/nodes/" + s.agent.Name + "/proxy/pods",
	} {
		if out, err := as(line); err == nil || !strings.Contains(strings.ToLower(out), "forbidden") {
			t.Errorf("%s: %v, %s", line, err, out)
		}
	}
	// The nodes' own ports, by what a Service may say of itself.
	s.ns.Apply(t, "{apiVersion: v1, kind: Service, metadata: {name: ssh}, spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 22}]}}")
	const why = "requires the right to update nodes"
	if out, err := as("annotate service ssh lite.io/lb-allow-ssh-port=true" + ns); err == nil || !strings.Contains(out, why) {
		t.Errorf("takes SSH of all nodes: %v, %s", err, out)
	}
	s.ns.Kubectl(t, "annotate", "service", "ssh", "lite.io/lb-allow-ssh-port=true")
	if out, err := as("label service ssh own=label" + ns); err != nil {
		t.Errorf("may not change its Service any more: %s", out)
	}
	s.ns.Kubectl(t, "delete", "service", "ssh")
	s.testAPIService(t, as)
}

// testAPIService is the owner of the namespace in which the API's own Service is. It led
// half of what pods sent to the API to pods of his.
func (s *suite) testAPIService(t *testing.T, as func(string) (string, error)) {
	t.Helper()
	s.server.Kubectl(t, "create", "rolebinding", "of-default", "-n", "default", "--clusterrole=admin", "--user=owner")
	defer s.server.Kubectl(t, "delete", "rolebinding", "of-default", "-n", "default")
	for _, line := range []string{
		`patch service kubernetes -n default -p {"spec":{"selector":{"app":"web"}}}`, "delete service kubernetes -n default",
		"delete services --all -n default", `patch service kubernetes -n default -p {"spec":{"sessionAffinity":"ClientIP"}}`,
	} {
		if out, err := as(line); err == nil || !strings.Contains(out, "leads all pods to the API") {
			t.Errorf("%s: %v, %s", line, err, out)
		}
	}
	if out, err := as("label service kubernetes -n default own=label --overwrite"); err != nil {
		t.Errorf("may not label it: %s", out)
	}
}

// testPod is what runs in a pod, with the token that it is given and the network.
func (s *suite) testPod(t *testing.T) {
	token := strings.TrimSpace(s.ns.Exec(t, "reaches", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"))
	for _, line := range []string{"get secrets", "get pods", "get secrets -A", "get nodes", "get configmaps -n kube-system", "get --raw /metrics"} {
		args := append([]string{"--kubeconfig", "/dev/null", "--server", "https://127.0.0.1:6443", "--certificate-authority", cluster.DataDir + "/server/pki/ca.crt", "--token", token}, strings.Fields(line)...)
		if out, err := s.server.KubectlErr(t, args...); err == nil || !strings.Contains(strings.ToLower(out), "forbidden") {
			t.Errorf("%s: %v, %s", line, err, out)
		}
	}
	from := s.ns.PodNetwork(t, "reaches")
	s.keepsOut(t, from, append(slices.Clone(loopback), "2381")...)
	s.asksWho(t, from)
}

// testHostNetwork is a pod with hostNetwork, or a user of the machine: loopback is open
// to them, and what listens there asks who they are or has nothing to tell.
func (s *suite) testHostNetwork(t *testing.T) {
	s.asksWho(t, s.server)
	for port, path := range map[string]string{"10257": "/metrics", "10259": "/metrics", "6443": "/metrics", "10250": "/metrics"} {
		if code := status(t.Context(), s.server, "https://127.0.0.1:"+port+path); code != http.StatusForbidden && code != http.StatusUnauthorized {
			t.Errorf("%s at %s answers with %d", path, port, code)
		}
	}
	for _, port := range []string{"2379", "2380", "10349"} {
		if code := status(t.Context(), s.server, "https://127.0.0.1:"+port+"/"); code != 0 {
			t.Errorf("%s answers %d without a certificate", port, code)
		}
	}
	for _, path := range []string{"/configz", "/metrics"} {
		body, err := cluster.Get(s.server, "http://127.0.0.1:10249"+path)
		for _, others := range []string{"kubeletconfig", "apiserver_", "kubelet_", "scheduler_", "etcd_"} {
			if strings.Contains(body, others) {
				t.Errorf("%s of kube-proxy tells of %s, %v", path, others, err)
			}
		}
	}
}

// testStranger is a machine of the network. What it gets of pods' addresses is in
// tests/dns.
func (s *suite) testStranger(t *testing.T) {
	stranger := cluster.NewHost(t, cluster.On(s.server.Network()))
	s.keepsOut(t, stranger, append(slices.Clone(loopback), "2381", "10053", "9153")...)
	s.asksWho(t, stranger)
	for _, n := range []*cluster.Node{s.server, s.agent} {
		if code := status(t.Context(), stranger, "http://"+n.IP+":10256/healthz"); code != http.StatusOK {
			t.Errorf("kube-proxy's health on %s answers %d: is the stranger connected at all?", n.Name, code)
		}
	}
}

// testLocalUser is nobody, on both kinds of nodes.
func (s *suite) testLocalUser(t *testing.T) {
	for _, n := range []*cluster.Node{s.server, s.agent} {
		out := n.Output(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c",
			"find /etc/lite /run/lite "+cluster.DataDir+" /var/lib/kubelet /var/log/pods \\( -type f -readable -o -type s -writable \\) 2>/dev/null; true")
		for _, path := range strings.Fields(out) {
			if !strings.HasPrefix(path, cluster.DataDir+"/bundle/") {
				t.Errorf("on the %s everybody can open %s", n.Role, path)
			}
		}
		for _, line := range []string{"lite status", "lite crictl ps", "lite ctr images ls", "lite kubectl get nodes"} {
			if out, err := n.Command(t.Context(), "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups"}, strings.Fields(line)...)...).CombinedOutput(); err == nil {
				t.Errorf("on the %s everybody may %s:\n%s", n.Role, line, out)
			}
		}
	}
}

// row is one of the table of ports: what its first two cells say.
var row = regexp.MustCompile(`(?m)^\| ([0-9][^|]*) \| ([^|]*) \|.*$`)

// testPorts compares where lite listens with the table of ports.
func (s *suite) testPorts(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Ports\n")
	table, _, _ = strings.Cut(table, "\n## ")
	documented := map[string]bool{}
	for _, r := range row.FindAllStringSubmatch(table, -1) {
		for _, port := range regexp.MustCompile(`[0-9]+`).FindAllString(r[1], -1) {
			documented[port] = true
		}
	}
	if len(documented) < 17 {
		t.Fatalf("the table has %d ports", len(documented))
	}
	for _, n := range []*cluster.Node{s.server, s.agent} {
		for line := range strings.Lines(n.Output(t, "ss", "-Hltunp")) {
			f := strings.Fields(line)
			if len(f) < 7 || !strings.Contains(line, `"lite"`) {
				continue
			}
			_, port, err := net.SplitHostPort(f[4])
			if err != nil {
				t.Fatal(err)
			}
			number, _ := strconv.Atoi(port)
			// On loopback as well: a pod with that hostPort would get what is sent there.
			if !documented[port] && (number < 30000 || number > 32767) {
				t.Errorf("lite listens at %s on the %s, which no row of docs/security.md says", f[4], n.Role)
			}
		}
	}
}

// loopback is the ports that are for the machine alone.
var loopback = []string{"2379", "2380", "6444", "10248", "10249", "10257", "10259", "10349", "10350", "10351"}

// keepsOut tries ports of both nodes to which nobody may connect.
func (s *suite) keepsOut(t *testing.T, from cluster.Dialer, ports ...string) {
	t.Helper()
	var tried sync.WaitGroup
	for _, n := range []*cluster.Node{s.server, s.agent} {
		for _, port := range ports {
			tried.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if conn, err := from.DialContext(ctx, "tcp", net.JoinHostPort(n.IP, port)); err == nil {
					conn.Close()
					t.Errorf("%s:%s takes the connection", n.IP, port)
				}
			})
		}
	}
	tried.Wait()
}

// asksWho tries what is open to all and tells nothing to somebody unknown.
func (s *suite) asksWho(t *testing.T, from cluster.Dialer) {
	t.Helper()
	for _, url := range []string{
		"https://" + s.server.IP + ":6443/api/v1/secrets", "https://" + s.server.IP + ":6443/metrics", "https://" + s.server.IP + ":10250/pods",
		"https://" + s.agent.IP + ":10250/pods", "https://" + s.agent.IP + ":10250/metrics", "https://" + s.agent.IP + ":10250/configz",
	} {
		if code := status(t.Context(), from, url); code != http.StatusUnauthorized {
			t.Errorf("%s answers with %d", url, code)
		}
	}
}

// status is what a server answers to somebody who shows nothing; 0 if it does not.
func status(ctx context.Context, from cluster.Dialer, url string) int {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: from.DialContext, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // who attacks does not ask
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	return answer.StatusCode
}
