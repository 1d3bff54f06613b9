package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/install/inventory"
	"lite.io/lite/pkg/layout"
)

// stage writes all new files beside the existing ones.
func (s *setup) stage(ctx context.Context) error {
	p := &s.plan
	slices.Sort(p.wanted)
	p.wanted = slices.Compact(p.wanted)
	all := slices.Concat(p.wanted, p.extra)
	for _, c := range p.files {
		all = append(all, c.path+newSuffix)
	}
	if p.program != "" && !s.Staged {
		all = append(all, p.bin+newSuffix)
	}
	if err := s.inventory.add(all); err != nil {
		return s.full(path.Dir(s.layout.Config.Installed()), err)
	}
	if err := writeNew(s.at(s.layout.Config.Setup().After()), inventory.Inventory(p.wanted).Text(), 0o600); err != nil {
		return s.full(path.Dir(s.layout.Config.Installed()), err)
	}
	for _, dir := range p.dirs {
		if err := s.makeDir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, c := range p.files {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		dir := path.Dir(c.path)
		if dir == path.Dir(s.layout.Config.Install()) && !s.isDir(dir) {
			if err := s.makeDir(dir, 0o700); err != nil {
				return err
			}
		}
		if err := writeNew(s.at(c.path), c.data, c.mode); err != nil {
			return s.full(dir, err)
		}
	}
	return s.stageProgram()
}

func (s *setup) makeDir(dir string, mode fs.FileMode) error {
	if err := os.Mkdir(s.at(dir), mode); err != nil {
		return s.full(path.Dir(dir), err)
	}
	s.plan.made = append(s.plan.made, dir)
	return nil
}

// stageProgram puts this program beside its place. install.sh has put it there, on the same file system at least.
func (s *setup) stageProgram() error {
	if s.plan.program == "" {
		return nil
	}
	to := s.at(s.plan.bin) + newSuffix
	if s.Staged {
		return flush(s.plan.program)
	}
	if err := copyFile(s.plan.program, to, 0o755); err != nil {
		return s.full(s.options.binDir, err)
	}
	s.plan.program = to
	return nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := ignoreMissing(os.Remove(to)); err != nil {
		return err
	}
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Chmod(mode), w.Sync(), w.Close())
}

// flush puts a file that others have written on the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// commit puts all in its place. What fails from here on is completed by the next run.
func (s *setup) commit(ctx context.Context) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	p := &s.plan
	if p.changed {
		if err := s.markPending(); err != nil {
			return s.full(path.Dir(s.layout.Config.Pending()), err)
		}
	}
	s.committed = true
	changed := map[string]bool{}
	move := func(from, to string) error {
		changed[path.Dir(to)] = true
		return os.Rename(from, s.at(to))
	}
	var errs []error
	if p.program != "" {
		errs = append(errs, move(p.program, p.bin))
		changed[path.Dir(p.bin)] = true
	}
	for _, c := range p.files {
		errs = append(errs, move(s.at(c.path)+newSuffix, c.path))
	}
	for _, link := range p.links {
		if err := os.Symlink(p.bin, s.at(link)); !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	for dir := range changed {
		errs = append(errs, file.SyncDir(s.at(dir)))
	}
	s.label(ctx)
	if err := errors.Join(append(errs, s.settle())...); err != nil {
		return fmt.Errorf("put everything in place: %w; fix that and run the installer again", err)
	}
	return nil
}

// markPending remembers that the service has to be restarted.
func (s *setup) markPending() error {
	f, err := os.OpenFile(s.at(s.layout.Config.Pending()), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close(), file.SyncDir(s.at(path.Dir(s.layout.Config.Pending()))))
}

// settle removes what an earlier installation has made elsewhere, and leaves in the inventory what belongs to this one.
func (s *setup) settle() error {
	var errs []error
	for _, p := range s.inventory.obsolete(s.plan.wanted) {
		at := s.at(p)
		switch _, isDir, ok := inventory.Path(p); {
		case !ok: // nobody has put that there
		case isDir:
			_ = os.Remove(at) // if it is empty
		case slices.Contains(layout.ToolLinks(), path.Base(p)):
			// Somebody may have put a program of his own where the link was.
			if to, _ := os.Readlink(at); path.Base(to) == layout.Service {
				errs = append(errs, os.Remove(at))
			}
		default:
			errs = append(errs, os.Remove(at))
		}
	}
	if err := ignoreMissing(errors.Join(errs...)); err != nil {
		return err
	}
	return s.inventory.settle(s.at(s.layout.Config.Setup().After())+newSuffix, s.plan.wanted)
}

// label gives the files the labels that SELinux wants them to have.
func (s *setup) label(ctx context.Context) {
	if s.lookPath("restorecon") != "" {
		paths := []string{}
		for _, c := range s.plan.files {
			paths = append(paths, c.path)
		}
		if s.plan.program != "" {
			paths = append(paths, s.plan.bin)
		}
		for _, p := range paths {
			s.succeeds(ctx, "restorecon", p)
		}
		return
	}
	if s.lookPath("getenforce") == "" {
		return
	}
	if mode, _, err := s.execute(ctx, "getenforce"); err == nil && strings.TrimSpace(mode) == "Enforcing" {
		s.warn("SELinux is enforcing and there is no restorecon: if the service does not start, run chcon -t bin_t %s", s.plan.bin)
	}
}
