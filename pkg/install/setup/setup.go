// Package setup installs a verified lite that is on the machine: the service, its configuration, its images, the
// commands. scripts/install.sh finds, fetches and verifies a program and executes it, as `lite setup --staged`; without
// the script, a program installs itself.
//
// First everything is checked and planned, in memory (plan.go). Then all new files are written beside the existing
// ones, under the same names with .new, each listed in the inventory before it is created (stage.go). A failure until
// then leaves the machine as it was. From the commit on, which renames, a later run completes what this one has begun.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// Request is what to install, and for whom.
type Request struct {
	Args []string // [server|agent] [flags]
	Env  []string // as os.Environ returns it
	// Staged means that install.sh has executed this program: it has taken the lock, begun the inventory, and put the
	// program beside its place and the verified files into their directory.
	Staged  bool
	Program string // the file of this process
	Version string
	Banner  string // the first line of `lite version`
	// Configure makes the configuration of what args and environment ask for, as if file were not there. It finds what
	// would keep the service from starting.
	Configure func(role config.Role, args []string, file string) (Configuration, error)
	// Complete writes what makes a shell complete lite's commands.
	Complete func(shell string, w io.Writer) error
	Out, Err io.Writer
}

// Configuration is what is kept of what was asked for.
type Configuration struct {
	Text     []byte // of the drop-in
	DataDir  string
	ImageDir string // where the node imports archives of images from
}

// ErrInterrupted is that ctx was done before it was complete.
var ErrInterrupted = errors.New("interrupted")

// Run installs. Its error has the remedy.
func Run(ctx context.Context, r Request) error {
	return run(ctx, r, machine{root: "/", layout: layout.Default(), execute: service.Execute, lookPath: lookPath})
}

func run(ctx context.Context, r Request, m machine) error {
	s := &setup{Request: r, machine: m}
	if err := s.begin(ctx); err != nil {
		return err
	}
	err := s.install(ctx)
	if ctx.Err() != nil && err != nil {
		err = ErrInterrupted
	}
	return errors.Join(err, s.end())
}

// setup is one run.
type setup struct {
	Request
	machine
	lock      *service.Change
	inventory installed
	options   options
	plan      plan
	init      service.Installer
	committed bool
}

func (s *setup) printf(format string, args ...any) {
	fmt.Fprintf(s.Out, "[lite] "+format+"\n", args...)
}
func (s *setup) warn(format string, args ...any) {
	fmt.Fprintf(s.Err, "[lite] warning: "+format+"\n", args...)
}

// begin takes the lock and what install.sh has left, or begins itself.
func (s *setup) begin(ctx context.Context) (err error) {
	if err := s.takeLock(ctx); err != nil {
		return err
	}
	if !s.Staged {
		err = errors.Join(os.RemoveAll(s.at(string(s.layout.Config.Setup()))), os.Remove(s.at(s.layout.Config.Installed())+newSuffix))
		if err = ignoreMissing(err); err == nil {
			err = os.Mkdir(s.at(string(s.layout.Config.Setup())), 0o700)
		}
	}
	if err == nil {
		err = s.inventory.open(s.at(s.layout.Config.Installed()), s.at(s.layout.Config.Setup().Before()))
	}
	if err != nil {
		return errors.Join(s.full(string(s.layout.Config), err), s.end())
	}
	return nil
}

// takeLock keeps others from changing the installation.
func (s *setup) takeLock(ctx context.Context) (err error) {
	for try := 0; ; try++ {
		if err := os.MkdirAll(s.at(string(s.layout.Config)), 0o700); err != nil {
			return s.full(filepath.Dir(string(s.layout.Config)), err)
		}
		s.lock, err = service.BeginChange(ctx, func(line string) { s.printf("%s", line) }, s.at(string(s.layout.Config)))
		if err != nil {
			return err
		}
		// An uninstall that had the lock has removed the directory.
		if _, err := os.Stat(s.at(string(s.layout.Config))); err == nil {
			s.lock.Private()
			return nil
		}
		if err := s.lock.Close(); err != nil || try == 10 {
			return errors.Join(fmt.Errorf("%s keeps being removed", string(s.layout.Config)), err)
		}
	}
}

// install runs the steps. Each reports its problems before the next one begins.
func (s *setup) install(ctx context.Context) error {
	if err := s.parse(); err != nil {
		return err
	}
	if err := s.makePlan(ctx); err != nil {
		return err
	}
	if err := s.stage(ctx); err != nil {
		return err
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	if err := s.installImages(ctx); err != nil {
		return err
	}
	return s.start(ctx)
}

// end leaves the machine as it was, unless all was put in its place, and nothing of this run's own.
func (s *setup) end() error {
	var errs []error
	for _, path := range s.plan.waiting() {
		errs = append(errs, os.Remove(s.at(path)))
	}
	if s.Staged && filepath.Ext(s.Program) == newSuffix { // beside its place, whatever has failed
		errs = append(errs, os.Remove(s.Program))
	}
	if !s.committed {
		for _, dir := range slices.Backward(s.plan.made) {
			_ = os.Remove(s.at(dir)) // others may use it by now
		}
		errs = append(errs, s.inventory.restore())
	}
	errs = append(errs, s.inventory.close(), os.RemoveAll(s.at(string(s.layout.Config.Setup()))))
	_ = os.Remove(s.at(string(s.layout.Config))) // if there was nothing
	return errors.Join(ignoreMissing(errors.Join(errs...)), s.lock.Close())
}
