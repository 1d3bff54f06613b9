package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// After a clock is set back, pods' tokens are from the future, and the API refuses them
// until the kubelet replaces them, after most of an hour; there is a leeway of a minute
// (from go-jose, which kube-apiserver uses). A clock that is set ahead makes certificates
// expire earlier, which have months left.
const (
	tooFarBack  = -time.Minute
	tooFarAhead = 24 * time.Hour
	minStep     = time.Second
)

// watchClock reports steps that the node cannot continue with. It sleeps until
// somebody sets the clock: no timer of ours wakes the machine for it.
func (m *Machine) watchClock(ctx context.Context, changed func(what string)) {
	if m.clockWrong() {
		slog.Warn("The clock is wrong: certificates for other nodes wait until it is set", "clock", time.Now().UTC().Format(time.RFC3339), "built", m.config.Built.Format(time.RFC3339))
	}
	alarm, err := newAlarm()
	if err != nil {
		slog.Warn("Cannot watch the clock", "err", err)
		<-ctx.Done()
		return
	}
	defer context.AfterFunc(ctx, func() { alarm.Close() })()
	for {
		before := now()
		if err := alarm.await(); err != nil {
			if ctx.Err() == nil {
				slog.Warn("No longer watching the clock", "err", err)
				<-ctx.Done()
			}
			return
		}
		step := now().since(before)
		if step.Abs() < minStep {
			continue
		}
		slog.Info("The clock was set", "by", step.Round(time.Second), "now", time.Now().UTC().Format(time.RFC3339))
		if why := tooFar(step); why != "" {
			changed(why)
			return
		}
	}
}

// tooFar reports why a step of the clock wants a start, "" if it does not.
func tooFar(step time.Duration) string {
	switch {
	case step < tooFarBack:
		return fmt.Sprintf("the clock was set back by %s", step.Abs().Round(time.Second))
	case step > tooFarAhead:
		return fmt.Sprintf("the clock was set ahead by %s", step.Round(time.Second))
	}
	return ""
}

// moment is a time on the clock that people set and on one that nobody sets, which keeps
// running while the machine sleeps.
type moment struct{ wall, boot time.Duration }

func now() moment {
	read := func(clock int32) time.Duration {
		var t unix.Timespec
		_ = unix.ClockGettime(clock, &t) // fails only for clocks that do not exist
		return time.Duration(t.Nano())
	}
	return moment{read(unix.CLOCK_REALTIME), read(unix.CLOCK_BOOTTIME)}
}

// since is by how much the clock was set between two moments.
func (m moment) since(before moment) time.Duration {
	return (m.wall - before.wall) - (m.boot - before.boot)
}

// alarm is a timer that never rings, and is cancelled when the clock is set.
type alarm struct{ *os.File }

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return alarm{}, fmt.Errorf("create a timer: %w", err)
	}
	a := alarm{os.NewFile(uintptr(fd), "timerfd")}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: 1 << 33}} // the year 2242
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
		return alarm{}, errors.Join(fmt.Errorf("set a timer: %w", err), a.Close())
	}
	return a, nil
}

// await returns nil when the clock has been set.
func (a alarm) await() error {
	_, err := a.Read(make([]byte, 8))
	if errors.Is(err, unix.ECANCELED) {
		return nil
	}
	return err
}
