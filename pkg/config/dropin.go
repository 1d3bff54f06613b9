package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"lite.io/lite/pkg/layout"
)

// DropIn returns what flags and environment set as the content of a file, and the
// configuration that a node of the role would have with it instead of the current file. The
// content has absolute paths and contains secrets. Its error is as that of Load.
func DropIn(role Role, flags *pflag.FlagSet, env []string, file string) ([]byte, *Config, error) {
	return dropIn(role, flags, env, file, thisHost())
}

func dropIn(role Role, flags *pflag.FlagSet, env []string, file string, h host) ([]byte, *Config, error) {
	given, _ := fromEnv(role, env)
	maps.Copy(given, fromFlags(role, flags))
	errs := unknownVariables(role, env)
	if s, ok := given["config"]; ok {
		errs = append(errs, &Error{"config", strings.Join(s.texts, ""), s.source, "cannot be set for a service: every command must find its file",
			"copy the file to " + layout.Default().Config.File()})
	}
	c, err := load(role, flags, env, h.without(file))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# role: %s\n", role)
	b.WriteString("# The installer writes this file, and writes it again when it runs with other arguments.\n" +
		"# Put your own settings into " + layout.Default().Config.File() + ", or into a file beside this one: later names win.\n")
	for _, name := range slices.SortedFunc(maps.Keys(given), cmp.Compare[string]) {
		o, _ := lookup(name)
		value, err := o.yaml(c)
		if err != nil {
			return nil, nil, fmt.Errorf("write %s: %w", name, err)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	return []byte(b.String()), c, nil
}

// unknownVariables finds variables that nothing reads. A node ignores them, since others
// may use the prefix. An installer's user has just typed them.
func unknownVariables(role Role, env []string) (errs []error) {
	known := map[string]bool{}
	for _, o := range options {
		known[o.variable()] = true
	}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		word, ours := strings.CutPrefix(name, "LITE_")
		if !ours || known[name] || value == "" {
			continue
		}
		o, _ := lookup(nearest(strings.ToLower(strings.ReplaceAll(word, "_", "-")), role))
		errs = append(errs, &Error{name, "…", "environment", "is not a known variable", fmt.Sprintf("did you mean %s? unset it if it is not for lite", o.variable())})
	}
	return errs
}

// without is the machine as if a file were not there.
func (h host) without(file string) host {
	readDir := h.readDir
	h.readDir = func(dir string) ([]string, error) {
		names, err := readDir(dir)
		return slices.DeleteFunc(names, func(name string) bool { return filepath.Join(dir, name) == filepath.Clean(file) }), err
	}
	return h
}
