package apiproxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewChecks(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"no port":    {Config{Listen: "127.0.0.1"}, `load balancer: listen address "127.0.0.1": must be 127.0.0.1:6444`},
		"for all":    {Config{Listen: "0.0.0.0:6444"}, "load balancer: listen address 0.0.0.0:6444 is not a loopback address: other machines could use it"},
		"no seed":    {Config{Listen: "127.0.0.1:6444"}, "load balancer: no server to start with; pass the address of one"},
		"bad seed":   {Config{Listen: "127.0.0.1:6444", Seed: []string{"host"}}, `load balancer: server "host": must be host:port`},
		"no host":    {Config{Listen: "127.0.0.1:6444", Seed: []string{":1"}}, `load balancer: server ":1": must be host:port`},
		"port":       {Config{Listen: "127.0.0.1:6444", Seed: []string{"a:65536"}}, `load balancer: server "a:65536": must be host:port`},
		"itself":     {Config{Listen: "127.0.0.1:6444", Seed: []string{"127.0.0.1:6444"}}, "load balancer: server 127.0.0.1:6444 is the load balancer's own address; use the address of a server"},
		"name":       {Config{Listen: "127.0.0.1:6444", Seed: []string{"lb.example.org:6443"}}, ""},
		"IPv6, both": {Config{Listen: "[::1]:6444", Seed: []string{"[fd00::1]:6443"}}, ""},
	} {
		_, err := New(test.config)
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestRunNeedsTheCA(t *testing.T) {
	b, err := New(Config{Listen: "127.0.0.1:0", Seed: []string{"a:1"}, CAFile: filepath.Join(t.TempDir(), "ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "join the node again") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(b.config.CAFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "does not contain a certificate") {
		t.Errorf("got %v", err)
	}
}

func TestRunNamesTheAddressThatIsTaken(t *testing.T) {
	c := newCluster(t)
	taken := silent(t)
	b := c.balancer(t, Config{Listen: taken, Seed: []string{"a:1"}})
	if err := b.Run(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "address already in use; stop what uses "+taken) {
		t.Errorf("got %v", err)
	}
	if err := b.Ready(t.Context()); err == nil || err.Error() != "not listening yet" {
		t.Errorf("got %v", err)
	}
}

// The server is silent until it has seen the client's end: bytes and half-close
// must have come through before anything comes back.
func TestPassesBytesAndHalfClose(t *testing.T) {
	c := newCluster(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				all, _ := io.ReadAll(conn)
				_, _ = conn.Write(append(all, " and back"...))
				conn.Close()
			}()
		}
	}()
	b := c.start(t, Config{Seed: []string{l.Addr().String()}})

	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	conn := dial(t, b)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, append(sent, " and back"...)) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	eventually(t, "the connection is forgotten", func() bool { return b.Servers()[0].Connections == 0 })
}

func TestTheNextServerTakesOverWithinTheSameConnection(t *testing.T) {
	c := newCluster(t)
	one, two := c.server(t, "one"), c.server(t, "two")
	config := c.remembered(t, one, two)
	b := c.prepare(t, config)
	b.timing.every = time.Hour // no probe is to help
	run(t, b)
	eventually(t, "both are healthy", func() bool { return len(c.in(b, Healthy)) == 2 })

	used := c.ask(t, b)
	if again := c.ask(t, b); again != used {
		t.Errorf("%s was asked after %s", again, used)
	}
	c.servers[used].stop()
	other := c.ask(t, b)
	if other == used {
		t.Errorf("%s answers from the dead", used)
	}
	s := find(t, b, c.servers[used].address)
	if s.State != Failed || s.Why != "connection refused" || s.InUse || !s.UsedSince.IsZero() {
		t.Errorf("got %+v", s)
	}
	s = find(t, b, c.servers[other].address)
	if s.State != Healthy || s.Why != "" || !s.InUse || s.UsedSince.IsZero() {
		t.Errorf("got %+v", s)
	}
}

func TestAServerThatNeverAcceptsIsNotUsed(t *testing.T) {
	c := newCluster(t)
	one, hangs := c.server(t, "one"), silent(t)
	b := c.start(t, Config{Seed: []string{hangs, one.address}})
	eventually(t, "it is noticed", func() bool { return find(t, b, hangs).State == Failed })
	for range 3 {
		if got := c.ask(t, b); got != "one" {
			t.Errorf("got %s", got)
		}
	}
	if s := find(t, b, hangs); s.Why != "no answer in time" {
		t.Errorf("got %+v", s)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConnectionsLeaveAServerThatHangs(t *testing.T) {
	c := newCluster(t)
	config := c.remembered(t, c.server(t, "one"), c.server(t, "two"))
	b := c.start(t, config)
	eventually(t, "both are healthy", func() bool { return len(c.in(b, Healthy)) == 2 })
	conn := dial(t, b)
	eventually(t, "a server is in use", func() bool { return inUse(b).Connections == 1 })
	used := inUse(b).Address

	c.at(used).hang()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the connection closed", err)
	}
	if now := inUse(b); now.Address == used || now.State != Healthy {
		t.Errorf("%+v took over", now)
	}
	c.at(used).resume()
	eventually(t, "it is well again", func() bool { return find(t, b, used).State == Healthy })
	if inUse(b).Address == used {
		t.Error("there was no reason to go back")
	}
}

// With one server, a connection that gets no answer is the only sign.
func TestTheOnlyServerIsAskedWhenAConnectionStaysSilent(t *testing.T) {
	c := newCluster(t)
	one := c.server(t, "one")
	b := c.start(t, Config{Seed: []string{one.address}})
	eventually(t, "it is healthy", func() bool { return b.Ready(t.Context()) == nil })
	if pause := b.pause(); pause != 0 {
		t.Errorf("a single healthy server is asked every %s", pause)
	}
	one.hang()
	held := dial(t, b)
	eventually(t, "it is connected", func() bool { return inUse(b).Connections == 1 })
	dial(t, b).Close()
	want := "no API server answers: " + one.address + " (no answer in time); "
	eventually(t, "it is noticed", func() bool {
		err := b.Ready(t.Context())
		return err != nil && strings.HasPrefix(err.Error(), want)
	})
	// There is nowhere to go, so it may finish what it has begun.
	one.resume()
	eventually(t, "it is well again", func() bool { return b.Ready(t.Context()) == nil })
	if inUse(b).Connections != 1 {
		t.Error("the connection was closed")
	}
	held.Close()
}

func TestAServerOfAnotherClusterIsNotHealthy(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	b := c.start(t, Config{Seed: []string{other.server(t, "stranger").address}})
	eventually(t, "it is asked", func() bool { return inUse(b).State == Failed })
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("got %v", err)
	}
}

func TestReadySaysWhatWasTried(t *testing.T) {
	c := newCluster(t)
	one := c.server(t, "one")
	one.answer(500)
	dead := vacant(t)
	b := c.start(t, Config{Seed: []string{one.address, dead}})
	eventually(t, "both are asked", func() bool { return len(c.in(b, Failed)) == 2 })
	err := b.Ready(t.Context())
	for _, want := range []string{"no API server answers: ", one.address + " (answers 500 Internal Server Error)", dead + " (connection refused)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	// The server does not know the client, but it answers.
	one.answer(401)
	eventually(t, "one is healthy", func() bool { return b.Ready(t.Context()) == nil })
}

func TestEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	one, two := c.server(t, "one"), c.server(t, "two")
	c.list(one.address, two.address)
	before := runtime.NumGoroutine()

	b := c.prepare(t, Config{Seed: []string{one.address}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	c.join(t, b)
	eventually(t, "the servers are learnt", func() bool { return len(c.in(b, Healthy)) == 2 })
	address := b.address()
	conn := dial(t, b)
	eventually(t, "it is connected", func() bool { return connections(b) > 1 })
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the connection closed", err)
	}
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want nobody to listen", err)
	}
	if n := connections(b); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// scarce is a listener that runs out of files.
type scarce struct {
	asked  int
	closed chan struct{}
}

func (s *scarce) Accept() (net.Conn, error) {
	s.asked++
	select {
	case <-s.closed:
		return nil, net.ErrClosed
	default:
		return nil, syscall.EMFILE
	}
}

func (s *scarce) Close() error { close(s.closed); return nil }

func (s *scarce) Addr() net.Addr { return nil }

func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l := &scarce{closed: make(chan struct{})}
		context.AfterFunc(ctx, func() { l.Close() })
		(&Balancer{}).accept(ctx, l, &sync.WaitGroup{})
		if l.asked < 50 || l.asked > 100 {
			t.Errorf("asked %d times in a minute", l.asked)
		}
	})
}

func TestOrder(t *testing.T) {
	b := &Balancer{servers: map[string]*server{}}
	for _, s := range []*server{
		{address: "1", learnt: true, state: Healthy, place: 2},
		{address: "0", learnt: true, state: Healthy, place: 3},
		{address: "2", learnt: true, seed: true, state: Healthy, place: 4},
		{address: "3", seed: true, state: Healthy},
		{address: "4", learnt: true, state: Unknown},
		{address: "5", seed: true, state: Unknown},
		{address: "6", learnt: true, state: Failed},
		{address: "7", seed: true, state: Failed},
	} {
		b.servers[s.address] = s
	}
	for current, want := range map[string]string{"0": "01234567", "": "10234567", "3": "10234567"} {
		b.current = b.servers[current]
		var got string
		for _, s := range b.order() {
			got += s.address
		}
		if got != want {
			t.Errorf("%q in use: got %s, want %s", current, got, want)
		}
	}
}

// Agents must not all begin with the same server.
func TestAgentsSpread(t *testing.T) {
	first := map[string]bool{}
	for range 100 {
		b := &Balancer{servers: map[string]*server{}, kick: make(chan struct{}, 1)}
		b.replace([]string{"a:1", "b:1", "c:1"})
		first[b.current.address] = true
	}
	if len(first) != 3 {
		t.Errorf("only %v are chosen", slices.Sorted(maps.Keys(first)))
	}
}

func TestErrorsOfThisMachineSayNothingOfAServer(t *testing.T) {
	b, err := New(Config{Listen: "127.0.0.1:6444", Seed: []string{"a:1"}})
	if err != nil {
		t.Fatal(err)
	}
	s := b.servers["a:1"]
	full := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	b.refused(s, full)
	b.probed(s, full)
	if s.state != Unknown {
		t.Errorf("got %s", s.state)
	}
}
