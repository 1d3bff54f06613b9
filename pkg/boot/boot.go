// Package boot is the life of a node's process: what stands before its components are made,
// and what comes after the last of them has stopped.
//
// Each step returns the type that has the next one as a method, so that an order that does not
// work does not compile:
//
//	begin     → process    signals, limits, the service manager; nothing of the machine is known
//	inspect   → plan       the machine and the configuration fit together; nothing is touched
//	claim     → claimed    the data directory is this process's, and the environment its own
//	report    → reporting  `lite status` answers
//	run       → the node has ended
//	end       → an upgrade that stopped it may have it continue as another program
//
// Between claim and run, [Server] and [Agent] make their node.
package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/component/series"
	"lite.io/lite/pkg/host/changes"
	"lite.io/lite/pkg/install/notify"
	"lite.io/lite/pkg/install/upgrade"
	"lite.io/lite/pkg/layout"
)

// process is this process, before it knows which node it is.
type process struct {
	ctx   context.Context // done when the node is to stop
	began time.Time
	// environment is what the process was started with.
	environment []string
	// before is how the machine was, for an uninstall to bring back.
	before *changes.Before
	// manager is the service manager that has started the process, if any has.
	manager  *notify.Manager
	releases []func()
}

// errAgain ends a node that restarts within the same process.
var errAgain = errors.New("restart")

// life runs a node from the first step to the last.
func life(node func(*process) error) error {
	p, err := begin()
	if err != nil {
		return err
	}
	err = node(p)
	p.release()
	if errors.Is(err, errAgain) {
		return p.again()
	}
	return err
}

func begin() (*process, error) {
	p := &process{began: time.Now(), environment: os.Environ()}
	// Sockets are closed to others when they are made, and not a moment later. A stricter
	// one would close to pods what they are to read: directories on the way to their files,
	// their cgroups and their resolv.conf.
	syscall.Umask(0o022)
	if err := withoutCore(); err != nil {
		return nil, err
	}
	debug.SetGCPercent(startGC)
	series.Divide()
	var err error
	if p.manager, err = findManager(); err != nil {
		return nil, err
	}
	var release func()
	p.ctx, release = signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	p.releases = append(p.releases, release)
	p.before = changes.Inspect(layout.Default().Run)
	return p, nil
}

// release ends what the steps began.
func (p *process) release() {
	for _, release := range p.releases {
		release()
	}
}

// again begins this process anew, as it was called: all that Kubernetes keeps per process has
// gone, and whoever watches the process sees the same one.
func (p *process) again() error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return upgrade.Reexec(program, p.environment)
}

// withoutCore keeps the process, which holds the cluster's keys and its Secrets, from
// leaving its memory in a file when it dies, whoever has started it. The hard limit
// stays: what runs in pods may raise its own.
func withoutCore() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("read the limit for core files: %w", err)
	}
	limit.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("disable core files: %w", err)
	}
	return nil
}

// findManager finds the service manager and hides it from all that runs in this
// process or is started by it: the kubelet (1.37) reports READY once it runs, and
// answers the watchdog by its own measure; the API server (0.36) reports READY too.
func findManager() (*notify.Manager, error) {
	m, err := notify.Find(os.Getenv, os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("reach the service manager at NOTIFY_SOCKET: %w", err)
	}
	for _, name := range notify.Variables {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	return m, nil
}
