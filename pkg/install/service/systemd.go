package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lite.io/lite/pkg/install/inventory"
	"lite.io/lite/pkg/layout"
)

// systemd uses systemctl, which waits for its jobs.
type systemd struct{ machine }

func (systemd) Name() string   { return "systemd" }
func (s systemd) Unit() string { return filepath.Join(s.root, s.layout.Host.SystemdUnit) }

// state is what systemd knows of the service. LoadState is not-found if it knows no such
// service.
func (s systemd) state(ctx context.Context) (map[string]string, error) {
	output, code, err := s.run(ctx, "systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", layout.Service+".service")
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, oneLine(output))
	}
	if err != nil {
		return nil, fmt.Errorf("ask systemd for the service %s: %w", layout.Service, err)
	}
	state := map[string]string{}
	for line := range strings.Lines(output) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			state[name] = value
		}
	}
	if state["LoadState"] == "" {
		return nil, fmt.Errorf("ask systemd for the service %s: it answered %q", layout.Service, oneLine(output))
	}
	return state, nil
}

func (s systemd) Active(ctx context.Context) (bool, error) {
	state, err := s.state(ctx)
	if err != nil {
		return false, err
	}
	switch state["ActiveState"] {
	case "inactive", "failed":
		return false, nil
	}
	return true, nil // activating is also the wait for the next try
}

func (s systemd) enabled(ctx context.Context) (bool, error) {
	state, err := s.state(ctx)
	if err != nil {
		return false, err
	}
	return strings.HasPrefix(state["UnitFileState"], "enabled"), nil
}

func (s systemd) Start(ctx context.Context) error { return s.control(ctx, "start") }
func (s systemd) Stop(ctx context.Context) error  { return s.control(ctx, "stop") }

func (s systemd) Disable(ctx context.Context) error {
	enabled, err := s.enabled(ctx)
	if err != nil || !enabled {
		return err
	}
	return s.control(ctx, "disable")
}

// Reload also makes systemd forget that a service which is gone has failed.
func (s systemd) Reload(ctx context.Context) error {
	if err := s.must(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	state, err := s.state(ctx)
	if err != nil || state["LoadState"] != "not-found" {
		return err
	}
	// It fails if there is nothing to forget.
	_, _, err = s.run(ctx, "systemctl", "reset-failed", layout.Service+".service")
	return err
}

func (s systemd) control(ctx context.Context, verb string) error {
	return s.must(ctx, "systemctl", "--no-ask-password", verb, layout.Service+".service")
}

// CloseUnit makes the file of the service readable by root alone, where an earlier
// installer has left it readable by all. A file that the installer has not written is left
// alone.
func CloseUnit() error { return machineAt("/", Execute).closeUnit() }

func (m machine) closeUnit() error {
	installed, err := inventory.Read(filepath.Join(m.root, m.layout.Config.Installed()))
	if err != nil || !installed.Has(m.layout.Host.SystemdUnit) {
		return err
	}
	unit := filepath.Join(m.root, m.layout.Host.SystemdUnit)
	info, err := os.Lstat(unit)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(unit, info.Mode().Perm()&0o700)
}
