package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lite.io/lite/tests/harness/cluster"
)

// pod is one whose programs are in the test: it answers with its name to whoever
// reaches one of its ports, and others are reached from it.
type pod struct {
	*cluster.PodNetwork
	space, name string
	node        *cluster.Node
	ips         [2]string // IPv4 and IPv6
}

func (p *pod) String() string { return p.space + "/" + p.name }

// manifest names port 80 of TCP "web", but on c port 81: a name has another
// number on another pod.
func (p *pod) manifest() string {
	web := 80
	if p.name == "c" {
		web = 81
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {pod: %s}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: lite.test/busybox:1
    command: [sleep, "100000"]
    ports:
    - {name: web, containerPort: %d}
    - {name: echo, containerPort: 80, protocol: UDP}
`, p.name, p.name, p.node.Name, web)
}

// start waits for the pod and serves in it.
func (p *pod) start(t *testing.T, server *cluster.Node) {
	t.Helper()
	ns := &cluster.Namespace{Name: p.space, Node: server}
	ns.WaitFor(t, "condition=Ready", "pod/"+p.name)
	ips := strings.Fields(ns.Field(t, "pod/"+p.name, ".status.podIPs[*].ip"))
	if len(ips) != 2 {
		t.Fatalf("pod %s has the addresses %q, want one of each family", p, ips)
	}
	p.ips = [2]string(ips)
	p.PodNetwork = ns.PodNetwork(t, p.name)
	for _, port := range []string{"80", "81"} {
		l, err := p.Listen("tcp", ":"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go p.serve(l)
	}
	conn, err := p.ListenPacket("udp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go p.serveDatagrams(conn)
}

// serve answers every line with the pod's name, for as long as the client asks.
func (p *pod) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buffer := make([]byte, 100)
			for {
				if _, err := conn.Read(buffer); err != nil {
					return
				}
				if _, err := conn.Write([]byte(p.String())); err != nil {
					return
				}
			}
		}()
	}
}

func (p *pod) serveDatagrams(conn net.PacketConn) {
	buffer := make([]byte, 100)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo([]byte(p.String()), from)
	}
}

// service is a protocol and a port of every pod.
type service struct {
	protocol string
	port     int
}

func (s service) String() string { return s.protocol + "/" + strconv.Itoa(s.port) }

var (
	tcp80 = service{"tcp", 80}
	tcp81 = service{"tcp", 81}
	udp80 = service{"udp", 80}
)

// patience is how long what is not answered counts as blocked: a packet that is
// dropped is never answered, and one that is not is within milliseconds. Who
// finds an answer missing that should be there asks again.
const patience = time.Second

// reaches reports whether a pod answers, by its name, to whoever asks from a place.
func reaches(c connection) bool {
	return answers(c.from, c.protocol, net.JoinHostPort(c.to.ips[c.family], strconv.Itoa(c.port)), c.to.String())
}

func answers(from cluster.Dialer, protocol, address, want string) bool {
	deadline := time.Now().Add(patience)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := from.DialContext(ctx, protocol, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	return ask(conn, deadline, want)
}

// ask sends a line and reports whether the answer is the one wanted. A datagram
// may be lost.
func ask(conn net.Conn, deadline time.Time, want string) bool {
	buffer := make([]byte, 100)
	for time.Now().Before(deadline) {
		if _, err := conn.Write([]byte("?\n")); err != nil && conn.RemoteAddr().Network() == "tcp" {
			return false
		}
		until := deadline
		if conn.RemoteAddr().Network() == "udp" {
			until = time.Now().Add(patience / 4)
		}
		_ = conn.SetReadDeadline(until)
		if n, err := conn.Read(buffer); err == nil {
			return bytes.HasPrefix(buffer[:n], []byte(want))
		}
	}
	return false
}

// connection is a pair of pods and what one asks the other for.
type connection struct {
	from, to *pod
	service
	family int // 0 is IPv4, 1 is IPv6
}

func (c connection) String() string {
	where := "on other nodes"
	if c.from.node == c.to.node {
		where = "on one node"
	}
	return fmt.Sprintf("%s to %s %s by IPv%d (%s)", c.from, c.to, c.service, 4+2*c.family, where)
}

// connections are those of all pairs, of a pod with itself too, by both families.
func (s *suite) connections() (all []connection) {
	for _, from := range s.pods {
		for _, to := range s.pods {
			for _, what := range []service{tcp80, tcp81, udp80} {
				all = append(all, connection{from, to, what, 0}, connection{from, to, what, 1})
			}
		}
	}
	return all
}

// wrong tries all connections at once and returns those that are not as wanted.
func (s *suite) wrong(want func(connection) bool) []string {
	all := s.connections()
	lines := make([]string, len(all))
	var group sync.WaitGroup
	for i, c := range all {
		group.Go(func() {
			wanted := want(c)
			if got := reaches(c); got != wanted {
				lines[i] = fmt.Sprintf("%s: connects: %t, want %t", c, got, wanted)
			}
		})
	}
	group.Wait()
	var found []string
	for _, line := range lines {
		if line != "" {
			found = append(found, line)
		}
	}
	return found
}

// check waits until every connection is as wanted, and then tries all once more:
// those to be blocked must stay so.
func (s *suite) check(t *testing.T, want func(connection) bool) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, func() error {
		if found := s.wrong(want); len(found) > 0 {
			return fmt.Errorf("%d of %d connections are wrong:\n%s", len(found), len(s.connections()), strings.Join(found[:min(len(found), 20)], "\n"))
		}
		return nil
	})
}

// attempt is to connect from a place to an address, where a pod is to answer or
// nobody.
type attempt struct {
	what    string
	from    cluster.Dialer
	service // its protocol counts
	address string
	answer  string
	want    bool
}

// expect waits until all attempts end as wanted.
func expect(t *testing.T, when string, attempts []attempt) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, func() error {
		lines := make([]string, len(attempts))
		var group sync.WaitGroup
		for i, a := range attempts {
			group.Go(func() {
				if got := answers(a.from, a.protocol, a.address, a.answer); got != a.want {
					lines[i] = fmt.Sprintf("%s: %s to %s of %s: connects: %t, want %t", when, a.what, a.address, a.answer, got, a.want)
				}
			})
		}
		group.Wait()
		if text := strings.Join(lines, ""); text != "" {
			return errors.New(strings.TrimSpace(strings.Join(lines, "\n")))
		}
		return nil
	})
}
