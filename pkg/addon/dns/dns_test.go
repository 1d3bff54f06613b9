package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/host/resolver"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
)

const testCorefile = `.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
    forward . /etc/resolv.conf
    cache 30
    loop
    import /etc/coredns/custom/*.override
}
import /etc/coredns/custom/*.server
`

// bed is a server on an address of this machine, and an API for it.
type bed struct {
	api    *fakeAPI
	config Config
}

func newBed(t testing.TB) *bed {
	t.Helper()
	api, kubeconfig := newFakeAPI(t)
	dir := t.TempDir()
	b := &bed{api, Config{
		NodeName: "node1", Client: kube.NewClient(kubeconfig, "test"), Dir: filepath.Join(dir, "dns"), Listen: addrs("127.0.53.1"),
		Resolvers: resolver.Files{Usual: filepath.Join(dir, "resolv.conf"), BehindResolved: filepath.Join(dir, "none")},
	}}
	b.resolvers(t, "")
	api.put("namespaces", "", "default", nil)
	api.put("services", "default", "web", map[string]any{"spec": map[string]any{
		"type": "ClusterIP", "clusterIP": "10.43.0.7", "clusterIPs": []string{"10.43.0.7"},
		"ports": []any{map[string]any{"name": "http", "port": 80, "protocol": "TCP"}},
	}})
	api.put("configmaps", namespace, corednsName, map[string]any{"data": map[string]string{corefileName: testCorefile}})
	return b
}

func (b *bed) resolvers(t testing.TB, content string) {
	t.Helper()
	if err := os.WriteFile(b.config.Resolvers.Usual, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs a server until the function it returns is called.
func (b *bed) run(t testing.TB) (*Server, func()) {
	t.Helper()
	s := New(b.config)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	}
	return s, stop
}

func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// asks returns a check of what a name is.
func (b *bed) asks(name, want string) func() error {
	return func() error {
		client := dns.Client{Timeout: 6 * time.Second}
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), net.JoinHostPort("127.0.53.1", fmt.Sprint(layout.DNSPort)))
		if err != nil {
			return err
		}
		got := dns.RcodeToString[m.Rcode]
		if len(m.Answer) > 0 {
			got = m.Answer[0].(*dns.A).A.String()
		}
		if got != want {
			return fmt.Errorf("%s is %s, not %s", name, got, want)
		}
		return nil
	}
}

func now(t *testing.T, checks ...func() error) {
	t.Helper()
	for _, check := range checks {
		if err := check(); err != nil {
			t.Error(err)
		}
	}
}

func notes(s *Server, text string) func() error {
	return func() error {
		if note := s.Note(); !strings.Contains(note, text) || text == "" && note != "" {
			return fmt.Errorf("the note is %q, not %q", note, text)
		}
		return nil
	}
}

const web = "web.default.svc.cluster.local"

// From the first start with an API to a start without one.
func TestServer(t *testing.T) {
	b := newBed(t)
	s, stop := b.run(t)
	eventually(t, func() error { return s.Ready(t.Context()) })
	now(t, b.asks(web, "10.43.0.7"), b.asks("none.default.svc.cluster.local", "NXDOMAIN"), b.asks("a.test", "REFUSED"), notes(s, "contains no name server"))

	t.Log("an addition")
	b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{"a.override": "template IN A a.test {\n answer \"a.test 60 IN A 192.0.2.1\"\n}\n"}})
	eventually(t, b.asks("a.test", "192.0.2.1"))

	t.Log("a broken addition")
	b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{"a.override": "template IN\n"}})
	eventually(t, notes(s, "Corefile broken: "))
	now(t, b.asks("a.test", "192.0.2.1"), b.asks(web, "10.43.0.7"), func() error { return s.Ready(t.Context()) })

	t.Log("other name servers, the Corefile still being broken")
	b.resolvers(t, "nameserver 127.0.53.9\n") // nobody listens there
	eventually(t, func() error {
		if note := s.Note(); strings.Contains(note, "contains no name server") {
			return fmt.Errorf("the note is still %q", note)
		}
		return nil
	})
	now(t, b.asks("a.test", "192.0.2.1"), notes(s, "Corefile broken: "))

	t.Log("the API is away")
	b.api.leave(true)
	b.resolvers(t, "")
	eventually(t, b.asks("b.test", "REFUSED"))
	now(t, b.asks(web, "10.43.0.7"), b.asks("a.test", "192.0.2.1"))

	t.Log("a start without the API")
	stop()
	s, stop = b.run(t)
	eventually(t, b.asks("a.test", "192.0.2.1"))
	if err := s.Ready(t.Context()); err == nil {
		t.Error("it is ready without knowing Services")
	}
	// A query for a name of the cluster waits until the API answers.
	answered := make(chan error, 1)
	go func() { answered <- b.asks(web, "10.43.0.7")() }()
	b.api.leave(false)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	eventually(t, notes(s, "Corefile broken: "))
	b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{}})
	eventually(t, b.asks("a.test", "REFUSED"))
	stop()
	if !listening("127.0.53.1") {
		t.Error("127.0.53.1 is no address of this machine")
	}
	if conn, err := net.ListenPacket("udp", net.JoinHostPort("127.0.53.1", fmt.Sprint(layout.DNSPort))); err != nil {
		t.Errorf("the socket is still open: %v", err)
	} else {
		conn.Close()
	}
}

func share(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
}

// shares opens sockets as a program does that wants its share of the queries: the kernel
// allows that if the other program has opened its sockets in the same way. It returns which
// it got.
func shares(port int) (got []string, end func()) {
	config := net.ListenConfig{Control: share}
	at := net.JoinHostPort("127.0.53.1", fmt.Sprint(port))
	var open []io.Closer
	if udp, err := config.ListenPacket(context.Background(), "udp", at); err == nil {
		got, open = append(got, "udp"), append(open, udp)
	}
	if tcp, err := config.Listen(context.Background(), "tcp", at); err == nil {
		got, open = append(got, "tcp"), append(open, tcp)
	}
	return got, func() {
		for _, o := range open {
			_ = o.Close()
		}
	}
}

// A pod in the host's network answered half of what the pods of its node asked.
func TestNobodyElseAnswers(t *testing.T) {
	b := newBed(t)
	got, end := shares(layout.DNSPort)
	if len(got) != 2 {
		t.Fatal(got)
	}
	s, stop := b.run(t)
	defer stop()
	eventually(t, func() error {
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return fmt.Errorf("beside somebody who was there before: %w", err)
		}
		return nil
	})
	end()
	eventually(t, func() error { return s.Ready(t.Context()) })
	refused := func(when string, port int) {
		t.Helper()
		got, end := shares(port)
		end()
		if len(got) > 0 {
			t.Errorf("%s somebody else can answer at %d as well: %v", when, port, got)
		}
	}
	refused("after a start", layout.DNSPort)
	b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{
		"a.override": "template IN A a.test {\n answer \"a.test 60 IN A 192.0.2.1\"\n}\n",
		"b.server":   "b.test:10054 {\n template IN A b.test {\n answer \"b.test 60 IN A 192.0.2.1\"\n}\n}\n",
	}})
	eventually(t, b.asks("a.test", "192.0.2.1"))
	refused("after another Corefile", layout.DNSPort)
	refused("where a Corefile has added it", 10054)
}

// What stands in the way of a Corefile may pass without anybody changing it.
func TestBrokenForAWhile(t *testing.T) {
	b := newBed(t)
	s, stop := b.run(t)
	defer stop()
	eventually(t, func() error { return s.Ready(t.Context()) })
	theirs, err := net.Listen("tcp", "127.0.53.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{
		"a.override": "template IN A a.test {\n answer \"a.test 60 IN A 192.0.2.1\"\n}\n",
		"b.server":   "b.test:" + strings.TrimPrefix(theirs.Addr().String(), "127.0.53.1:") + " {\n log\n}\n",
	}})
	eventually(t, notes(s, "address already in use; serving the last good one"))
	now(t, b.asks("a.test", "REFUSED"), b.asks(web, "10.43.0.7"))
	theirs.Close()
	eventually(t, b.asks("a.test", "192.0.2.1"))
	now(t, b.asks(web, "10.43.0.7"), notes(s, "contains no name server"))
}

// A start fails with some of its sockets open already, and those must not stand in the way of
// the next attempt.
func TestPortTakenAtFirst(t *testing.T) {
	b := newBed(t)
	theirs, err := net.Listen("tcp", "127.0.53.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{
		"z.server": "z.test:" + strings.TrimPrefix(theirs.Addr().String(), "127.0.53.1:") + " {\n log\n}\n",
	}})
	s, stop := b.run(t)
	defer stop()
	eventually(t, func() error {
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return fmt.Errorf("with a port that is taken: %w", err)
		}
		return nil
	})
	theirs.Close()
	eventually(t, func() error { return s.Ready(t.Context()) })
	now(t, b.asks(web, "10.43.0.7"))
}

// A file of a ConfigMap need not be text.
func TestBinaryData(t *testing.T) {
	b := newBed(t)
	s, stop := b.run(t)
	defer stop()
	eventually(t, func() error { return s.Ready(t.Context()) })
	b.api.put("configmaps", namespace, customName, map[string]any{
		"data":       map[string]string{"a.override": "hosts /etc/coredns/custom/hosts\n"},
		"binaryData": map[string][]byte{"hosts": []byte("192.0.2.1 a.test # caf\xe9\n")},
	})
	eventually(t, b.asks("a.test", "192.0.2.1"))
}

// What runs with a server ends with it, whatever has happened meanwhile.
func TestNothingLeaks(t *testing.T) {
	b := newBed(t)
	cycle := func() {
		s, stop := b.run(t)
		defer stop()
		eventually(t, func() error { return s.Ready(t.Context()) })
		for i, extra := range []string{"", "nonsense\n", "kubernetes\n", "rewrite name a.test b.test\n"} {
			b.api.put("configmaps", namespace, customName, map[string]any{"data": map[string]string{"a.override": extra, "n": fmt.Sprint(i)}})
			if extra == "nonsense\n" || extra == "kubernetes\n" {
				eventually(t, notes(s, "Corefile broken"))
			}
		}
		eventually(t, func() error {
			if strings.Contains(s.Note(), "broken") {
				return fmt.Errorf("the note is %s", s.Note())
			}
			return nil
		})
		now(t, b.asks(web, "10.43.0.7"))
	}
	cycle() // what stays for good does after the first time
	before := runtime.NumGoroutine()
	for range 3 {
		cycle()
	}
	eventually(t, func() error {
		if after := runtime.NumGoroutine(); after > before {
			all := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines, %d before:\n%s", after, before, all[:runtime.Stack(all, true)])
		}
		return nil
	})
}

// A start that fails at once, as with a damaged store, stops DNS while it begins to
// serve.
func TestStoppedAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that goroutines do not begin at once
	b := newBed(t)
	w := want{files: files{corefileName: testCorefile}, listen: b.config.Listen, known: true}
	for range 20 {
		s := New(b.config)
		if err := s.claim(); err != nil {
			t.Fatal(err)
		}
		if err := s.load(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan struct{})
		go func() { s.stop(); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(20 * time.Second):
			t.Fatal("it does not stop")
		}
		s.release()
	}
}

// Only those are answered who may be pods or the machine itself.
func TestMayAsk(t *testing.T) {
	c := Config{Listen: addrs("203.0.113.7")}
	for text, want := range map[string]bool{
		"10.42.0.3:5": true, "192.168.1.1:5": true, "127.0.0.1:5": true, "[fd00::1]:5": true, "100.64.0.1:5": true,
		"203.0.113.7:5": true, "203.0.113.8:5": false, "[2001:db8::1]:5": false, "8.8.8.8:5": false,
	} {
		addr, err := net.ResolveUDPAddr("udp", text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.allows(addr); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

// BenchmarkServer is the processor time of a query and its answer over loopback,
// half of which is the asker's.
func BenchmarkServer(b *testing.B) {
	t := newBed(b)
	s, stop := t.run(b)
	defer stop()
	eventually(b, func() error { return s.Ready(b.Context()) })
	query, err := new(dns.Msg).SetQuestion(web+".", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", net.JoinHostPort("127.0.53.1", fmt.Sprint(layout.DNSPort)))
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answer := make([]byte, 512)
		for pb.Next() {
			if _, err := conn.Write(query); err != nil {
				b.Error(err)
				return
			}
			if _, err := conn.Read(answer); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
