package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// start makes the service start at boot, and starts it if something was changed or it does not run.
func (s *setup) start(ctx context.Context) error {
	// What an init system has begun it brings to its end.
	settled := context.WithoutCancel(ctx)
	if s.has(s.layout.Config.Pending()) {
		if err := s.init.Reload(settled); err != nil {
			return err
		}
	}
	if s.options.skipEnable {
		s.printf("installed; neither started nor enabled, because INSTALL_LITE_SKIP_ENABLE is set")
		return nil
	}
	if s.init.Kind == service.None {
		s.printf("installed. This machine has neither systemd nor OpenRC: start lite in the foreground with")
		s.printf("  %s %s", s.plan.bin, s.options.role)
		return ignoreMissing(os.Remove(s.at(s.layout.Config.Pending())))
	}
	if err := s.init.Enable(settled); err != nil {
		return err
	}
	switch {
	case s.options.skipStart:
		s.printf("installed; not started, because INSTALL_LITE_SKIP_START is set")
		return nil
	case !s.has(s.layout.Config.Pending()) && s.init.Running(settled):
		what := ""
		if s.plan.differs {
			what = " for the service"
		}
		s.printf("nothing has changed%s, and the service is running", what)
		return nil
	}
	s.printf("starting the service lite (%s)", s.options.role)
	starting, err := s.restart(settled)
	if err != nil {
		return err
	}
	if err := s.await(ctx, starting); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(s.at(s.layout.Config.Pending())))
}

// restart begins to start or restart the service.
func (s *setup) restart(ctx context.Context) (service.Starting, error) {
	starting, err := s.init.Restart(ctx, s.plan.bin)
	var refused *service.StartError
	switch {
	case errors.As(err, &refused):
		fmt.Fprint(s.Err, refused.Output)
		return starting, fmt.Errorf("installed, but %s does not start lite, for the reason above; fix that and run the installer again", refused.Program)
	case err != nil:
		return starting, fmt.Errorf("installed, but the service does not start: %w", err)
	}
	return starting, nil
}

const (
	// readyTimeout is how long a start may take until the installer does not wait any more.
	readyTimeout = 300 * time.Second
	pollEvery    = time.Second
	// reportEvery is how often the installer prints what it is waiting for, if that has changed.
	reportEvery = 15 * time.Second
)

// await waits until the node is ready, and returns why it is not.
func (s *setup) await(ctx context.Context, w service.Starting) error {
	deadline := time.Now().Add(readyTimeout)
	reported, reportedAt, last := "", time.Now(), ""
	for time.Now().Before(deadline) {
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return ErrInterrupted
		}
		st := w.State(ctx)
		switch {
		case st.Ready:
			next := s.called() + " status"
			if s.options.role == config.Server {
				next += " and " + s.called() + " kubectl get nodes"
			}
			s.printf("the node is ready: see %s", next)
			return nil
		case st.Failing:
			return fmt.Errorf("installed, but the service does not start: %s; fix that and run the installer again (%s has more)",
				st.Why, w.Logs)
		}
		if st.Why != "" {
			last = st.Why
		}
		if last != reported && time.Since(reportedAt) >= reportEvery {
			s.printf("%s", last)
			reported, reportedAt = last, time.Now()
		}
	}
	if last == "" {
		last = "it has not reported why"
	}
	return fmt.Errorf("installed, and the service is running, but it is not ready after %.0f s: %s (%s and lite status show more)",
		readyTimeout.Seconds(), last, w.Logs)
}

// called is how a user calls lite: sudo, for one, may not look into /usr/local/bin.
func (s *setup) called() string {
	if slices.Contains(filepath.SplitList(s.options.env.get("PATH")), path.Dir(s.plan.bin)) {
		return layout.Service
	}
	return s.plan.bin
}
