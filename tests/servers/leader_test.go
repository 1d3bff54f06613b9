package servers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lite.io/lite/tests/harness/cluster"
)

// vip is of the network of the hosts, and none of theirs.
const vip = "10.99.0.200"

// leading is servers of which one leads, and a client outside of them that knows one address.
type leading struct {
	*cluster.Cluster
	outside *cluster.Host
	client  *http.Client
}

// TestLeader has what one server does for all, from the time when there is only one: an address, controllers.
func TestLeader(t *testing.T) {
	t.Parallel()
	network := cluster.NewNetwork(t)
	l := &leading{outside: cluster.NewHost(t, cluster.On(network))}
	l.outside.Output(t, "ip", "address", "add", vip+"/32", "dev", "eth0")
	first := cluster.NewNode(t, cluster.On(network))
	l.Cluster = &cluster.Cluster{Network: network, Servers: []*cluster.Node{first}}

	t.Run("AddressInUse", func(t *testing.T) { l.testAddressInUse(t, first) })
	if t.Failed() {
		return
	}
	l.connect(t)
	t.Run("Alone", func(t *testing.T) { l.testAlone(t, first) })
	for range 2 {
		server := cluster.NewNode(t, cluster.On(network))
		l.prepare(t, server)
		l.JoinServer(t, server)
	}
	t.Run("KeepsItsTerm", func(t *testing.T) { l.testKeepsItsTerm(t, first) })
	t.Run("Endpoints", l.testEndpoints)
	t.Run("LostLease", l.testLostLease)
	t.Run("Stopped", func(t *testing.T) { l.testGone(t, func(s *cluster.Node) { s.Stop(t) }) })
	t.Run("Killed", func(t *testing.T) { l.testGone(t, func(s *cluster.Node) { s.Kill(t) }) })
}

// prepare configures a server.
func (*leading) prepare(t *testing.T, server *cluster.Node) {
	server.WriteFile(t, "/etc/lite/config.yaml", "cluster-vip: "+vip+"\ntls-san: ["+server.Name+".example]\n")
}

// connect makes the client from outside.
func (l *leading) connect(t *testing.T) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(l.Server().ReadFile(t, cluster.DataDir+"/server/pki/ca.crt"))) {
		t.Fatal("no CA")
	}
	l.client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.outside.DialContext(ctx, network, address)
		},
	}}
}

// answers asks the API at an address whether it lives.
func (l *leading) answers(address string) error {
	r, err := l.client.Get("https://" + address + ":6443/livez")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, r.Status)
	}
	return nil
}

// has reports whether a server has the address.
func has(t *testing.T, server *cluster.Host) bool {
	return strings.Contains(server.Output(t, "ip", "-4", "address", "show", "dev", "eth0"), " "+vip+"/32 ")
}

// An address that another machine has stays with it, and is taken when it is free.
func (l *leading) testAddressInUse(t *testing.T, server *cluster.Node) {
	l.prepare(t, server)
	server.Launch(t)
	cluster.Eventually(t, time.Minute, func() error {
		out, _ := server.Command(t.Context(), "lite", "status").CombinedOutput()
		if !strings.Contains(string(out), vip+" is in use, by ") {
			return fmt.Errorf("lite status:\n%s", out)
		}
		return nil
	})
	if has(t, server.Host) {
		t.Error("it has the address too")
	}
	l.outside.Output(t, "ip", "address", "del", vip+"/32", "dev", "eth0")
	server.WaitReady(t)
}

func (l *leading) testAlone(t *testing.T, server *cluster.Node) {
	if err := l.answers(vip); err != nil {
		t.Error(err)
	}
	if c := server.ReadFile(t, "/etc/lite/kubeconfig.yaml"); !strings.Contains(c, "server: https://"+vip+":6443") {
		t.Errorf("the administrator's kubeconfig is\n%s", c)
	}
	for name, token := range map[string]string{"agents": server.ReadFile(t, cluster.DataDir+"/server/token"), "servers": server.Output(t, "lite", "token", "create", "--role", "server")} {
		if !strings.Contains(token, "@"+vip+":6443/") {
			t.Errorf("a token for %s leads elsewhere", name)
		}
	}
	server.Stop(t)
	if has(t, server.Host) {
		t.Error("lite has stopped, and the machine has the address")
	}
	server.Start(t)
	server.Kill(t)
	cluster.Eventually(t, 15*time.Second, func() error {
		if has(t, server.Host) {
			return fmt.Errorf("lite was killed, and the machine has the address")
		}
		return nil
	})
	server.Start(t)
	if err := l.answers(vip); err != nil {
		t.Error(err)
	}
}

// leader returns who leads, by the Lease, as another server that runs sees it.
func (l *leading) leader(t *testing.T) (leader *cluster.Node, err error) {
	for _, s := range l.Servers {
		if !s.Running() {
			continue
		}
		lease, err := s.Client(t).CoordinationV1().Leases("kube-system").Get(t.Context(), "lite-leader", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		for _, s := range l.Servers {
			if lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == s.Name {
				return s, nil
			}
		}
		return nil, fmt.Errorf("the Lease is %+v", lease.Spec)
	}
	return nil, fmt.Errorf("no server runs")
}

// The server that was alone leads on without an interruption, and no other has the address.
func (l *leading) testKeepsItsTerm(t *testing.T, first *cluster.Node) {
	leader, err := l.leader(t)
	if err != nil || leader != first {
		t.Fatalf("%v leads, %v", leader, err)
	}
	if strings.Contains(first.Log(), "This server leads no more") {
		t.Error("its log shows that it has stopped to lead")
	}
	for _, s := range l.Servers {
		if has(t, s.Host) != (s == first) {
			t.Errorf("%s: has the address: %v", s.Name, has(t, s.Host))
		}
		if err := l.answers(s.IP); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		if out := s.Output(t, "lite", "status"); !strings.Contains(out, map[bool]string{true: "this server leads", false: first.Name + " leads"}[s == first]) {
			t.Errorf("%s: %s", s.Name, out)
		}
	}
}

// endpoints returns where the Service kubernetes leads.
func (l *leading) endpoints(t *testing.T) (all []string) {
	slices, err := l.Server().Client(t).DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: discovery.LabelServiceName + "=kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			all = append(all, e.Addresses...)
		}
	}
	return all
}

func (l *leading) testEndpoints(t *testing.T) {
	cluster.Eventually(t, time.Minute, func() error {
		all := l.endpoints(t)
		for _, s := range l.Servers {
			if !slices.Contains(all, s.IP) {
				return fmt.Errorf("the Service kubernetes has %v, without %s", all, s.IP)
			}
		}
		return nil
	})
}

// Another server leads, and the API, the kubelet and the DNS of the one that did work on in the same process.
func (l *leading) testLostLease(t *testing.T) {
	before, err := l.leader(t)
	if err != nil {
		t.Fatal(err)
	}
	pid, log := before.PID(t), len(before.Log())
	next := l.Servers[(slices.Index(l.Servers, before)+1)%len(l.Servers)]
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"holderIdentity": next.Name}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	before.Kubectl(t, "patch", "lease", "-n", "kube-system", "lite-leader", "--type=merge", "-p", string(patch))
	took := l.await(t, before)
	before.WaitReady(t)
	t.Logf("another leads %s later, and the one before is ready again after %s", took.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	if before.PID(t) != pid {
		t.Error("it was started again")
	}
	if !bytes.Contains([]byte(before.Log())[log:], []byte("This server leads no more")) {
		t.Error("its log does not show that it leads no more")
	}
	l.schedules(t, "after-lost")
}

// testGone ends the leader; afterwards it is back.
func (l *leading) testGone(t *testing.T, end func(*cluster.Node)) {
	before, err := l.leader(t)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	began := time.Now()
	go func() { defer close(ended); end(before) }()
	took := l.await(t, before)
	<-ended
	t.Logf("another leads, and has the address, %s after the signal (%s)", took.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	l.schedules(t, "after-"+strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]))
	before.Start(t)
}

// await waits until the address answers at another server than before, and that has it alone.
func (l *leading) await(t *testing.T, before *cluster.Node) time.Duration {
	t.Helper()
	began := time.Now()
	cluster.Eventually(t, time.Minute, func() error {
		var who []string
		for _, s := range l.Servers {
			if has(t, s.Host) {
				who = append(who, s.Name)
			}
		}
		if len(who) != 1 || who[0] == before.Name {
			return fmt.Errorf("%v has the address", who)
		}
		return l.answers(vip)
	})
	return time.Since(began)
}

// schedules shows that somebody runs the controllers and the scheduler.
func (l *leading) schedules(t *testing.T, name string) {
	t.Helper()
	leader, err := l.leader(t)
	if err != nil {
		t.Fatal(err)
	}
	leader.KubectlStdin(t, strings.ReplaceAll(deployment, "NAME", name), "apply", "-f", "-")
	leader.Kubectl(t, "wait", "--timeout=60s", "--for=jsonpath={.status.updatedReplicas}=1", "deployment/"+name)
	leader.Kubectl(t, "wait", "--timeout=60s", "--for=condition=PodScheduled", "pod", "-l", "app="+name)
}

// deployment is of a pod that goes wherever it is sent.
const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: NAME}, spec: {
  selector: {matchLabels: {app: NAME}}, template: {metadata: {labels: {app: NAME}}, spec: {
    tolerations: [{operator: Exists}], containers: [{name: c, image: "lite.test/busybox:1", command: [sleep, "10000"]}]}}}}
`
