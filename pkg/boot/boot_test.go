package boot

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/host/watch"
	"lite.io/lite/pkg/install/notify"
)

// changing is a component that finds another machine, when it is told to.
type changing struct{ now <-chan struct{} }

func (changing) Name() string                { return "changing" }
func (changing) Ready(context.Context) error { return errors.New("it never is") }
func (c changing) Run(ctx context.Context) error {
	select {
	case <-c.now:
	case <-ctx.Done():
	}
	return &watch.Changed{What: "the clock was set"}
}

// TestAgain: a node that starts anew does not tell the service manager that it
// stops, which would kill it; one that is stopped meanwhile does not start anew.
func TestAgain(t *testing.T) {
	for name, stopped := range map[string]bool{"alone": false, "stopped meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			b, said := newTestBoot(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				b.ctx, b.releases = ctx, []func(){stop}
				b.paused = whenDone(ctx, func() bool { return false })
				now := make(chan struct{})
				if stopped {
					stop()
				} else {
					close(now)
				}
				g := &component.Group{}
				g.Add(changing{now})
				err := b.end(b.run(g, nil, ""))
				if again := errors.Is(err, errAgain); again == stopped {
					t.Errorf("got %v", err)
				}
				synctest.Wait() // for what the end of the context has begun
			})
			b.manager.Status("the end of the test")
			if text := said(); !stopped && strings.Contains(text, "STOPPING") {
				t.Errorf("the service manager was told %q", text)
			}
		})
	}
}

// lingering does not end when it is told to; meanwhile the node is told to stop.
type lingering struct {
	stop func()
	end  <-chan struct{}
}

func (lingering) Name() string                { return "lingering" }
func (lingering) Ready(context.Context) error { return nil }
func (l lingering) Run(ctx context.Context) error {
	<-ctx.Done()
	l.stop()
	<-l.end
	return nil
}

// What did not end in time is said also where the machine has changed meanwhile.
func TestStuckWhileTheMachineChanges(t *testing.T) {
	b, _ := newTestBoot(t)
	ctx, stop := context.WithCancel(t.Context())
	b.ctx, b.releases = ctx, []func(){stop}
	now, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	g := &component.Group{StopTimeout: time.Second}
	g.OnChange = func(s component.Status) {
		if s.Name == "lingering" && s.State == component.Ready {
			close(now)
		}
	}
	g.Add(changing{now})
	g.Add(lingering{stop, end})
	if err := b.run(g, nil, ""); err == nil || !strings.Contains(err.Error(), "lingering still running") {
		t.Errorf("got %v", err)
	}
}

// newTestBoot is a node with a service manager; said is all that it was told.
func newTestBoot(t *testing.T) (b *reporting, said func() string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	manager, err := notify.Find(func(name string) string { return map[string]string{"NOTIFY_SOCKET": socket}[name] }, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	b = &reporting{claimed: &claimed{plan: &plan{
		process: &process{began: time.Now(), manager: manager}, cfg: &config.Config{DataDir: t.TempDir()}, ui: newProgress(null, "text", manager.Status),
	}}}
	return b, func() string {
		var text bytes.Buffer
		line := make([]byte, 1024)
		for !strings.Contains(text.String(), "the end of the test") {
			n, err := conn.Read(line)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(append(line[:n], '\n'))
		}
		return text.String()
	}
}
