package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// initSystem is what keeps lite running.
type initSystem int

const (
	none initSystem = iota
	systemd
	unbooted // systemd in the image of a machine, say, which is going to be booted
	openRC
)

func (s *setup) findInit() initSystem {
	switch {
	case s.isDir(systemdBooted) && s.look("systemctl") != "":
		return systemd
	case s.look("systemctl") != "" && (s.options.skipStart || s.options.skipEnable):
		return unbooted
	case unix.Access(s.at(openRCRun), unix.X_OK) == nil && s.look("rc-service") != "":
		return openRC
	}
	return none
}

const unitName = layout.Service + ".service"

// start makes the service start at boot, and starts it if something was changed or it does not run.
func (s *setup) start(ctx context.Context) error {
	// What an init system has begun it brings to its end.
	settled := context.WithoutCancel(ctx)
	if s.has(pendingFile) && s.init == systemd {
		if err := s.must(settled, "systemctl", "daemon-reload"); err != nil {
			return err
		}
	}
	if s.options.skipEnable {
		s.say("installed; neither started nor enabled, as INSTALL_LITE_SKIP_ENABLE says")
		return nil
	}
	if s.init == none {
		s.say("installed. There is no init system that lite knows (systemd, OpenRC): start it in the foreground with")
		s.say("  %s %s", s.plan.bin, s.options.role)
		return ignoreMissing(os.Remove(s.at(pendingFile)))
	}
	if err := s.enable(settled); err != nil {
		return err
	}
	switch {
	case s.options.skipStart:
		s.say("installed; not started, as INSTALL_LITE_SKIP_START says")
		return nil
	case !s.has(pendingFile) && s.running(settled):
		what := ""
		if s.plan.differs {
			what = " for the service"
		}
		s.say("nothing has changed%s, and the service runs", what)
		return nil
	}
	s.say("starting the service lite (%s)", s.options.role)
	watch, err := s.restart(settled)
	if err != nil {
		return err
	}
	if err := s.await(ctx, watch); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(s.at(pendingFile)))
}

func (s *setup) enable(ctx context.Context) error {
	switch {
	case s.init == openRC && !s.has(runlevel):
		return s.must(ctx, "rc-update", "--quiet", "add", layout.Service, "default")
	case s.init != openRC && !s.has(wantedUnit):
		return s.must(ctx, "systemctl", "--quiet", "enable", unitName)
	}
	return nil
}

func (s *setup) running(ctx context.Context) bool {
	if s.init == openRC {
		return s.succeeds(ctx, "rc-service", "--quiet", layout.Service, "status")
	}
	return s.succeeds(ctx, "systemctl", "--quiet", "is-active", unitName)
}

// state is how far a start has come.
type state struct {
	ready   bool
	failing bool
	why     string // it is not ready yet, or fails; "" = it does not say
}

// watch is how the state of a start is seen, and where its log is.
type watch struct {
	logs string
	look func(context.Context) state
}

// restart begins to start the service, anew if it runs.
func (s *setup) restart(ctx context.Context) (watch, error) {
	if s.init == openRC {
		before := int64(0)
		if info, err := os.Stat(s.at(openRCLog)); err == nil {
			before = info.Size()
		}
		output, code, err := s.execute(ctx, "rc-service", "--quiet", layout.Service, "restart")
		if err != nil || code != 0 {
			fmt.Fprint(s.Err, output)
			return watch{}, errors.New("installed, but rc-service does not start lite, for the reason above; " +
				"correct that and run the installer again")
		}
		return watch{openRCLog, func(ctx context.Context) state { return s.openRCState(ctx, before) }}, nil
	}
	s.succeeds(ctx, "systemctl", "reset-failed", unitName)
	before := s.show(ctx)["InvocationID"]
	if err := s.must(ctx, "systemctl", "--no-block", "restart", unitName); err != nil {
		return watch{}, fmt.Errorf("installed, but the service does not start: %w", err)
	}
	return watch{"journalctl -u lite", func(ctx context.Context) state { return s.systemdState(ctx, before) }}, nil
}

// show is what systemd knows of the service.
func (s *setup) show(ctx context.Context) map[string]string {
	output, _, _ := s.execute(ctx, "systemctl", "show", "-p", "ActiveState,NRestarts,StatusText,InvocationID", unitName)
	properties := map[string]string{}
	for line := range strings.Lines(output) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			properties[name] = value
		}
	}
	return properties
}

// systemdState is that of another start than before.
func (s *setup) systemdState(ctx context.Context, before string) state {
	now := s.show(ctx)
	if before != "" && now["InvocationID"] == before {
		return state{} // it has not ended yet
	}
	st := state{ready: now["ActiveState"] == "active", why: now["StatusText"]}
	if restarts, _ := strconv.Atoi(now["NRestarts"]); !st.ready && restarts >= 2 {
		st.failing = true
		output, _, _ := s.execute(ctx, "journalctl", "-q", "-o", "cat", "--no-pager", "-n", "50", "-u", unitName)
		st.why = lastWords(output, "level=ERROR")
	}
	return st
}

// openRCState is that of a start after which the log is longer than before.
func (s *setup) openRCState(ctx context.Context, before int64) state {
	if s.succeeds(ctx, s.plan.bin, "status") {
		return state{ready: true}
	}
	if words := lastWords(s.logAfter(before), ""); words != "" {
		return state{failing: true, why: words}
	}
	return state{why: "lite status says what it waits for"}
}

// logAfter is what was logged since the log had a size, as far as it may matter.
func (s *setup) logAfter(size int64) string {
	f, err := os.Open(s.at(openRCLog))
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

// lastWords is the last line by which lite has said why it ends, or which holds a word.
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

const (
	// readyTimeout is how long a start may take until the installer does not wait any more.
	readyTimeout = 300 * time.Second
	lookEvery    = time.Second
	// tellEvery is how often it says what is waited for, if that has changed.
	tellEvery = 15 * time.Second
)

// await waits until the node is ready, and says why it is not.
func (s *setup) await(ctx context.Context, w watch) error {
	deadline := time.Now().Add(readyTimeout)
	told, toldAt, last := "", time.Now(), ""
	for time.Now().Before(deadline) {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return ErrInterrupted
		}
		st := w.look(ctx)
		switch {
		case st.ready:
			next := s.called() + " status"
			if s.options.role == config.Server {
				next += " and " + s.called() + " kubectl get nodes"
			}
			s.say("the node is ready: see %s", next)
			return nil
		case st.failing:
			return fmt.Errorf("installed, but the service does not start: %s; correct that and run the installer again (%s has more)",
				st.why, w.logs)
		}
		if st.why != "" {
			last = st.why
		}
		if last != told && time.Since(toldAt) >= tellEvery {
			s.say("%s", last)
			told, toldAt = last, time.Now()
		}
	}
	if last == "" {
		last = "it has not said why"
	}
	return fmt.Errorf("installed, and the service runs, but it is not ready after %.0f s: %s (%s and lite status say more)",
		readyTimeout.Seconds(), last, w.logs)
}

// called is how a user calls lite: sudo, for one, may not look into /usr/local/bin.
func (s *setup) called() string {
	if slices.Contains(filepath.SplitList(s.options.env.get("PATH")), path.Dir(s.plan.bin)) {
		return layout.Service
	}
	return s.plan.bin
}
