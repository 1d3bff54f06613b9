package setup

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lite.io/lite/pkg/config"
)

// A start is waited for until it is another one than before, and is ready, fails, or takes too long.
func TestAwait(t *testing.T) {
	const again = "InvocationID=2\n"
	for name, c := range map[string]struct {
		shows []string // each second one; the last goes on
		log   string
		want  string // of the error, or else of what is said
		took  time.Duration
	}{
		"ready":       {[]string{"ActiveState=active\nInvocationID=1", "ActiveState=deactivating\nInvocationID=1", again + "ActiveState=activating", again + "ActiveState=active"}, "", "the node is ready", 4 * time.Second},
		"tells":       {[]string{again + "StatusText=Starting, waiting for etcd", again + "StatusText=Starting, waiting for etcd"}, "", "[lite] Starting, waiting for etcd\n", readyTimeout},
		"not ready":   {[]string{again + "StatusText=Starting, waiting for etcd"}, "", "it is not ready after 300 s: Starting, waiting for etcd (journalctl -u lite and lite status say more)", readyTimeout},
		"says naught": {[]string{again}, "", "it has not said why", readyTimeout},
		"fails":       {[]string{again + "NRestarts=0", again + "NRestarts=2"}, "level=INFO x\nlite: port 6443 is taken\n", "the service does not start: port 6443 is taken; correct that", 2 * time.Second},
		"fails later": {[]string{again + "NRestarts=3"}, "level=ERROR a\nlevel=ERROR b\nlevel=INFO c\n", "the service does not start: level=ERROR b; correct that", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				s := &setup{Request: Request{Out: &out, Err: &out}, init: systemd}
				s.options.role, s.plan.bin = config.Server, "/usr/local/bin/lite"
				looks := 0
				s.execute = func(_ context.Context, name string, args ...string) (string, int, error) {
					if name == "journalctl" {
						return c.log, 0, nil
					}
					looks++
					return c.shows[min(looks, len(c.shows))-1], 0, nil
				}
				began := time.Now()
				err := s.await(t.Context(), watch{"journalctl -u lite", func(ctx context.Context) state { return s.systemdState(ctx, "1") }})
				if got := out.String() + fmt.Sprint(err); !strings.Contains(got, c.want) {
					t.Errorf("it says\n%s", got)
				}
				if took := time.Since(began).Truncate(time.Second); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
				if n := strings.Count(out.String(), "waiting for"); n > 1 {
					t.Errorf("it says the same %d times", n)
				}
			})
		})
	}
}

func TestAwaitOfOpenRC(t *testing.T) {
	b := newBed(t)
	const before = "lite: an older reason\n"
	b.put(t, openRCLog, before, 0o644)
	s := &setup{Request: b.request, machine: b.machine, init: openRC}
	status := 1
	s.execute = func(context.Context, string, ...string) (string, int, error) { return "", status, nil }
	look := func() state { return s.openRCState(t.Context(), int64(len(before))) }
	if st := look(); st.ready || st.failing {
		t.Errorf("at first: %+v", st)
	}
	b.put(t, openRCLog, before+"level=INFO x\nlite: port 6443 is taken\n", 0o644)
	if st := look(); !st.failing || st.why != "port 6443 is taken" {
		t.Errorf("it fails: %+v", st)
	}
	b.put(t, openRCLog, "lite: it\n", 0o644) // rotated
	if st := look(); st.why != "it" {
		t.Errorf("after the log was rotated: %+v", st)
	}
	status = 0
	if st := look(); !st.ready {
		t.Errorf("ready: %+v", st)
	}
}

func TestFindInit(t *testing.T) {
	for _, c := range []struct {
		name      string
		prepare   func(*bed)
		skipStart bool
		want      initSystem
	}{
		{"systemd", func(*bed) {}, false, systemd},
		{"an image with systemd", func(b *bed) { b.remove(t, "run/systemd/system") }, true, unbooted},
		{"an image with systemd that is started", func(b *bed) { b.remove(t, "run/systemd/system") }, false, none},
		{"OpenRC", func(b *bed) {
			b.remove(t, "run/systemd/system")
			b.put(t, "sbin/openrc-run", "", 0o755)
			b.machine.look = func(name string) string { return map[string]string{"rc-service": "/sbin/rc-service"}[name] }
		}, true, openRC},
		{"neither", func(b *bed) { b.machine.look = func(string) string { return "" } }, true, none},
	} {
		b := newBed(t)
		c.prepare(b)
		s := &setup{Request: b.request, machine: b.machine}
		s.options.skipStart = c.skipStart
		if got := s.findInit(); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
