package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lite.io/lite/pkg/file"
)

// step is one thing that Fix does.
type step struct {
	say  string // in the imperative
	do   func(context.Context) error
	undo string // a line for a shell
}

// Done is what Fix has done, or tried.
type Done struct {
	Check string `json:"check"`
	Did   string `json:"did"`
	// Undo takes it back, as a line for a shell.
	Undo  string `json:"undo"`
	Error string `json:"error,omitempty"`
}

// Fix puts right what it safely can of what was found, and only what was found.
// What it makes can be taken back: files are in the inventory, which uninstalling
// reads, and each Done says how to undo it. say is told of each when it is done.
func Fix(ctx context.Context, r Report, say func(Done)) []Done {
	var all []Done
	for _, found := range r.Checks {
		if !found.Fixable {
			continue
		}
		for _, s := range found.fix {
			done := Done{Check: found.Name, Did: s.say, Undo: s.undo}
			if err := s.do(ctx); err != nil {
				done.Error = line(err.Error())
			}
			say(done)
			all = append(all, done)
		}
	}
	return all
}

// FixErr joins what could not be put right.
func FixErr(all []Done) error {
	var errs []error
	for _, d := range all {
		if d.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", d.Did, d.Error))
		}
	}
	return errors.Join(errs...)
}

const (
	sysctlFile = "/etc/sysctl.d/90-lite.conf"
	sysctlText = "fs.inotify.max_user_instances = 1024\nfs.inotify.max_user_watches = 524288\n"
)

// raiseInotify writes what the next boot reads, and sets it now.
func raiseInotify(e *Env) step {
	return step{
		say:  "write " + sysctlFile + " and raise the limits of inotify",
		undo: "rm " + sysctlFile + " # the limits are the old ones after a reboot",
		do: func(context.Context) error {
			if err := e.write(sysctlFile, "# Written by `lite check --fix`.\n"+sysctlText); err != nil {
				return err
			}
			for l := range strings.Lines(sysctlText) {
				key, value, _ := strings.Cut(strings.TrimSpace(l), " = ")
				if err := os.WriteFile(e.path("/proc/sys/"+strings.ReplaceAll(key, ".", "/")), []byte(value), 0o644); err != nil {
					return fmt.Errorf("set %s: %w", key, err)
				}
			}
			return nil
		},
	}
}

// write makes a file that uninstalling removes.
func (m *Machine) write(path, content string) error {
	if err := m.record(path); err != nil {
		return fmt.Errorf("record %s in %s: %w", path, Inventory, err)
	}
	if err := m.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := file.Write(m.path(path), []byte(content), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
