package controlplane

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Clients of an address that has moved waited for an answer for 45 s.
func TestConnectionsToAnAddressThatMoves(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &connections{Listener: l, address: netip.MustParseAddr("127.0.0.2"), open: map[*connection]struct{}{}}
	defer c.Close()
	accepted := make(chan net.Conn, 3)
	go func() {
		for range 3 {
			conn, err := c.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- conn
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dial := func(to string) (client, server net.Conn) {
		client, err := net.Dial("tcp", net.JoinHostPort(to, port))
		if err != nil {
			t.Fatal(err)
		}
		return client, <-accepted
	}
	moves, _ := dial("127.0.0.2")
	stays, server := dial("127.0.0.1")
	_, closed := dial("127.0.0.2")
	closed.Close()
	if len(c.open) != 1 {
		t.Errorf("%d connections are open", len(c.open))
	}
	c.closeAll()
	if _, err := moves.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client of the address: %v", err)
	}
	if _, err := server.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	_ = stays.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := stays.Read(make([]byte, 1)); err != nil {
		t.Errorf("the client of another: %v", err)
	}
	if len(c.open) != 0 {
		t.Errorf("%d connections are kept", len(c.open))
	}
}
