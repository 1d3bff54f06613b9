package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"lite.io/lite/pkg/install/release"
	"lite.io/lite/pkg/install/service"
	"lite.io/lite/pkg/layout"
)

// plan is what is going to be changed.
type plan struct {
	bin     string // the program, in its place
	program string // the program that replaces it; "" = it stays
	config  Configuration
	sums    release.Sums
	files   []change
	dirs    []string // to be made, those above others first
	links   []string // to the program, to be made
	// wanted is what belongs to this installation, as the inventory has it.
	wanted []string
	// extra is what stays in the inventory until it is removed, because it is no longer wanted.
	extra   []string
	changed bool // what the service goes by
	differs bool // anything
	made    []string
}

// change is a file that has to change.
type change struct {
	path string
	data []byte
	mode fs.FileMode
}

// waiting are the files that wait beside their places.
func (p *plan) waiting() []string {
	var all []string
	for _, c := range p.files {
		all = append(all, c.path+newSuffix)
	}
	if p.bin != "" {
		all = append(all, p.bin+newSuffix)
	}
	return all
}

func (s *setup) makePlan(ctx context.Context) error {
	s.plan.bin = path.Join(s.options.binDir, layout.Service)
	s.init = service.Here(s.root, s.execute, s.lookPath, s.options.skipStart || s.options.skipEnable)
	for _, step := range []func() error{
		s.planProgram, s.checkStatements, s.planKey, s.checkImages, s.planConfig, s.planEnvironment, s.planService, s.planScripts,
	} {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if err := step(); err != nil {
			return err
		}
	}
	s.planLinks()
	return nil
}

// want adds paths to this installation.
func (p *plan) want(paths ...string) { p.wanted = append(p.wanted, paths...) }

// file plans a file, unless it is already right.
func (s *setup) file(path string, mode fs.FileMode, data []byte) {
	s.plan.want(path)
	info, err := os.Lstat(s.at(path))
	if err == nil && info.Mode() == mode {
		if is, err := s.read(path); err == nil && bytes.Equal(is, data) {
			return
		}
	}
	s.plan.files = append(s.plan.files, change{path, data, mode})
	s.plan.differs = true
}

// serviceFile is a file that the service goes by.
func (s *setup) serviceFile(path string, mode fs.FileMode, data []byte) {
	before := len(s.plan.files)
	s.file(path, mode, data)
	s.plan.changed = s.plan.changed || len(s.plan.files) > before
}

// drop plans that a file goes.
func (s *setup) drop(path string) { s.plan.extra = append(s.plan.extra, path) }

// dir plans a directory and those that it is in.
func (s *setup) dir(dir string) {
	if dir == "/" {
		return
	}
	s.dir(path.Dir(dir))
	if !s.isDir(dir) && !slices.Contains(s.plan.dirs, dir) {
		s.plan.dirs = append(s.plan.dirs, dir)
		s.plan.want(dir + "/")
	} else if s.inventory.now.Has(dir + "/") {
		s.plan.want(dir + "/")
	}
}

// spare refuses to replace files of others. Files of lite's are in the inventory, or isOurs recognizes them.
func (s *setup) spare(path, otherwise string, isOurs func(path string) bool) error {
	if !s.has(path) {
		return nil
	}
	name := filepath.Base(path)
	if to, _ := os.Readlink(s.at(path)); to == os.DevNull {
		return fmt.Errorf("%s is masked: nothing was changed; run systemctl unmask %s and try again", name, name)
	}
	if s.inventory.before.Has(path) || isOurs(s.at(path)) {
		return nil
	}
	return fmt.Errorf("there already is a %s, which is not lite's: nothing was changed; move it away%s", path, otherwise)
}

// planProgram finds out whether this program is the installed one, or has to replace it.
func (s *setup) planProgram() error {
	s.dir(s.options.binDir)
	s.plan.want(s.plan.bin)
	if err := s.spare(s.plan.bin, ", or set INSTALL_LITE_BIN_DIR", service.IsProgram); err != nil {
		return err
	}
	if v := s.options.version; v != "" && v != s.Version {
		// A signature shows who made these files, not that they are the requested version.
		return fmt.Errorf("what is served as lite %s is lite %s: nothing was changed; do not use these files, and ask whoever serves them",
			v, s.Version)
	}
	self, err := os.Stat(s.Program)
	if err != nil {
		return fmt.Errorf("inspect this program: %w", err)
	}
	if is, err := os.Stat(s.at(s.plan.bin)); err == nil {
		if same, err := sameFile(s.Program, self, s.at(s.plan.bin), is); err != nil || same {
			return err
		}
	}
	s.plan.program, s.plan.changed, s.plan.differs = s.Program, true, true
	if size, dir := uint64(self.Size()>>20+1), s.options.binDir; !s.Staged && s.room(dir) < size {
		return fmt.Errorf("%s has %d MiB free and lite needs %d: nothing was changed; free some space, or set INSTALL_LITE_BIN_DIR",
			dir, s.room(dir), size)
	}
	s.printf("%s", s.Banner)
	return nil
}

// checkStatements checks the statements about the new program that install.sh has found beside it: its bill of
// materials and its provenance. They must match SHA256SUMS, which may be signed, and be about this program.
func (s *setup) checkStatements() error {
	text, err := s.read(s.layout.Config.Setup().File(release.SumsFile))
	if err != nil || !s.Staged {
		return ignoreMissing(err) // of a checkout, or installed
	}
	if s.plan.sums, err = release.ParseSums(text); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if s.plan.program == "" {
		return nil
	}
	sum, err := release.SumOf(s.Program)
	if err != nil {
		return err
	}
	for _, name := range s.plan.sums.Statements() {
		statement, err := s.read(s.layout.Config.Setup().File(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		commit, err := s.plan.sums.CheckStatement(name, statement, sum)
		if err != nil {
			return fmt.Errorf("%w; nothing was changed", err)
		}
		if commit != "" {
			commit = ", built from commit " + commit
		}
		s.printf("%s is about this program%s", name, commit)
	}
	return nil
}

// sameFile reports whether two files are the same, or hold the same.
func sameFile(a string, infoA fs.FileInfo, b string, infoB fs.FileInfo) (bool, error) {
	if os.SameFile(infoA, infoB) || infoA.Size() != infoB.Size() {
		return os.SameFile(infoA, infoB), nil
	}
	sumA, err := release.SumOf(a)
	if err != nil {
		return false, err
	}
	sumB, err := release.SumOf(b)
	return sumA == sumB, err
}

// planKey remembers the key of releases for the next time, and for lite upgrade.
func (s *setup) planKey() error {
	key, err := s.read(s.layout.Config.Setup().Key())
	switch {
	case err == nil && s.Staged && len(key) > 0:
		s.file(s.layout.Config.ReleaseKey(), 0o644, key)
	case !s.has(s.layout.Config.ReleaseKey()):
	case s.options.forgetKey:
		s.drop(s.layout.Config.ReleaseKey())
	default:
		s.plan.want(s.layout.Config.ReleaseKey())
	}
	return nil
}

// planConfig checks what is asked for, with all that the machine holds already.
func (s *setup) planConfig() error {
	o := s.options
	if o.keep {
		// It is not written, but must be right for the lite that is installed now.
		var err error
		if s.plan.config, err = s.Configure(o.role, nil, ""); err != nil {
			return refused(err, "correct that first")
		}
		s.plan.want(s.layout.Config.Install())
		return nil
	}
	var err error
	if s.plan.config, err = s.Configure(o.role, o.args, s.layout.Config.Install()); err != nil {
		return refused(err, fmt.Sprintf("`lite %s --help` and docs/configuration.md list all flags", o.role))
	}
	s.serviceFile(s.layout.Config.Install(), 0o600, s.plan.config.Text)
	return nil
}

func refused(err error, remedy string) error {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
	return fmt.Errorf("%s: nothing was changed; %s", text, remedy)
}

// planEnvironment keeps the proxies of whoever installs: a service does not get them from a login.
func (s *setup) planEnvironment() error {
	var data []byte
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"} {
		value := s.options.env.get(name)
		if strings.ContainsAny(value, "'\n") {
			return fmt.Errorf("%s contains a quote or a line break, which the service file cannot contain: percent-encode it; nothing was changed", name)
		}
		if value != "" {
			data = fmt.Appendf(data, "%s='%s'\n", name, value)
		}
	}
	switch {
	case len(data) > 0:
		s.serviceFile(s.layout.Config.Environment(), 0o600, data)
	case !s.has(s.layout.Config.Environment()):
	case s.options.keep:
		s.plan.want(s.layout.Config.Environment())
	default:
		s.drop(s.layout.Config.Environment())
		s.plan.changed, s.plan.differs = true, true
	}
	return nil
}

// planScripts plans what calls lite by other names, and what completes its commands.
func (s *setup) planScripts() error {
	for _, command := range []string{"uninstall", "killall"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", s.plan.bin, command)
		s.file(path.Join(s.options.binDir, layout.Script(command)), 0o755, []byte(script))
	}
	for _, c := range completions(s.layout.Host) {
		// It is not worth failing where /usr is read-only, for example.
		if unix.Access(s.at(path.Dir(c.path)), unix.W_OK) != nil || s.has(c.path) && !s.inventory.now.Has(c.path) {
			continue
		}
		var script bytes.Buffer
		if err := s.Complete(c.shell, &script); err != nil {
			return fmt.Errorf("generate the completion for %s: %w", c.shell, err)
		}
		s.file(c.path, 0o644, script.Bytes())
	}
	return nil
}

// planLinks gives lite the names kubectl, crictl and ctr where nobody else has them.
func (s *setup) planLinks() {
	for _, tool := range layout.ToolLinks() {
		link := path.Join(s.options.binDir, tool)
		if to, _ := os.Readlink(s.at(link)); to == s.plan.bin {
			s.plan.want(link)
		} else if other := s.lookPath(tool); other != "" && !s.inventory.now.Has(other) {
			s.printf("%s is %s; lite's is `lite %s`", tool, other, tool)
		} else if !s.has(link) {
			s.plan.want(link)
			s.plan.links = append(s.plan.links, link)
		}
	}
}
