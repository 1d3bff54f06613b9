package setup

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/layout"
)

// prefix begins the variables of install.sh, which are this package's too.
const prefix = "INSTALL_LITE_"

// variables configure how lite is installed, and scriptVariables which version: install.sh finds it by them. Without
// the script, the running program is installed.
func variables() []string {
	return []string{"EXEC", "BIN_DIR", "SKIP_DOWNLOAD", "SKIP_ENABLE", "SKIP_START"}
}
func scriptVariables() []string {
	return []string{"VERSION", "CHANNEL", "BASE_URL", "ARTIFACT", "SHA256", "PUBLIC_KEY", "ALLOW_HTTP"}
}

// options is what a user asks for, by arguments and by variables.
type options struct {
	role config.Role
	keep bool     // nothing is requested, and the previous settings stay
	args []string // flags of the role

	binDir                string
	skipEnable, skipStart bool
	// What install.sh hands over.
	version   string // that was asked for; "" = whichever it is
	artifact  string // a bundle or directory that may hold images; "" = none
	forgetKey bool
	env       environment
}

// environment is the variables of a process; an empty one counts as none.
type environment []string

func (e environment) get(name string) string {
	for _, pair := range slices.Backward(e) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// parse finds out what is asked for, and what of it cannot be meant.
func (s *setup) parse() (err error) {
	s.options.env = s.Env
	if err := s.checkVariables(); err != nil {
		return err
	}
	get := func(name string) string { return s.options.env.get(prefix + name) }
	if s.options.skipEnable, err = s.options.env.on(prefix + "SKIP_ENABLE"); err != nil {
		return err
	}
	if s.options.skipStart, err = s.options.env.on(prefix + "SKIP_START"); err != nil {
		return err
	}
	if s.options.binDir, err = s.binDir(get("BIN_DIR")); err != nil {
		return err
	}
	if s.Staged {
		s.options.version, s.options.artifact, s.options.forgetKey = get("VERSION"), get("ARTIFACT"), get("PUBLIC_KEY") == "none"
	}
	words, err := split(get("EXEC"))
	if err != nil {
		return fmt.Errorf("%sEXEC has a quote that is not closed: %s", prefix, get("EXEC"))
	}
	return s.decide(append(words, s.Args...))
}

func (s *setup) checkVariables() error {
	for _, pair := range s.options.env {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "K3S_") || strings.HasPrefix(name, "INSTALL_K3S_") {
			s.warn("%s is a variable of k3s, which lite does not read: its own is %s", name, strings.Replace(name, "K3S", "LITE", 1))
		}
		word, ours := strings.CutPrefix(name, prefix)
		switch {
		case !ours || slices.Contains(variables(), word):
		case !slices.Contains(scriptVariables(), word):
			return fmt.Errorf("there is no variable %s: sh install.sh --help lists them", name)
		case !s.Staged && value != "":
			return fmt.Errorf("%s is for install.sh, which finds a lite with it, but this lite installs itself: unset it, or run install.sh", name)
		}
	}
	return nil
}

// on reports whether a switch is on.
func (e environment) on(name string) (bool, error) {
	switch value := e.get(name); value {
	case "true", "1", "yes":
		return true, nil
	case "", "false", "0", "no":
		return false, nil
	default:
		return false, fmt.Errorf("%s is '%s': must be true or false", name, value)
	}
}

// binDir is where the commands go: the directory that is named, or where they are.
func (s *setup) binDir(named string) (string, error) {
	if named == "" {
		named = defaultBinDir
		for _, path := range s.inventory.before {
			if filepath.Base(path) == layout.Script("uninstall") && filepath.IsAbs(path) {
				named = filepath.Dir(path)
			}
		}
	}
	dir := strings.TrimRight(named, "/")
	switch {
	case !filepath.IsAbs(named):
		return "", fmt.Errorf("%sBIN_DIR is '%s': must be an absolute path", prefix, named)
	case dir == "" || filepath.Clean(dir) != dir:
		return "", fmt.Errorf("%sBIN_DIR is '%s': must be a path such as /opt/lite/bin", prefix, named)
	case !regexp.MustCompile(`^[A-Za-z0-9/._-]*$`).MatchString(dir): // it stands in files of shells and of systemd
		return "", fmt.Errorf("%sBIN_DIR is '%s': must consist of letters, digits, '.', '_' and '-'", prefix, named)
	}
	return dir, nil
}

// decide finds the role.
func (s *setup) decide(words []string) error {
	if len(words) > 0 {
		switch role := config.Role(words[0]); {
		case role == config.Server || role == config.Agent:
			s.options.role, s.options.args = role, words[1:]
			return nil
		case role != "" && !strings.HasPrefix(words[0], "-"):
			return fmt.Errorf("'%s' is neither server nor agent nor a flag: run sh install.sh [server|agent] [flags]", words[0])
		}
	}
	s.options.role, s.options.args = config.Server, words
	if s.options.env.get("LITE_URL") != "" {
		s.options.role = config.Agent
		return nil
	}
	if len(words) > 0 || s.options.env.configures() || !s.has(s.layout.Config.Install()) {
		return nil
	}
	before, err := s.read(s.layout.Config.Install())
	if err != nil {
		return fmt.Errorf("read the previous arguments: %w", err)
	}
	// Installing a newer version keeps the configuration and the role of the node.
	s.options.keep, s.options.role = true, ""
	for line := range strings.Lines(string(before)) {
		if role, ok := strings.CutPrefix(strings.TrimSpace(line), "# role: "); ok {
			s.options.role = config.Role(role)
		}
	}
	if s.options.role != config.Server && s.options.role != config.Agent {
		return fmt.Errorf("%s does not contain the role of this node: pass server or agent", s.layout.Config.Install())
	}
	return nil
}

// configures reports whether a variable sets an option of the configuration.
func (e environment) configures() bool {
	return slices.ContainsFunc(e, func(pair string) bool {
		name, value, _ := strings.Cut(pair, "=")
		return strings.HasPrefix(name, "LITE_") && value != ""
	})
}

// split takes a text apart as xargs does: quotes group, and a backslash outside of them stands before what it spares;
// nothing is expanded.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, c := range text {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\\':
			in, escaped = true, true
		case c == '"' || c == '\'':
			in, quote = true, c
		case strings.ContainsRune(" \t\n", c):
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
