package service

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// Kind is an init system.
type Kind int

// The kinds.
const (
	None Kind = iota
	Systemd
	Unbooted // systemd in the image of a machine, for example, that will be booted later
	OpenRC
)

const (
	systemdBooted = "/run/systemd/system" // sd_booted(3)
	openRCRun     = "/sbin/openrc-run"
	unitName      = layout.Service + ".service"
)

// Installer is the init system of a machine on which lite is being installed, as a service that may not be there yet.
type Installer struct {
	Kind Kind
	machine
}

// Here returns the init system of a machine whose files are below root, and whose programs lookPath finds ("" = not
// found). image means that the machine may not be running.
func Here(root string, run Runner, lookPath func(name string) string, image bool) Installer {
	m := machineAt(root, run)
	isDir := func(path string) bool {
		info, err := os.Stat(m.at(path))
		return err == nil && info.IsDir()
	}
	switch {
	case isDir(systemdBooted) && lookPath("systemctl") != "":
		return Installer{Systemd, m}
	case lookPath("systemctl") != "" && image:
		return Installer{Unbooted, m}
	case unix.Access(m.at(openRCRun), unix.X_OK) == nil && lookPath("rc-service") != "":
		return Installer{OpenRC, m}
	}
	return Installer{None, m}
}

func (m machine) at(path string) string { return filepath.Join(m.root, path) }

func (m machine) succeeds(ctx context.Context, name string, args ...string) bool {
	_, code, err := m.run(ctx, name, args...)
	return err == nil && code == 0
}

// AtBoot is the link by which the service starts at boot, "" if nothing starts it.
func (i Installer) AtBoot() string {
	switch i.Kind {
	case Systemd, Unbooted:
		return i.layout.Host.SystemdWanted
	case OpenRC:
		return i.layout.Host.OpenRCRunlevel
	}
	return ""
}

// Reload reads a description that was changed, if that has to be asked for.
func (i Installer) Reload(ctx context.Context) error {
	if i.Kind != Systemd {
		return nil
	}
	return i.must(ctx, "systemctl", "daemon-reload")
}

// Enable makes the service start at boot.
func (i Installer) Enable(ctx context.Context) error {
	switch {
	case i.Kind == None || i.has(i.AtBoot()):
		return nil
	case i.Kind == OpenRC:
		return i.must(ctx, "rc-update", "--quiet", "add", layout.Service, "default")
	}
	return i.must(ctx, "systemctl", "--quiet", "enable", unitName)
}

// Running reports whether the service runs.
func (i Installer) Running(ctx context.Context) bool {
	if i.Kind == OpenRC {
		return i.succeeds(ctx, "rc-service", "--quiet", layout.Service, "status")
	}
	return i.succeeds(ctx, "systemctl", "--quiet", "is-active", unitName)
}

// State is how far a start has come.
type State struct {
	Ready   bool
	Failing bool
	Why     string // why it is not ready yet, or fails; "" = unknown
}

// Starting is a start that has begun.
type Starting struct {
	Logs  string // where its log is
	State func(context.Context) State
}

// StartError means that an init system has refused to start the service.
type StartError struct {
	Program string
	Output  string // of the program
}

func (e *StartError) Error() string { return e.Program + " does not start lite: " + oneLine(e.Output) }

// Restart begins to start or restart the service. bin is the program of lite.
func (i Installer) Restart(ctx context.Context, bin string) (Starting, error) {
	if i.Kind == OpenRC {
		before := int64(0)
		if info, err := os.Stat(i.at(i.layout.Host.OpenRCLog)); err == nil {
			before = info.Size()
		}
		output, code, err := i.run(ctx, "rc-service", "--quiet", layout.Service, "restart")
		if err != nil || code != 0 {
			return Starting{}, &StartError{"rc-service", output}
		}
		return Starting{i.layout.Host.OpenRCLog, func(ctx context.Context) State { return i.openRCState(ctx, bin, before) }}, nil
	}
	i.succeeds(ctx, "systemctl", "reset-failed", unitName)
	before := i.show(ctx)["InvocationID"]
	if err := i.must(ctx, "systemctl", "--no-block", "restart", unitName); err != nil {
		return Starting{}, err
	}
	return Starting{"journalctl -u " + layout.Service, func(ctx context.Context) State { return i.systemdState(ctx, before) }}, nil
}

// show is what systemd knows of the service.
func (i Installer) show(ctx context.Context) map[string]string {
	output, _, _ := i.run(ctx, "systemctl", "show", "-p", "ActiveState,NRestarts,StatusText,InvocationID", unitName)
	properties := map[string]string{}
	for line := range strings.Lines(output) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			properties[name] = value
		}
	}
	return properties
}

// systemdState is that of another start than before.
func (i Installer) systemdState(ctx context.Context, before string) State {
	now := i.show(ctx)
	if before != "" && now["InvocationID"] == before {
		return State{} // it has not ended yet
	}
	st := State{Ready: now["ActiveState"] == "active", Why: now["StatusText"]}
	if restarts, _ := strconv.Atoi(now["NRestarts"]); !st.Ready && restarts >= 2 {
		st.Failing = true
		output, _, _ := i.run(ctx, "journalctl", "-q", "-o", "cat", "--no-pager", "-n", "50", "-u", unitName)
		st.Why = lastWords(output, "level=ERROR")
	}
	return st
}

// openRCState is that of a start after which the log is longer than before.
func (i Installer) openRCState(ctx context.Context, bin string, before int64) State {
	if i.succeeds(ctx, bin, "status") {
		return State{Ready: true}
	}
	if words := lastWords(i.logAfter(before), ""); words != "" {
		return State{Failing: true, Why: words}
	}
	return State{Why: "lite status shows what it waits for"}
}

// logAfter is what was logged since the log had a size, as far as it may matter.
func (i Installer) logAfter(size int64) string {
	f, err := os.Open(i.at(i.layout.Host.OpenRCLog))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() < size {
		size = 0 // it was rotated
	}
	text, _ := io.ReadAll(io.NewSectionReader(f, size, 1<<20))
	return string(text)
}

// lastWords is the last line that shows why lite has stopped, or that contains a word.
func lastWords(log, word string) string {
	for _, line := range slices.Backward(strings.Split(log, "\n")) {
		if why, ok := strings.CutPrefix(line, "lite: "); ok {
			return why
		}
		if word != "" && strings.Contains(line, word) {
			return line
		}
	}
	return ""
}
