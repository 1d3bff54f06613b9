// Package notify reports the state of the process to the service manager, with the protocol
// of sd_notify(3).
//
// go-systemd does that too, but reads the environment at each call, as do kubelet and API
// server in this process: the kubelet would report READY and answer the watchdog on behalf
// of lite. So the environment is read once and then cleared.
package notify

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"
)

// Variables are how a service manager announces itself to a process. They are not for
// lite's components, nor for programs that it starts.
var Variables = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

// Manager is the service manager; the zero Manager gets nothing.
type Manager struct {
	conn  *net.UnixConn
	every time.Duration // the interval of the watchdog; 0 = none
}

// Find finds the service manager in an environment, as os.Getenv returns it.
func Find(getenv func(string) string, pid int) (*Manager, error) {
	socket := getenv("NOTIFY_SOCKET")
	if socket == "" {
		return &Manager{}, nil
	}
	// A name that begins with @ is an abstract one, for Go as for systemd.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	m := &Manager{conn: conn}
	if of := getenv("WATCHDOG_PID"); of != "" && of != strconv.Itoa(pid) {
		return m, nil
	}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		m.every = time.Duration(usec) * time.Microsecond / 2
	}
	return m, nil
}

// Ready reports that the start is complete.
func (m *Manager) Ready() { m.send("READY=1") }

// Stopping reports that the process is about to end.
func (m *Manager) Stopping() { m.send("STOPPING=1") }

// Status reports in one line what the process does or waits for.
func (m *Manager) Status(line string) {
	m.send("STATUS=" + strings.ReplaceAll(line, "\n", " "))
}

// Watch answers the watchdog, for as long as alive does not fail and ctx is not done. alive
// is called before each answer and must return on its own; if it does not, that counts as a
// failure.
func (m *Manager) Watch(ctx context.Context, alive func(context.Context) error) {
	if m.conn == nil || m.every == 0 {
		return
	}
	for {
		// Late is not dead: the manager counts the time, not this loop.
		if alive(ctx) == nil {
			m.send("WATCHDOG=1")
		}
		select {
		case <-time.After(m.every):
		case <-ctx.Done():
			return
		}
	}
}

// send sends to the manager, and ignores errors: the process works without it.
func (m *Manager) send(state string) {
	if m.conn == nil {
		return
	}
	_ = m.conn.SetWriteDeadline(time.Now().Add(time.Second)) // it may hang itself
	_, _ = m.conn.Write([]byte(state))
}
