package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lite.io/lite/pkg/layout"
)

// fake is a machine whose commands print what the test sets. It records what was run.
type fake struct {
	machine
	answers map[string]answer // command line -> answer; others succeed and print nothing
	ran     []string
}

type answer struct {
	output string
	code   int
	err    error
}

func newFake(t *testing.T, files ...string) *fake {
	f := &fake{answers: map[string]answer{}}
	f.machine = machineAt(t.TempDir(), func(_ context.Context, name string, args ...string) (string, int, error) {
		line := name + " " + strings.Join(args, " ")
		f.ran = append(f.ran, line)
		a := f.answers[line]
		return a.output, a.code, a.err
	})
	for _, path := range files {
		path = filepath.Join(f.root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

const show = "systemctl show --property=LoadState,ActiveState,UnitFileState lite.service"

func TestFind(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string
		show  string
		want  string // "" = none
	}{
		{"no init system", nil, "", ""},
		{"systemd", []string{"run/systemd/system/x"}, "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", "systemd"},
		{"systemd without the service", []string{"run/systemd/system/x"}, "LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", ""},
		{"systemd with a damaged unit", []string{"run/systemd/system/x"}, "LoadState=bad-setting\nActiveState=inactive\n", "systemd"},
		{"OpenRC", []string{"run/openrc/softlevel", "etc/init.d/lite"}, "", "OpenRC"},
		{"OpenRC without the service", []string{"run/openrc/softlevel"}, "", ""},
		{"files of OpenRC under another init system", []string{"etc/init.d/lite"}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, test.files...)
			f.answers[show] = answer{output: test.show}
			m, err := f.find()
			if test.want == "" {
				if !errors.Is(err, ErrNone) {
					t.Fatalf("found %v, %v; want none", m, err)
				}
				return
			}
			if err != nil || m.Name() != test.want {
				t.Errorf("found %v, %v; want %s", m, err, test.want)
			}
		})
	}
}

func TestFindSaysThatSystemdFails(t *testing.T) {
	f := newFake(t, "run/systemd/system/x")
	f.answers[show] = answer{output: "Failed to connect to bus", code: 1}
	if _, err := f.find(); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "Failed to connect to bus") {
		t.Errorf("find: %v", err)
	}
}

func TestActive(t *testing.T) {
	for state, want := range map[string]bool{
		"active": true, "activating": true, "deactivating": true, "reloading": true, "inactive": false, "failed": false,
	} {
		f := newFake(t)
		f.answers[show] = answer{output: "LoadState=loaded\nActiveState=" + state + "\n"}
		if got, err := (systemd{f.machine}).Active(t.Context()); got != want || err != nil {
			t.Errorf("systemd, %s: active %v, %v", state, got, err)
		}
	}
	for code, want := range map[int]bool{0: true, 3: false, 4: true, 8: true, 16: true, 32: false} {
		f := newFake(t, layout.Default().Host.OpenRCScript)
		f.answers["rc-service lite status"] = answer{code: code}
		if got, err := (openRC{f.machine}).Active(t.Context()); got != want || err != nil {
			t.Errorf("OpenRC, %d: active %v, %v", code, got, err)
		}
	}
	f := newFake(t, layout.Default().Host.OpenRCScript)
	f.answers["rc-service lite status"] = answer{code: 1, output: "you are not allowed"}
	if _, err := (openRC{f.machine}).Active(t.Context()); err == nil {
		t.Error("OpenRC that refuses to answer counts as an answer")
	}
}

func TestVerbs(t *testing.T) {
	enabled := answer{output: "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"}
	gone := answer{output: "LoadState=not-found\nActiveState=failed\nUnitFileState=\n"}
	const link = "etc/runlevels/default/lite"
	for _, test := range []struct {
		name  string
		files []string
		show  answer
		do    func(*fake) error
		want  []string
	}{
		{"systemd start", nil, enabled, func(f *fake) error { return systemd{f.machine}.Start(t.Context()) },
			[]string{"systemctl --no-ask-password start lite.service"}},
		{"systemd disable", nil, enabled, func(f *fake) error { return systemd{f.machine}.Disable(t.Context()) },
			[]string{show, "systemctl --no-ask-password disable lite.service"}},
		{"systemd disable what is gone", nil, gone, func(f *fake) error { return systemd{f.machine}.Disable(t.Context()) },
			[]string{show}},
		{"systemd reload", nil, enabled, func(f *fake) error { return systemd{f.machine}.Reload(t.Context()) },
			[]string{"systemctl daemon-reload", show}},
		{"systemd reload after it is gone", nil, gone, func(f *fake) error { return systemd{f.machine}.Reload(t.Context()) },
			[]string{"systemctl daemon-reload", show, "systemctl reset-failed lite.service"}},
		{"OpenRC stop", []string{layout.Default().Host.OpenRCScript}, enabled, func(f *fake) error { return openRC{f.machine}.Stop(t.Context()) },
			[]string{"rc-service lite status", "rc-service lite stop"}},
		{"OpenRC stop what is gone", nil, enabled, func(f *fake) error { return openRC{f.machine}.Stop(t.Context()) }, nil},
		{"OpenRC disable", []string{layout.Default().Host.OpenRCScript, link}, enabled, func(f *fake) error { return openRC{f.machine}.Disable(t.Context()) },
			[]string{"rc-update delete lite default"}},
		{"OpenRC disable what is not enabled", []string{layout.Default().Host.OpenRCScript}, enabled, func(f *fake) error { return openRC{f.machine}.Disable(t.Context()) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, test.files...)
			f.answers[show] = test.show
			if err := test.do(f); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(f.ran, test.want) {
				t.Errorf("ran %q, want %q", f.ran, test.want)
			}
		})
	}
}

func TestFailureNamesTheCommand(t *testing.T) {
	f := newFake(t)
	f.answers["systemctl --no-ask-password start lite.service"] = answer{output: "Job for lite.service failed.\n", code: 1}
	err := systemd{f.machine}.Start(t.Context())
	if want := "systemctl --no-ask-password start lite.service: exit code 1: Job for lite.service failed."; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestHold(t *testing.T) {
	dir := t.TempDir()
	hold, other, err := TryHold(filepath.Join(dir, "missing"))
	if hold != nil || other != nil || err != nil {
		t.Errorf("a directory that is not there: %v, %v, %v", hold, other, err)
	}
	hold, other, err = TryHold(dir)
	if hold == nil || other != nil || err != nil {
		t.Fatalf("a free directory: %v, %v, %v", hold, other, err)
	}
	// The test has the lock now, and is no lite.
	_, other, err = TryHold(dir)
	if other != nil || err == nil || !strings.Contains(err.Error(), "is not lite") {
		t.Errorf("held by another program: %v, %v", other, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lite.lock"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, other, err = TryHold(dir)
	if other != nil || err == nil || !strings.Contains(err.Error(), "another process than 1") {
		t.Errorf("held by another than it names: %v, %v", other, err)
	}
	if err := hold.Close(); err != nil {
		t.Fatal(err)
	}
	again, _, err := TryHold(dir)
	if again == nil || err != nil {
		t.Errorf("after it was let go: %v, %v", again, err)
	}
	again.Close()
}

// The data directory of a lite is free before it has closed its sockets, and one that waits
// for an upgrade never ends on its own.
func TestEnd(t *testing.T) {
	for _, program := range []string{"sleep 0.2", "sleep 1000"} {
		c := exec.Command("sh", "-c", "exec "+program)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		process, err := os.FindProcess(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		p := &Process{PID: c.Process.Pid, process: process}
		if p.ended() {
			t.Errorf("%s has ended at once", program)
		}
		if err := p.End(t.Context()); err != nil {
			t.Errorf("%s: %v", program, err)
		}
		if !p.ended() { // it is not buried
			t.Errorf("%s has not ended", program)
		}
		_ = c.Wait()
	}
}

// A start was refused by the lock that it had let go of itself: a program that it was
// just starting had it for a moment.
func TestClaimWaitsForAProgramThatIsStarted(t *testing.T) {
	dir := t.TempDir()
	hold, err := Claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sleep", "0.3")
	c.ExtraFiles = []*os.File{hold.file}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	hold.Close()
	if err := CheckClaim(dir); err != nil {
		t.Error(err)
	}
	again, err := Claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
