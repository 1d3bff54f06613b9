// Package service finds and controls what keeps lite running: the service of an init
// system, or a process that somebody has started. It also has the locks on the data
// directory and on changes of the installation.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/layout"
)

// stopTimeout is how long a stop may take before lite is killed: more than the
// 25 s that it gives itself, and what the service is given by its unit.
const stopTimeout = 30 * time.Second

const (
	// queryTimeout is more than an init system that works takes to answer.
	queryTimeout = 20 * time.Second
	// maxOutput is more than is read of what a command prints.
	maxOutput = 1 << 20
)

// ErrNone means that lite is not a service of this machine: the machine has no init system
// that lite knows, or the service is not installed.
var ErrNone = errors.New("lite is not a service of this machine")

// Manager is the init system of the machine, as far as it concerns lite.
type Manager interface {
	// Name is that of the init system: systemd or OpenRC.
	Name() string
	// Unit is the file that describes the service.
	Unit() string
	// Active reports whether the service runs, starts, stops, or waits to be
	// started again after a failure.
	Active(ctx context.Context) (bool, error)
	// Start starts the service and waits until it reports that it is ready.
	Start(ctx context.Context) error
	// Stop stops the service and waits until it has ended. Pods keep running.
	Stop(ctx context.Context) error
	// Disable keeps the service from starting at boot. A service that does not exist is not
	// an error.
	Disable(ctx context.Context) error
	// Reload reads descriptions that were changed or removed.
	Reload(ctx context.Context) error
}

// Find returns the init system that lite is a service of, or ErrNone.
func Find() (Manager, error) { return machineAt("/", Execute).find() }

// machine is where init systems are looked for.
type machine struct {
	root   string
	run    Runner
	layout layout.Layout
}

func machineAt(root string, run Runner) machine { return machine{root, run, layout.Default()} }

// Runner runs a command and returns what it has printed and its exit code. An
// error means that it did not run.
type Runner func(ctx context.Context, name string, args ...string) (output string, code int, err error)

// detect returns the init system that runs here, whether lite is a service of it
// or not.
func (m machine) detect() (Manager, error) {
	if m.has("run/systemd/system") { // sd_booted(3)
		return systemd{m}, nil
	}
	if m.has("run/openrc/softlevel") {
		return openRC{m}, nil
	}
	return nil, ErrNone
}

func (m machine) find() (Manager, error) {
	manager, err := m.detect()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	var installed bool
	switch s := manager.(type) {
	case systemd:
		state, err := s.state(ctx)
		if err != nil {
			return nil, err
		}
		installed = state["LoadState"] != "not-found"
	case openRC:
		installed = m.has(m.layout.Host.OpenRCScript)
	}
	if !installed {
		return nil, ErrNone
	}
	return manager, nil
}

func (m machine) has(path string) bool {
	_, err := os.Lstat(filepath.Join(m.root, path))
	return !errors.Is(err, fs.ErrNotExist)
}

func (m machine) must(ctx context.Context, name string, args ...string) error {
	return m.run.Must(ctx, name, args...)
}

// Must runs a command that has to succeed.
func (run Runner) Must(ctx context.Context, name string, args ...string) error {
	output, code, err := run(ctx, name, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, oneLine(output))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Execute is the Runner of a real machine. What the command prints goes to a file:
// should this process die, a pipe would end the command half-way, and OpenRC would
// take the service for one that is starting ever after.
func Execute(ctx context.Context, name string, args ...string) (string, int, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return "", 0, fmt.Errorf("buffer the output of %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), "output")
	defer file.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", 0, ctx.Err()
	}
	output, errRead := io.ReadAll(io.NewSectionReader(file, 0, maxOutput))
	if errRead != nil {
		return "", 0, fmt.Errorf("read the output of %s: %w", name, errRead)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return string(output), exit.ExitCode(), nil
	}
	return string(output), 0, err
}
