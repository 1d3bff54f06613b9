package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"lite.io/lite/pkg/layout"
)

// openRC uses rc-service and rc-update.
type openRC struct{ machine }

func (openRC) Name() string   { return "OpenRC" }
func (o openRC) Unit() string { return filepath.Join(o.root, o.layout.Host.OpenRCScript) }

// Exit codes of `rc-service NAME status`, which are the bits of RC_SERVICE in
// OpenRC's rc.h but for 0, which is started, and 3, which is stopped.
const (
	rcStopped = 3
	rcCrashed = 32
)

// status is one of the exit codes.
func (o openRC) status(ctx context.Context) (int, error) {
	if !o.has(o.layout.Host.OpenRCScript) {
		return rcStopped, nil
	}
	output, code, err := o.run(ctx, "rc-service", layout.Service, "status")
	if err == nil && code == 1 {
		err = errors.New(oneLine(output))
	}
	if err != nil {
		return 0, fmt.Errorf("ask OpenRC for the service %s: %w", layout.Service, err)
	}
	return code, nil
}

func (o openRC) Active(ctx context.Context) (bool, error) {
	status, err := o.status(ctx)
	return err == nil && status != rcStopped && status != rcCrashed, err
}

// runlevels are the names of those that the service is in.
func (o openRC) runlevels() ([]string, error) {
	found, err := filepath.Glob(filepath.Join(o.root, "etc/runlevels/*", layout.Service))
	for i, path := range found {
		found[i] = filepath.Base(filepath.Dir(path))
	}
	return found, err
}

func (o openRC) Start(ctx context.Context) error {
	return o.must(ctx, "rc-service", layout.Service, "start")
}

// Stop also clears the state of a service that has crashed.
func (o openRC) Stop(ctx context.Context) error {
	if status, err := o.status(ctx); err != nil || status == rcStopped {
		return err
	}
	return o.must(ctx, "rc-service", layout.Service, "stop")
}

// Disable names the runlevels, because rc-update fails with all of them if the service is
// not in each.
func (o openRC) Disable(ctx context.Context) error {
	runlevels, err := o.runlevels()
	if err != nil || len(runlevels) == 0 {
		return err
	}
	return o.must(ctx, "rc-update", append([]string{"delete", layout.Service}, runlevels...)...)
}

// Reload does nothing: OpenRC reads a script whenever it runs it.
func (openRC) Reload(context.Context) error { return nil }
