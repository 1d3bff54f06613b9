package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/host/changes"
	"lite.io/lite/pkg/layout"
)

// step is one thing that Fix does.
type step struct {
	did string // in the imperative
	do  func(context.Context) error
	// undo is a line for a shell, which does nothing where there is nothing to undo.
	undo string
}

// Done is what Fix has done, or tried.
type Done struct {
	Check string `json:"check"`
	Did   string `json:"did"`
	// Undo takes it back, as a line for a shell.
	Undo  string `json:"undo"`
	Error string `json:"error,omitempty"`
}

// Fix fixes what it safely can of the findings, and nothing else. Each step is recorded
// before it is done, so that uninstalling undoes it; each Done shows how to undo it by
// hand. report gets each when it is done.
func Fix(ctx context.Context, m *Machine, r Report, report func(Done)) []Done {
	var all []Done
	for _, found := range r.Checks {
		if !found.Fixable {
			continue
		}
		for _, s := range found.fix {
			done := Done{Check: found.Name, Did: s.did, Undo: s.undo}
			err := changes.NoteFix(layout.Config(m.path(string(m.Layout.Config))), changes.Fix{Did: s.did, Undo: s.undo})
			if err == nil {
				err = s.do(ctx)
			}
			if err != nil {
				done.Error = line(err.Error())
			}
			report(done)
			all = append(all, done)
		}
	}
	return all
}

// FixErr joins what could not be fixed.
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
	inotifyInstances = "fs.inotify.max_user_instances"
	inotifyWatches   = "fs.inotify.max_user_watches"
)

// limit is a setting of the kernel's that a machine may have set higher than is
// wanted.
type limit struct {
	key         string
	now, wanted int
}

func (l limit) path() string { return "/proc/sys/" + strings.ReplaceAll(l.key, ".", "/") }

// raiseInotify writes what the next boot reads, and sets it now: the limits that
// are too low, and no other.
func raiseInotify(e *Env, limits ...limit) (fix step, commands []string) {
	low := slices.DeleteFunc(limits, func(l limit) bool { return l.now >= l.wanted })
	var text, escaped, back strings.Builder
	for _, l := range low {
		fmt.Fprintf(&text, "%s = %d\n", l.key, l.wanted)
		fmt.Fprintf(&escaped, `%s = %d\n`, l.key, l.wanted)
		fmt.Fprintf(&back, " && { [ $(cat %s) != %d ] || echo %d >%[1]s; }", l.path(), l.wanted, l.now)
	}
	sysctlFile := e.Layout.Host.Sysctl
	fix = step{
		did:  "write " + sysctlFile + " and raise the limits of inotify",
		undo: e.unwrite(sysctlFile) + back.String(),
		do: func(context.Context) error {
			if err := e.write(sysctlFile, "# Written by `lite check --fix`.\n"+text.String()); err != nil {
				return err
			}
			for _, l := range low {
				if err := os.WriteFile(e.path(l.path()), []byte(strconv.Itoa(l.wanted)), 0o644); err != nil {
					return fmt.Errorf("set %s: %w", l.key, err)
				}
			}
			return nil
		},
	}
	return fix, []string{"printf '" + escaped.String() + "' >" + sysctlFile, "sysctl -p " + sysctlFile}
}

// write makes a file, and its directory where there is none.
func (m *Machine) write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(m.path(path)), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	if err := file.Write(m.path(path), []byte(content), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// unwrite is the line for a shell that takes a write back.
func (m *Machine) unwrite(path string) string {
	dir := filepath.Dir(path)
	if m.exists(dir) {
		return "rm -f " + path
	}
	return fmt.Sprintf("rm -f %s && { rmdir %s 2>/dev/null || true; }", path, dir)
}
