package notify

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// listen is a service manager; env is what it gives to a process.
func listen(t *testing.T, env map[string]string) (*net.UnixConn, *Manager) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	all := map[string]string{"NOTIFY_SOCKET": path}
	for name, value := range env {
		all[name] = value
	}
	m, err := Find(func(name string) string { return all[name] }, 7)
	if err != nil {
		t.Fatal(err)
	}
	return conn, m
}

func heard(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	message := make([]byte, 4096)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := conn.Read(message)
	if err != nil {
		t.Fatal(err)
	}
	return string(message[:n])
}

func TestStates(t *testing.T) {
	conn, m := listen(t, nil)
	m.Status("waiting for a,\nb")
	m.Ready()
	m.Stopping()
	for _, want := range []string{"STATUS=waiting for a, b", "READY=1", "STOPPING=1"} {
		if got := heard(t, conn); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The watchdog is answered when alive succeeds, and not when it fails.
func TestWatch(t *testing.T) {
	conn, m := listen(t, map[string]string{"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "7"})
	ctx, cancel := context.WithCancel(t.Context())
	asked, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		m.Watch(ctx, func(context.Context) error { return <-asked })
	}()
	asked <- errors.New("dead")
	asked <- errors.New("dead")
	asked <- nil
	if got := heard(t, conn); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	m.Status("end")
	if got := heard(t, conn); got != "STATUS=end" {
		t.Errorf("then %q: it answered for what had failed", got)
	}
	cancel()
	select {
	case asked <- nil: // it was about to ask
	case <-done:
	}
	<-done
}

func TestWithoutManager(t *testing.T) {
	m, err := Find(func(string) string { return "" }, 7)
	if err != nil {
		t.Fatal(err)
	}
	m.Ready()
	m.Watch(t.Context(), func(context.Context) error { t.Error("asked"); return nil })

	_, m = listen(t, map[string]string{"WATCHDOG_USEC": "2000", "WATCHDOG_PID": "8"})
	m.Watch(t.Context(), func(context.Context) error { t.Error("another process is watched, and this one asked"); return nil })

	if _, err := Find(func(name string) string { return map[string]string{"NOTIFY_SOCKET": "/none/such"}[name] }, 7); err == nil {
		t.Error("a socket that is not there is no error")
	}
}
