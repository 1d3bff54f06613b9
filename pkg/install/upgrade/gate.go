package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/component"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/status"
)

const (
	// pollEvery is how often a version is looked at while it starts.
	pollEvery = 500 * time.Millisecond
	// steady is how long it has to be healthy without interruption.
	steady = 3 * time.Second
	// silentShare is the part of a version's time during which nothing needs to answer, at
	// least silentLeast: it is useless to wait longer for a program that does not even
	// start.
	silentShare = 10
	silentLeast = 10 * time.Second
	// returnTimeout is the least that an old version is given to be healthy again,
	// however short the time of the new one was.
	returnTimeout = 5 * time.Minute
	// maxStarts is how often a version may be started until it is healthy.
	maxStarts = 5
)

// gate is the check that a version has to pass.
type gate struct {
	dataDir    string
	version    string
	timeout    time.Duration
	runtime    string
	containers []container
	kubeconfig string
	// starter is the process that re-executes itself as the program where there is no init
	// system. When it has ended, waiting is useless.
	starter *os.Process
	// report gets what the gate is waiting for, whenever that changes; may be nil.
	report func(string)
}

// newGate is the gate for the version that an upgrade installs.
func newGate(dataDir string, j *Journal, kubeconfig string) gate {
	return gate{dataDir: dataDir, version: j.To, timeout: j.HealthTimeout, runtime: j.Runtime, containers: j.Containers,
		kubeconfig: kubeconfig}
}

// rollbackGate is the gate for a version that a rollback restores: it has to run; containers
// that were lost do not change that.
func rollbackGate(dataDir string, j *Journal, kubeconfig string) gate {
	return gate{dataDir: dataDir, version: j.From, timeout: max(j.HealthTimeout, returnTimeout), kubeconfig: kubeconfig}
}

// errUndecided means that the watch has ended, not the version that it watched.
var errUndecided = errors.New("the watch was interrupted")

// await returns nil once the version is healthy, or why it is not when the time is over or
// waiting is useless. ended are containers that have ended for other reasons.
func (g gate) await(ctx context.Context) (ended []string, err error) {
	began := time.Now()
	answered, healthy, reported := began, time.Time{}, ""
	for {
		now := time.Now()
		answers, ended, waiting := g.probe(ctx)
		if ctx.Err() != nil {
			return nil, errUndecided
		}
		if answers {
			answered = now
		}
		switch {
		case waiting != nil:
			healthy = time.Time{}
		case healthy.IsZero():
			healthy = now
		case now.Sub(healthy) >= steady:
			return ended, nil
		}
		switch {
		case waiting == nil:
		case now.Sub(began) > g.timeout:
			return nil, fmt.Errorf("lite %s was not healthy within %s: %w", g.version, g.timeout, waiting)
		case now.Sub(answered) > g.silence():
			return nil, fmt.Errorf("lite %s is not running: nothing has answered for %s", g.version, now.Sub(answered).Round(time.Second))
		case countStarts(g.dataDir, "new") > maxStarts:
			return nil, fmt.Errorf("lite %s was started %d times and was not healthy: %w", g.version, maxStarts, waiting)
		}
		if waiting != nil && g.report != nil && waiting.Error() != reported {
			reported = waiting.Error()
			g.report(reported)
		}
		if !kube.Sleep(ctx, pollEvery) {
			return nil, errUndecided
		}
	}
}

// silence is for how long nothing may answer.
func (g gate) silence() time.Duration {
	if g.starter != nil && errors.Is(g.starter.Signal(unix.Signal(0)), os.ErrProcessDone) {
		return silentLeast
	}
	return max(g.timeout/silentShare, silentLeast)
}

// probe checks once whether the version answers at all, and what it is not
// healthy for.
func (g gate) probe(ctx context.Context) (answers bool, ended []string, waiting error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n, err := status.Get(ctx, layout.Default().Run.Socket())
	switch {
	case err != nil:
		return false, nil, errors.New("it does not answer yet")
	case n.Version != g.version:
		return true, nil, fmt.Errorf("lite %s runs", n.Version)
	case !n.Ready:
		return true, nil, errors.New(notReady(n))
	}
	if err := askAPI(ctx, g.kubeconfig); err != nil {
		return true, nil, fmt.Errorf("ask the API: %w", err)
	}
	if len(g.containers) == 0 {
		return true, nil, nil
	}
	lost, ended, err := compareContainers(ctx, g.runtime, g.containers)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("containers that ran before no longer run: %s", strings.Join(lost, ", "))
	}
	return true, ended, err
}

// notReady names the components that are not ready and why, without those that only wait
// for others.
func notReady(n status.Node) string {
	var parts []string
	for _, c := range n.Components {
		if c.State != component.Ready && c.State != component.Waiting {
			text := c.Name + " is " + string(c.State)
			if c.Reason != "" {
				text += " (" + strings.ReplaceAll(c.Reason, "\n", " ") + ")"
			}
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return "it is starting"
	}
	return strings.Join(parts, ", ")
}

// askAPI asks an API server whether it is ready.
func askAPI(ctx context.Context, kubeconfig string) error {
	client, err := kube.NewClient(kubeconfig, "upgrade").Clientset()
	if err != nil {
		return err
	}
	_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}
