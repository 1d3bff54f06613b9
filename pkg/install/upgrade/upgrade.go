// Package upgrade replaces the running lite with another version, and rolls back, program
// and data, when that does not work.
//
// All checks come before any change (plan.go). The node is backed up (package backup). From
// then on, a journal in the data directory records the progress (journal.go), so that
// whoever comes next can finish, with the old version or the new one: the command that
// began, another `lite upgrade` or `lite rollback`, or lite itself when it starts
// (resume.go). As long as the command runs, it does so, as a program of the old version:
// the new one may not run at all.
package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/backup"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/version"
)

// Run executes a planned upgrade. report gets each step.
func Run(ctx context.Context, p *Plan, report func(string)) error {
	r := &run{Plan: p, report: report, dataDir: p.Node.Config.DataDir}
	return r.run(ctx)
}

type run struct {
	*Plan
	report  func(string)
	dataDir string
	journal *Journal
}

func (r *run) run(ctx context.Context) error {
	n := r.Node
	endTurn, err := takeTurn(ctx, n.Config, r.others, r.HealthTimeout, r.report)
	if err != nil {
		return err
	}
	defer endTurn()
	containers, err := runningContainers(ctx, r.runtime)
	if err != nil {
		return err
	}
	r.journal = &Journal{
		From: r.From.Version, To: r.To.Version, Role: n.Config.Role,
		Binary: n.Binary, Guard: n.Config.Layout().Config.Guard(), Service: n.Manager != nil,
		Began: time.Now().UTC(), HealthTimeout: r.HealthTimeout, Runtime: r.runtime, Containers: containers,
	}
	b := backup.New(n.Config, n.Binary, r.To)
	if err := r.prepare(ctx, b); err != nil {
		return errors.Join(err, r.abort())
	}
	// What was stopped is started again, even if the user interrupts the command.
	ctx = context.WithoutCancel(ctx)
	stopped := time.Now()
	hold, err := r.stop(ctx, b)
	if err != nil {
		return r.undo(ctx, hold, fmt.Errorf("nothing was changed: %w", err))
	}
	// From here on the new program may be found in its place.
	if err := r.journal.enter(r.dataDir, Swapped); err != nil {
		return r.undo(ctx, hold, err)
	}
	if hold, err = r.swap(ctx, hold); err != nil {
		return r.rollBack(ctx, hold, err)
	}
	ended, err := r.await(ctx)
	if err != nil {
		return r.rollBack(ctx, nil, err)
	}
	if err := errors.Join(r.journal.enter(r.dataDir, Healthy), cleanUp(r.dataDir, r.journal)); err != nil {
		return err
	}
	for _, c := range ended {
		r.report("Ended by itself meanwhile, and was restarted if its pod requires it: " + c)
	}
	r.report(fmt.Sprintf("lite %s is healthy, %.1f s after the old one was stopped; %d containers kept running", r.To.Version, time.Since(stopped).Seconds(), len(containers)-len(ended)))
	return nil
}

// prepare does what can be done while lite runs.
func (r *run) prepare(ctx context.Context, b *backup.Maker) error {
	if err := r.journal.enter(r.dataDir, Prepared); err != nil {
		return err
	}
	r.report("Keeping lite " + r.From.Version + " aside")
	if err := b.Begin(); err != nil {
		return err
	}
	if len(r.contents.images) > 0 {
		err := extractImages(r.artifact, r.contents, layout.Data(r.dataDir).Agent().Images(), b.KeepImage, func(name string) error {
			r.report("Unpacking the images " + name)
			r.journal.Images = append(r.journal.Images, name)
			return r.journal.write(r.dataDir)
		})
		if err != nil {
			return err
		}
	}
	b.Backup.Images = r.journal.Images
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing was changed")
	}
	// Again, as others may have gone while this was downloaded and unpacked.
	if _, err := checkQuorum(ctx, r.Node, r.force); err != nil {
		return err
	}
	if r.Node.Manager == nil {
		return nil
	}
	return leaveAttendant(r.dataDir)
}

// stop stops lite, and completes what is kept of it. lite is held even if that fails.
func (r *run) stop(ctx context.Context, b *backup.Maker) (*service.Hold, error) {
	r.report("Stopping lite; pods keep running")
	began := time.Now()
	hold, err := r.Node.stop(ctx)
	if err != nil {
		return nil, err
	}
	copying := time.Now()
	if err := b.Complete(); err != nil {
		return hold, err
	}
	r.report(fmt.Sprintf("Stopping took %.1f s, copying the data %.1f s", copying.Sub(began).Seconds(), time.Since(copying).Seconds()))
	return hold, nil
}

// swap puts the new program in its place and starts it. If that fails, lite is held unless it may run already.
func (r *run) swap(ctx context.Context, hold *service.Hold) (*service.Hold, error) {
	n := r.Node
	// The guard first: without it nobody would end the starts of a broken program.
	if err := setGuard(r.dataDir, r.journal.Guard); err != nil {
		return hold, err
	}
	if err := backup.ReplaceProgram(n.Binary); err != nil {
		return hold, err
	}
	r.report("Starting lite " + r.To.Version)
	n.log.begin()
	if err := hold.Close(); err != nil {
		return nil, err
	}
	n.start(ctx)
	return nil, r.journal.enter(r.dataDir, Started)
}

// await waits until the new version is healthy, and returns the containers that have ended meanwhile.
func (r *run) await(ctx context.Context) (ended []string, err error) {
	g := newGate(r.dataDir, r.journal, r.Node.kubeconfig())
	if r.Node.Manager == nil {
		g.starter = r.Node.process
	}
	g.report = func(waiting string) { r.report("Waiting: " + waiting) }
	return g.await(ctx)
}

// abort forgets an upgrade that has touched nothing.
func (r *run) abort() error {
	return errors.Join(abandon(r.dataDir, r.journal), cleanUp(r.dataDir, r.journal), forget(r.dataDir))
}

// undo starts lite again as it was.
func (r *run) undo(ctx context.Context, hold *service.Hold, reason error) error {
	errs := []error{reason, r.abort(), hold.Close()}
	r.Node.start(ctx)
	g := rollbackGate(r.dataDir, r.journal, r.Node.kubeconfig())
	if _, err := g.await(ctx); err != nil {
		errs = append(errs, fmt.Errorf("start lite again: %w", err))
	}
	return errors.Join(errs...)
}

// rollBack restores the node, and returns why. The error is never nil: an upgrade that was
// rolled back has failed.
func (r *run) rollBack(ctx context.Context, hold *service.Hold, reason error) error {
	lines := r.Node.log.lines()
	r.report("Rolling back: " + reason.Error())
	r.journal.Reason = reason.Error()
	text := ""
	data, err := restoreOld(ctx, r.dataDir, r.journal, r.Node.Manager, hold, r.Node.process, kubeconfigOf(r.Node.Config), r.report)
	if err != nil {
		text = fmt.Sprintf("%v; and the rollback failed: %v", reason, err)
	} else {
		text = fmt.Sprintf("lite %s was rolled back to %s, %s. Reason: %v", r.To.Version, r.From.Version, data, reason)
	}
	if len(lines) > 0 {
		text += "\nThe last lines of its log:\n  " + strings.Join(lines, "\n  ")
	}
	return errors.New(text)
}

// restoreOld stops what runs, restores the old program and data, and starts them. original is
// the process that re-executes itself as the program, if any. data says which data the old
// program works with.
func restoreOld(ctx context.Context, dataDir string, j *Journal, manager service.Manager, hold *service.Hold, original *os.Process,
	kubeconfig string, report func(string)) (data string, err error) {
	// Until lite is stopped nothing is decided: who finds the journal then may
	// watch on.
	if hold == nil {
		if hold, err = stop(ctx, dataDir, manager); err != nil {
			return "", err
		}
	}
	if err := j.enter(dataDir, RollingBack); err != nil {
		return "", errors.Join(err, hold.Close())
	}
	if err := errors.Join(backup.Restore(dataDir), j.enter(dataDir, Restored)); err != nil {
		return "", errors.Join(err, hold.Close())
	}
	data = result(dataDir)
	if err := hold.Close(); err != nil {
		return "", err
	}
	g := rollbackGate(dataDir, j, kubeconfig)
	if manager != nil {
		go func() { _ = manager.Start(ctx) }()
	} else {
		g.starter = original
		go endStranger(ctx, original, j.Binary)
	}
	report("Starting lite " + j.From)
	g.report = func(waiting string) { report("Waiting: " + waiting) }
	if _, err := g.await(ctx); err != nil {
		if manager == nil {
			err = fmt.Errorf("%w; no init system keeps lite running here: start it by hand (`lite %s`)", err, j.Role)
		}
		return "", fmt.Errorf("the old program and data are restored, but %w", err)
	}
	return data, finish(dataDir, j)
}

// finish notes that the old version runs again.
func finish(dataDir string, j *Journal) error {
	return errors.Join(j.enter(dataDir, RolledBack), backup.Spend(dataDir), cleanUp(dataDir, j))
}

// strangerGrace is more than Relaunch takes to become the old program.
const strangerGrace = 3 * time.Second

// endStranger ends lite's former process, if it now runs a program that does not re-execute
// itself as the old one: whatever keeps lite running, if anything, can start it then.
func endStranger(ctx context.Context, p *os.Process, binary string) {
	if p == nil || !kube.Sleep(ctx, strangerGrace) {
		return
	}
	is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.Pid))
	want, errWant := os.Stat(binary)
	if err != nil || errWant != nil || os.SameFile(is, want) {
		return
	}
	if p.Signal(unix.SIGTERM) == nil && kube.Sleep(ctx, strangerGrace) {
		_ = p.Kill()
	}
}

// RollbackPlan is what `lite rollback` would do.
type RollbackPlan struct {
	DataDir string
	Kept    *backup.Backup
	Now     string // the version that is replaced
	Config  *config.Config
	Node    *Instance // nil if lite does not run
	Driver  *Driver

	Warnings []string
	others   []member // other nodes of the cluster, of a server
}

// Text describes what would be done and what would be lost.
func (p *RollbackPlan) Text() string {
	text := fmt.Sprintf("%s %s: lite %s -> %s, as it was at %s, %s ago\n", p.Kept.Role, p.Config.NodeName, p.Now, p.Kept.Versions.Version,
		p.Kept.Taken.Format(time.RFC3339), time.Since(p.Kept.Taken).Round(time.Second))
	switch {
	case p.Kept.Role != config.Server:
	case slices.ContainsFunc(p.others, func(m member) bool { return m.Server }), p.Node == nil && backup.Several(p.DataDir):
		text += "  the cluster's data stay, as the other servers have them\n"
	default:
		text += "  every change to the cluster since then is lost; pods created since then end, pods deleted since then start again\n"
	}
	return text + "  changes to the configuration since then are set aside in " + backup.Dropped(p.DataDir) + "\n"
}

// PlanRollback finds out what `lite rollback` would do, and keeps others from
// doing anything of the kind until the plan is closed. cfg is the configuration
// of a node that does not run.
func PlanRollback(ctx context.Context, cfg *config.Config, force bool, report func(string)) (*RollbackPlan, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("rollback: only root may replace lite; run it as root")
	}
	p := &RollbackPlan{Now: version.Version(), Config: cfg}
	if n, err := Running(ctx); err == nil {
		p.Node, p.Config, p.Now = n, n.Config, n.Status.Version
	}
	p.DataDir = p.Config.DataDir
	kept, err := backup.Read(p.DataDir)
	if err == nil && kept != nil {
		err = checkKept(ctx, kept, backup.Program(p.DataDir))
	}
	if err != nil {
		return nil, err
	}
	if kept == nil {
		return nil, fmt.Errorf("there is no backup in %s: there was no upgrade, or it has already been rolled back", layout.Data(p.DataDir).Kept())
	}
	p.Kept = kept
	d, err := drive(ctx, cfg.Layout(), report)
	if err != nil {
		return nil, err
	}
	p.Driver = d
	if err := p.checkServers(ctx, force); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return p, nil
}

// checkServers finds out whether there are other servers, and whether they can do without this one. A server whose API
// does not answer goes back nevertheless: that may be why.
func (p *RollbackPlan) checkServers(ctx context.Context, force bool) error {
	if p.Node == nil || p.Kept.Role != config.Server {
		return nil
	}
	var err error
	if p.others, err = p.Node.members(ctx); err != nil {
		p.Warnings = append(p.Warnings, "what other servers there are is not known: "+err.Error())
		return nil
	}
	p.Warnings, err = checkQuorum(ctx, p.Node, force)
	return err
}

// checkKept makes sure that the program in the backup has not changed. It may have been a
// hard link to the installed one, and somebody may have written to that.
func checkKept(ctx context.Context, k *backup.Backup, path string) error {
	v, err := inspect(ctx, path)
	if err == nil && v.Version != k.Versions.Version {
		err = fmt.Errorf("it is lite %s", v.Version)
	}
	if err != nil {
		return fmt.Errorf("%s is not the lite %s that was backed up: %w; put that one there to roll back", path, k.Versions.Version, err)
	}
	return nil
}

// drive takes the lock of whoever drives an upgrade, or names who has it.
func drive(ctx context.Context, at layout.Layout, report func(string)) (*Driver, error) {
	change, err := service.BeginChange(ctx, report, string(at.Config), string(at.Data))
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		d, other, err := Drive(string(at.Data))
		if d != nil {
			d.change = change
			return d, nil
		}
		// lite looks now and then whether anybody drives.
		if err == nil && (try == 10 || !kube.Sleep(ctx, 100*time.Millisecond)) {
			err = fmt.Errorf("another upgrade or rollback is under way (pid %d); wait for its end", other)
		}
		if err != nil {
			return nil, errors.Join(err, change.Close())
		}
	}
}

// Rollback does what was planned.
func Rollback(ctx context.Context, p *RollbackPlan, timeout time.Duration, report func(string)) error {
	ctx = context.WithoutCancel(ctx)
	endTurn, err := takeTurn(ctx, p.Config, p.others, timeout, report)
	if err != nil {
		return err
	}
	defer endTurn()
	j := &Journal{
		From: p.Kept.Versions.Version, To: p.Now, Role: p.Kept.Role, Binary: p.Kept.Binary, Guard: p.Config.Layout().Config.Guard(),
		Began:         time.Now().UTC(),
		HealthTimeout: timeout, Reason: "lite rollback",
	}
	var manager service.Manager
	var original *os.Process
	if p.Node != nil {
		manager, original = p.Node.Manager, p.Node.process
	} else if m, err := service.Find(); err == nil {
		manager = m
	}
	j.Service = manager != nil
	if err := setGuard(p.DataDir, j.Guard); err != nil {
		return err
	}
	if was, err := ReadJournal(p.DataDir); err != nil {
		return err
	} else if !was.Pending() || was.State != RollingBack && was.State != Restored {
		if err := j.enter(p.DataDir, Returning); err != nil {
			return err
		}
	}
	if manager != nil {
		if err := leaveAttendant(p.DataDir); err != nil {
			return err
		}
	}
	report("Stopping lite " + p.Now + "; pods keep running")
	if p.Node == nil && manager == nil {
		return restoreOnly(ctx, p, j, report)
	}
	data, err := restoreOld(ctx, p.DataDir, j, manager, nil, original, kubeconfigOf(p.Config), report)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("lite %s is running, %s", j.From, data))
	return nil
}

// restoreOnly is a rollback where nothing runs and nobody would start it.
func restoreOnly(ctx context.Context, p *RollbackPlan, j *Journal, report func(string)) error {
	hold, err := stop(ctx, p.DataDir, nil)
	if err != nil {
		return err
	}
	if err := j.enter(p.DataDir, RollingBack); err != nil {
		return errors.Join(err, hold.Close())
	}
	if err := errors.Join(backup.Restore(p.DataDir), j.enter(p.DataDir, Restored), hold.Close()); err != nil {
		return err
	}
	report(fmt.Sprintf("lite %s is in place, %s; start it with `lite %s`", j.From, result(p.DataDir), p.Kept.Role))
	return nil
}
