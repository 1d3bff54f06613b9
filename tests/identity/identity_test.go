// Package identity tests that a node stays the node that it is, and heals by
// itself, when its machine gets another address, another name or a network at all.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// soon is for what a node does by itself: it waits until addresses have settled,
// and starts anew.
const soon = 90 * time.Second

type suite struct {
	node *cluster.Node
	ns   *cluster.Namespace
}

func TestServer(t *testing.T) {
	s := &suite{node: cluster.New(t).Server()}
	s.ns = s.node.Namespace(t)
	s.ns.Apply(t, cluster.Web(1))
	s.ns.WaitRollout(t, "deployment/web")
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"AddressChangesWhileItRuns", s.testReaddressed},
		{"AddressOfPods", s.testColliding},
		{"InterfaceRenamed", s.testInterfaceRenamed},
		{"HostNameChanges", s.testRenamed},
		{"BootsWithoutNetwork", s.testNoNetwork},
		{"NoDefaultRoute", s.testNoDefaultRoute},
		{"RoutesOfAnEarlierStart", s.testOwnRoutes},
		{"ClockIsWrong", s.testClock},
		{"NodeDeleted", s.testDeleted},
	} {
		if !t.Run(test.name, test.run) {
			return // the next begins where this one ends
		}
	}
}

// The node follows its machine, as the same process, and its pods run on. The address
// changes once more while the node starts anew for the first change.
func (s *suite) testReaddressed(t *testing.T) {
	uid, pid, containers := s.uid(t), s.node.PID(t), s.ns.Containers(t)
	s.node.Network().Readdress(t, s.node.Host)
	cluster.Eventually(t, soon, func() error {
		if !strings.Contains(s.node.Log(), "Restarting lite") {
			return errors.New("the node has not noticed that its address is gone")
		}
		return nil
	})
	s.node.Network().Readdress(t, s.node.Host)
	cluster.Eventually(t, soon, func() error { return s.is(t, s.node.IP) })
	s.works(t)
	if got := s.uid(t); got != uid {
		t.Errorf("the node is %s and was %s", got, uid)
	}
	if got := s.node.PID(t); got != pid {
		t.Errorf("the process is %d and was %d", got, pid)
	}
	if got := s.ns.Containers(t); !maps.Equal(got, containers) {
		t.Errorf("the containers are %v and were %v", got, containers)
	}
}

// An address that pods may have is no place for the node, which stays what it is
// and says why.
func (s *suite) testColliding(t *testing.T) {
	pid := s.node.PID(t)
	s.node.Output(t, "sh", "-ec", "ip address del "+s.node.IP+"/24 dev eth0; ip address add 10.42.77.7/24 dev eth0")
	cluster.Eventually(t, soon, func() error {
		out, _ := s.node.Command(t.Context(), "lite", "status").CombinedOutput()
		if !strings.Contains(string(out), "the node cannot use the new one") || !strings.Contains(string(out), "10.42.77.7") {
			return fmt.Errorf("lite status does not say why the node has no address:\n%s", out)
		}
		return nil
	})
	s.node.Output(t, "sh", "-ec", "ip address del 10.42.77.7/24 dev eth0; ip address add "+s.node.IP+"/24 dev eth0; ip route replace default via "+cluster.Gateway)
	s.works(t)
	if out := s.node.Output(t, "lite", "status"); strings.Contains(out, "cannot use the new one") {
		t.Errorf("lite status says still:\n%s", out)
	}
	if got := s.node.PID(t); got != pid {
		t.Errorf("the process is %d and was %d", got, pid)
	}
}

// An interface is known by its addresses.
func (s *suite) testInterfaceRenamed(t *testing.T) {
	rename := func(from, to string) {
		s.node.Output(t, "sh", "-ec", fmt.Sprintf("ip link set %s down; ip link set %[1]s name %s; ip link set %[2]s up; ip route replace default via %s", from, to, cluster.Gateway))
	}
	rename("eth0", "lan0")
	defer rename("lan0", "eth0") // where the other tests look for it
	s.works(t)
	s.node.Stop(t)
	s.node.Start(t)
	s.works(t)
}

// No name that the machine is given makes it another node, not even one that no node
// may have.
func (s *suite) testRenamed(t *testing.T) {
	uid := s.uid(t)
	for _, name := range []string{"Not_A_Name!", strings.Repeat("long", 16)} {
		s.node.Stop(t)
		s.node.Output(t, "sh", "-c", "echo '"+name+"' >/proc/sys/kernel/hostname")
		s.node.Start(t)
		if got := s.uid(t); got != uid {
			t.Errorf("the node is %s and was %s", got, uid)
		}
	}
	s.works(t)
}

// A machine that boots with its cable unplugged runs its pods, and follows the
// network when there is one.
func (s *suite) testNoNetwork(t *testing.T) {
	uid := s.uid(t)
	s.node.Reboot(t)
	s.node.Output(t, "ip", "address", "flush", "dev", "eth0")
	s.node.Output(t, "ip", "link", "set", "eth0", "down")
	s.node.Start(t)
	if err := s.is(t, "192.0.2.1"); err != nil {
		t.Error(err)
	}
	if out := s.node.Output(t, "lite", "status"); !strings.Contains(out, "there is no network") {
		t.Errorf("lite status does not say that there is no network:\n%s", out)
	}
	s.ns.WaitRollout(t, "deployment/web")
	cluster.Eventually(t, soon, func() error { return s.answers("192.0.2.1", s.port(t)) })
	containers := s.ns.Containers(t)

	s.node.Output(t, "ip", "link", "set", "eth0", "up")
	s.node.Output(t, "ip", "address", "add", s.node.IP+"/24", "dev", "eth0")
	cluster.Eventually(t, soon, func() error { return s.is(t, s.node.IP) })
	s.works(t)
	if got := s.uid(t); got != uid {
		t.Errorf("the node is %s and was %s", got, uid)
	}
	if got := s.ns.Containers(t); !maps.Equal(got, containers) {
		t.Errorf("the containers are %v and were %v", got, containers)
	}
	if links := s.node.Output(t, "ip", "-o", "link"); strings.Contains(links, "lite-standby") {
		t.Errorf("there is an interface for a node without network still:\n%s", links)
	}
}

// The machine has had no default route since the test before.
func (s *suite) testNoDefaultRoute(t *testing.T) {
	if routes := s.node.Output(t, "ip", "route", "show", "default"); routes != "" {
		t.Fatalf("there is a default route: %s", routes)
	}
	s.node.Stop(t)
	s.node.Start(t)
	if err := s.is(t, s.node.IP); err != nil {
		t.Error(err)
	}
	s.works(t)
}

// Routes to pods of other nodes stay when lite ends, and are no network of the
// machine's that keeps it from starting.
func (s *suite) testOwnRoutes(t *testing.T) {
	s.node.Stop(t)
	s.node.Output(t, "ip", "route", "add", "10.42.200.0/24", "via", cluster.Gateway, "proto", "76")
	s.node.Start(t)
	if got := s.node.Output(t, "ip", "route", "show", "10.42.200.0/24"); got != "" {
		t.Errorf("there is a route to a node that is none: %s", got)
	}
}

// The clock is that of a board without one, then two years ahead, then right: each
// time the node starts, and what pods have of the cluster is valid. That the clock is
// set while lite runs is for a machine of its own (tests/machine).
func (s *suite) testClock(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("no other time for processors other than x86-64")
	}
	uid, containers := s.uid(t), s.ns.Containers(t)
	defer func() { s.node.Clock = 0 }()
	for _, c := range []struct {
		by    time.Duration
		wrong bool // so that it can be told
	}{
		{time.Until(time.Unix(3600, 0)), true},
		{2 * 365 * 24 * time.Hour, false},
		{0, false},
	} {
		s.node.Stop(t)
		s.node.Clock = c.by
		s.node.Start(t)
		if out := s.node.Output(t, "lite", "status"); strings.Contains(out, "the clock is wrong: it shows 1970") != c.wrong {
			t.Errorf("by %s: lite status says\n%s", c.by, out)
		}
		s.works(t)
		cluster.Eventually(t, soon, func() error { return s.tokenWorks(t) })
		cluster.Eventually(t, soon, func() error {
			if got := s.ns.Containers(t); !maps.Equal(got, containers) {
				return fmt.Errorf("by %s: the containers are %s and were %s", c.by, got, containers)
			}
			return nil
		})
	}
	if got := s.uid(t); got != uid {
		t.Errorf("the node is %s and was %s", got, uid)
	}
}

// Somebody deletes the node under a server that runs. kube-proxy (1.37) would end the
// process for that, and the datastore with it. It lives on, says what is wrong, and
// the next start brings the node back.
func (s *suite) testDeleted(t *testing.T) {
	pid := s.node.PID(t)
	s.node.Kubectl(t, "delete", "node", s.node.Name)
	cluster.Eventually(t, soon, func() error {
		out, err := s.node.Command(t.Context(), "lite", "status").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "not found") {
			return fmt.Errorf("the status does not show that the node is gone: %v\n%s", err, out)
		}
		return nil
	})
	if out := s.node.Kubectl(t, "get", "nodes", "-o", "name"); out != "" {
		t.Errorf("there are nodes still: %s", out)
	}
	if !s.node.Running() || s.node.PID(t) != pid {
		t.Fatalf("lite has ended:\n%s", s.node.Log())
	}
	s.node.Stop(t)
	s.node.Start(t)
	s.ns.WaitRollout(t, "deployment/web")
	s.works(t)
}

// tokenWorks asks the API with what a pod has for that.
func (s *suite) tokenWorks(t *testing.T) error {
	t.Helper()
	pod := strings.TrimSpace(s.ns.Kubectl(t, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"))
	token, err := s.ns.KubectlErr(t, "exec", pod, "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	if err != nil {
		return fmt.Errorf("read the token: %w: %s", err, token)
	}
	out, err := s.node.KubectlErr(t, "--kubeconfig", "/dev/null", "--server", "https://127.0.0.1:6443", "--certificate-authority", cluster.DataDir+"/server/pki/ca.crt",
		"--token", strings.TrimSpace(token), "auth", "whoami")
	if err != nil || !strings.Contains(out, "system:serviceaccount:") {
		return fmt.Errorf("whoami: %w: %s", err, out)
	}
	return nil
}

// works looks at what depends on the node's address: who asks it at that address
// finds the API, Services, logs and commands in pods.
func (s *suite) works(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, soon, func() error { return s.certified(t) })
	cluster.Eventually(t, soon, func() error { return s.answers(s.node.IP, s.port(t)) })
	pod := strings.TrimSpace(s.ns.Kubectl(t, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"))
	cluster.Eventually(t, soon, func() error { // the kubelet looks at its pods and containers anew after a start
		if out, err := s.ns.KubectlErr(t, "exec", pod, "--", "hostname"); err != nil || strings.TrimSpace(out) != pod {
			return fmt.Errorf("hostname in %s: %w: %s", pod, err, out)
		}
		if out, err := s.ns.KubectlErr(t, "logs", pod); err != nil {
			return fmt.Errorf("logs of %s: %w: %s", pod, err, out)
		}
		return nil
	})
	cluster.Eventually(t, soon, func() error {
		endpoints := s.node.Kubectl(t, "get", "endpointslices", "-n", "default", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}")
		if endpoints != s.node.IP {
			return fmt.Errorf("the API server is found at %s, want %s", endpoints, s.node.IP)
		}
		return nil
	})
}

// is compares the address that the cluster knows the node by, once it is ready.
func (s *suite) is(t *testing.T, want string) error {
	t.Helper()
	got, err := s.ns.KubectlErr(t, "get", "node", s.node.Name, "-o",
		`jsonpath={.status.addresses[?(@.type=="InternalIP")].address} {.status.conditions[?(@.type=="Ready")].status}`)
	if err != nil {
		return err
	}
	if got != want+" True" {
		return fmt.Errorf("the node is at %s, want %s True", got, want)
	}
	return nil
}

// certified connects to the API server as another machine would, from the
// gateway, and verifies its certificate.
func (s *suite) certified(t *testing.T) error {
	t.Helper()
	conn, err := s.node.Network().DialContext(t.Context(), "tcp", net.JoinHostPort(s.node.IP, "6443"))
	if err != nil {
		return err
	}
	defer conn.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.node.ReadFile(t, cluster.DataDir+"/server/pki/ca.crt")))
	return tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: s.node.IP}).HandshakeContext(t.Context())
}

// answers asks the Service by the node's port.
func (s *suite) answers(ip, port string) error {
	_, err := cluster.Get(s.node, "http://"+net.JoinHostPort(ip, port)+"/hostname")
	return err
}

func (s *suite) port(t *testing.T) string {
	t.Helper()
	return s.ns.Field(t, "service/web", ".spec.ports[0].nodePort")
}

func (s *suite) uid(t *testing.T) string {
	t.Helper()
	return s.node.Kubectl(t, "get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{end}")
}
