package probe

import (
	"net"
	"os/exec"
	"sync/atomic"
	"testing"
)

func TestUnused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if Unused("tcp", at) == nil {
		t.Error("tcp: not in use")
	}
	if err := Unused("udp", at); err != nil {
		t.Error(err)
	}
	if Unused("sctp", at) == nil {
		t.Error("sctp: no error")
	}
	l.Close()
	if err := Unused("tcp", at); err != nil {
		t.Error(err)
	}
}

// A process that is started meanwhile keeps nothing in use.
func TestUnusedBesideForks(t *testing.T) {
	// At an address that no other program of the machine connects from: by that it would be in use.
	l, err := net.Listen("tcp", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	var ended atomic.Bool
	starts := make(chan error)
	go func() {
		var err error
		for !ended.Load() && err == nil {
			err = exec.Command("/bin/true").Run()
		}
		starts <- err
	}()
	failed := 0
	for range 2000 {
		if err := Unused("tcp", at); err != nil {
			failed++
		}
	}
	ended.Store(true)
	if err := <-starts; err != nil {
		t.Fatal(err)
	}
	if failed > 0 {
		t.Errorf("in use %d of 2000 times", failed)
	}
}
