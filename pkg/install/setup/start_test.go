package setup

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/service"
)

// A start is waited for until it is another one than before, and is ready, fails, or takes too long.
func TestAwait(t *testing.T) {
	const again = "InvocationID=2\n"
	for name, c := range map[string]struct {
		shows []string // each second one; the last goes on
		log   string
		want  string // part of the error, otherwise of the output
		took  time.Duration
	}{
		"ready":       {[]string{"ActiveState=active\nInvocationID=1", "ActiveState=deactivating\nInvocationID=1", again + "ActiveState=activating", again + "ActiveState=active"}, "", "the node is ready", 4 * time.Second},
		"tells":       {[]string{again + "StatusText=Starting, waiting for etcd", again + "StatusText=Starting, waiting for etcd"}, "", "[lite] Starting, waiting for etcd\n", readyTimeout},
		"not ready":   {[]string{again + "StatusText=Starting, waiting for etcd"}, "", "it is not ready after 300 s: Starting, waiting for etcd (journalctl -u lite and lite status show more)", readyTimeout},
		"says naught": {[]string{again}, "", "it has not reported why", readyTimeout},
		"fails":       {[]string{again + "NRestarts=0", again + "NRestarts=2"}, "level=INFO x\nlite: port 6443 is taken\n", "the service does not start: port 6443 is taken; fix that", 2 * time.Second},
		"fails later": {[]string{again + "NRestarts=3"}, "level=ERROR a\nlevel=ERROR b\nlevel=INFO c\n", "the service does not start: level=ERROR b; fix that", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				s := &setup{Request: Request{Out: &out, Err: &out}}
				s.options.role, s.plan.bin = config.Server, "/usr/local/bin/lite"
				looks := -1 // before the start
				s.execute = func(_ context.Context, name string, args ...string) (string, int, error) {
					switch {
					case name == "journalctl":
						return c.log, 0, nil
					case !slices.Contains(args, "show"):
						return "", 0, nil
					case looks < 0:
						looks = 0
						return "InvocationID=1\n", 0, nil
					}
					looks++
					return c.shows[min(looks, len(c.shows))-1], 0, nil
				}
				s.init = service.Here(newBed(t).root, s.execute, func(name string) string { return name }, false)
				starting, err := s.restart(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				err = s.await(t.Context(), starting)
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
	status := 1
	execute := func(_ context.Context, _ string, args ...string) (string, int, error) {
		if slices.Contains(args, "restart") {
			return "", 0, nil
		}
		return "", status, nil
	}
	b.openRC(t)
	starting, err := service.Here(b.root, execute, b.machine.lookPath, false).Restart(t.Context(), "/usr/local/bin/lite")
	if err != nil {
		t.Fatal(err)
	}
	state := func() service.State { return starting.State(t.Context()) }
	if st := state(); st.Ready || st.Failing {
		t.Errorf("at first: %+v", st)
	}
	b.put(t, openRCLog, before+"level=INFO x\nlite: port 6443 is taken\n", 0o644)
	if st := state(); !st.Failing || st.Why != "port 6443 is taken" {
		t.Errorf("it fails: %+v", st)
	}
	b.put(t, openRCLog, "lite: it\n", 0o644) // rotated
	if st := state(); st.Why != "it" {
		t.Errorf("after the log was rotated: %+v", st)
	}
	status = 0
	if st := state(); !st.Ready {
		t.Errorf("ready: %+v", st)
	}
}

func TestFindInit(t *testing.T) {
	for _, c := range []struct {
		name      string
		prepare   func(*bed)
		skipStart bool
		want      service.Kind
	}{
		{"systemd", func(*bed) {}, false, service.Systemd},
		{"an image with systemd", func(b *bed) { b.remove(t, "run/systemd/system") }, true, service.Unbooted},
		{"an image with systemd that is started", func(b *bed) { b.remove(t, "run/systemd/system") }, false, service.None},
		{"OpenRC", func(b *bed) { b.openRC(t) }, true, service.OpenRC},
		{"neither", func(b *bed) { b.machine.lookPath = func(string) string { return "" } }, true, service.None},
	} {
		b := newBed(t)
		c.prepare(b)
		if got := service.Here(b.root, nil, b.machine.lookPath, c.skipStart).Kind; got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// openRC makes the bed's machine one with OpenRC.
func (b *bed) openRC(t *testing.T) {
	t.Helper()
	b.remove(t, "run/systemd/system")
	b.put(t, "sbin/openrc-run", "", 0o755)
	b.machine.lookPath = func(name string) string { return map[string]string{"rc-service": "/sbin/rc-service"}[name] }
}
