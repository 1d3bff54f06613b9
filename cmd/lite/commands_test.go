package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	kubectl "k8s.io/kubectl/pkg/cmd"

	"lite.io/lite/pkg/config"
	"lite.io/lite/tests/documents"
)

// Each block says who runs it, and that test has the words of its commands: the programs,
// verbs and flags, and the variables that are set.
func TestBlocksSayWhoRunsThem(t *testing.T) {
	for _, d := range readDocuments(t) {
		for _, b := range d.Blocks {
			if b.Language == "" {
				t.Errorf("%s: the block has no language: sh or console if it holds commands, text if not", b.At)
			}
			if !b.HasCommands() {
				continue
			}
			for _, test := range testNames.FindAllString(b.Above, -1) { // also where it only says who does the like
				if _, err := documents.TestCode(repository, test); err != nil {
					t.Errorf("%s: %v", b.At, err)
				}
			}
			tests, err := b.RunBy()
			if err != nil {
				t.Error(err)
			}
			if len(tests) > 0 && !strings.HasPrefix(tests[0], "tests/documents ") { // these run it as it stands
				for _, word := range unsaid(t, b, tests) {
					t.Errorf("%s: %s does not say %s, so it does not run this", b.At, tests, word)
				}
			}
		}
	}
}

var testNames = regexp.MustCompile(`(tests|pkg|cmd|scripts)/[a-z/]+ Test\w+(/\w+)?`)

// unsaid is the words of a block that the code of none of the tests has.
func unsaid(t *testing.T, b documents.Block, tests []string) (missing []string) {
	t.Helper()
	code := ""
	for _, test := range tests {
		text, err := documents.TestCode(repository, test)
		if err != nil {
			t.Errorf("%s: %v", b.At, err)
		}
		code += text
	}
	for _, word := range telling(b) {
		if !regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(word) + `($|[^\w-])`).MatchString(code) {
			missing = append(missing, word)
		}
	}
	return missing
}

// telling is the words of a block that make its commands what they are, whatever the
// names and files: variables that are set, programs, verbs with what they are about, and
// flags. lite and kubectl themselves are what the harness adds.
func telling(b documents.Block) (words []string) {
	for _, line := range b.Commands() {
		for _, args := range split(line) {
			verbs := 0
			for i, word := range args {
				name, value, assigned := strings.Cut(word, "=")
				switch {
				case assigned && verbs == 0 && regexp.MustCompile(`^[A-Z_]+$`).MatchString(name):
					words = append(words, name)
				case strings.HasPrefix(word, "-") && len(word) > 1:
					words = append(words, name)
				case !regexp.MustCompile(`^[a-z]+(/?install\.sh)?$`).MatchString(word), value != "", verbs > 2:
				case word == "lite" || word == "kubectl":
					verbs = 1
				case verbs == 0 && i > 0 && strings.HasPrefix(args[i-1], "-"):
				default:
					verbs++
					words = append(words, filepath.Base(word))
				}
			}
		}
	}
	return words
}

// What a test does not do is found.
func TestCommandsThatNoTestRunsAreFound(t *testing.T) {
	for line, want := range map[string][]string{
		"lite images import app.tar":                         nil,
		"lite images import --all app.tar":                   {"--all"},
		"lite token rotate x":                                {"token", "rotate"},
		"docker save x | lite images list":                   {"docker", "save"},
		"NO_SUCH=x lite images remove y && reboot":           {"NO_SUCH", "reboot"},
		"lite images export -o app.tar.zst lite.test/busy:1": nil,
	} {
		b := documents.Block{Language: "sh", Lines: []string{line}}
		if got := unsaid(t, b, []string{"tests/images TestImages"}); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	for test, fails := range map[string]bool{
		"tests/install TestServer/agent": false, "tests/install TestServer/no_such": true,
		"tests/install TestNothing": true, "tests/install testAgent": true,
	} {
		if _, err := documents.TestCode(repository, test); (err != nil) != fails {
			t.Errorf("%s: %v", test, err)
		}
	}
}

// A verb or flag that is no more, or that is misspelt, is found in blocks and in the
// text.
func TestCommandsInDocumentsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, d := range readDocuments(t) {
		for _, b := range d.Blocks {
			for _, line := range b.Commands() {
				for _, err := range wrong(line, makefile, true) {
					t.Errorf("%s: %v", b.At, err)
				}
			}
		}
		for _, code := range inlineCode(d) {
			if strings.HasPrefix(code, "lite is ") { // an error message
				continue
			}
			for _, err := range wrong(code, makefile, false) {
				t.Errorf("%s: %v", d.Name, err)
			}
		}
	}
}

// wrong looks at each command of a line that is ours.
func wrong(line, makefile string, whole bool) (errs []error) {
	for _, args := range split(line) {
		for len(args) > 0 && regexp.MustCompile(`^[A-Z_]+=|^(sudo|exec)$`).MatchString(args[0]) {
			args = args[1:]
		}
		if len(args) == 0 {
			continue
		}
		var err error
		switch name := filepath.Base(args[0]); {
		case name == "lite":
			err = parse(command(), args[1:], whole)
		case name == "kubectl":
			err = parse(command(), append([]string{"kubectl"}, args[1:]...), whole)
		case name == "sh" && len(args) > 2 && strings.HasSuffix(args[1], "install.sh") && (args[2] == "server" || args[2] == "agent"):
			err = parse(command(), args[2:], whole)
		case name == "make" && whole:
			for _, target := range args[1:] {
				if !strings.Contains(target, "=") && !regexp.MustCompile(`(?m)^`+target+`:`).MatchString(makefile) {
					err = fmt.Errorf("the Makefile has no target %s", target)
				}
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", strings.Join(args, " "), err))
		}
	}
	return errs
}

// parse has cobra take the arguments without running anything. What is not whole, such
// as the mere name of a command, may lack arguments.
func parse(root *cobra.Command, args []string, whole bool) error {
	root.InitDefaultCompletionCmd()
	if len(args) > 0 && args[0] == "kubectl" {
		root = kubectl.NewKubectlCommand(kubectl.KubectlOptions{
			ConfigFlags: genericclioptions.NewConfigFlags(true),
			IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: io.Discard, ErrOut: io.Discard},
		})
		args = args[1:]
	}
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.DisableFlagParsing {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil && (whole || !strings.Contains(err.Error(), "needs an argument")) {
		return err
	}
	switch left := cmd.Flags().Args(); {
	case cmd.HasSubCommands() && len(left) > 0:
		return fmt.Errorf("%s has no %s", cmd.CommandPath(), left[0])
	case !whole:
		return nil
	case !cmd.Runnable():
		return fmt.Errorf("%s alone does nothing", cmd.CommandPath())
	default:
		return cmd.ValidateArgs(left)
	}
}

func TestWrongCommandsOfDocumentsAreFound(t *testing.T) {
	for line, right := range map[string]bool{
		"lite images import x.tar":                          true,
		"lite imags import x.tar":                           false,
		"lite images imprt x.tar":                           false,
		"lite images import --no-such x.tar":                false,
		"lite images import":                                false, // without a file
		"lite server --disable dns":                         true,
		"lite server --disabel dns":                         false,
		"lite kubectl get pods -A":                          true,
		"lite kubectl gte pods":                             false,
		"lite kubectl rollout restrat deployment web":       false,
		"lite kubectl delete node <node> --no-such":         false,
		"LITE_A=b lite status | grep dns && lite staus":     false,
		"sh scripts/install.sh server --disable metrics #x": true,
		"sh scripts/install.sh agent --disable metrics":     false,
		"make build": true,
		"make biuld": false,
	} {
		errs := wrong(line, "build: x\n", true)
		if (len(errs) == 0) != right {
			t.Errorf("%s: got %v", line, errs)
		}
	}
}

// split takes a line apart as a shell would: commands, and their words without quotes.
func split(line string) (commands [][]string) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord := false
	end := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	for _, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteRune(c)
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ':
			end()
		case c == '#' && !inWord:
			return append(commands, words)
		case strings.ContainsRune("|;&", c):
			end()
			commands, words = append(commands, words), nil
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	end()
	return append(commands, words)
}

// Every name that looks like one of ours is one.
func TestNamesInDocumentsExist(t *testing.T) {
	script := read(t, "scripts/install.sh")
	variables := map[string]bool{"LITE_URL": true}
	flags, options := map[string]bool{}, map[string]bool{}
	config.Flags(config.Server).VisitAll(func(f *pflag.Flag) {
		options[f.Name] = true
		variables["LITE_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = true
	})
	root := command()
	root.InitDefaultVersionFlag()
	ownFlags(root, flags)
	for _, d := range readDocuments(t) {
		text := d.Prose
		for _, b := range d.Blocks {
			text += strings.Join(b.Lines, "\n") + "\n"
		}
		for _, name := range regexp.MustCompile(`\bINSTALL_LITE_[A-Z0-9_]*[A-Z0-9]`).FindAllString(text, -1) {
			if !strings.Contains(script, name) && !strings.HasSuffix(name, "_SOME") {
				t.Errorf("%s: install.sh knows no %s", d.Name, name)
			}
		}
		for _, name := range regexp.MustCompile(`\bLITE_[A-Z0-9_]*[A-Z0-9]`).FindAllString(text, -1) {
			if !variables[name] && !inSources(t, name) && name != "LITE_SOME_OPTION" {
				t.Errorf("%s: nothing reads %s", d.Name, name)
			}
		}
		for _, b := range d.Blocks {
			if b.Language != "yaml" || !strings.HasPrefix(b.Lines[0], "# /etc/lite/config.yaml") {
				continue
			}
			for _, key := range regexp.MustCompile(`(?m)^([a-z-]+)\+?:`).FindAllStringSubmatch(strings.Join(b.Lines, "\n"), -1) {
				if !options[key[1]] {
					t.Errorf("%s: there is no option %s", b.At, key[1])
				}
			}
		}
		for _, code := range inlineCode(d) {
			name, isFlag := strings.CutPrefix(code, "--")
			name = strings.TrimRight(regexp.MustCompile(`^[a-z0-9-]*`).FindString(name), "-")
			if isFlag && name != "some-option" && !flags[name] {
				t.Errorf("%s: no command of lite has the flag --%s", d.Name, name)
			}
		}
	}
}

// What docs/from-k3s.md says of a flag, lite has; what it calls missing, is.
func TestFlagsOfK3s(t *testing.T) {
	flags := map[string]bool{}
	for _, role := range []config.Role{config.Server, config.Agent} {
		config.Flags(role).VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	}
	rows := regexp.MustCompile(`(?m)^\| (`+"`--"+`.*) \| (same|differs|none)\b`).FindAllStringSubmatch(read(t, "docs/from-k3s.md"), -1)
	if len(rows) < 50 {
		t.Errorf("there are only %d rows of flags", len(rows))
	}
	for _, row := range rows {
		if strings.HasSuffix(row[1], " on a server") {
			continue // agents have it
		}
		for _, flag := range regexp.MustCompile("`--([a-z0-9-]+)`").FindAllStringSubmatch(row[1], -1) {
			if flags[flag[1]] != (row[2] != "none") {
				t.Errorf("--%s is called %q, and lite has it: %t", flag[1], row[2], flags[flag[1]])
			}
		}
	}
}

func ownFlags(cmd *cobra.Command, names map[string]bool) {
	cmd.InitDefaultHelpFlag()
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names[f.Name] = true })
	for _, sub := range cmd.Commands() {
		ownFlags(sub, names)
	}
}

// inSources finds variables of tests and scripts.
func inSources(t *testing.T, name string) bool {
	t.Helper()
	for _, pattern := range []string{"Makefile", "scripts/*", "scripts/*/*", "tests/*/*.go", "tests/*/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if content, err := os.ReadFile(f); err == nil && strings.Contains(string(content), name) {
				return true
			}
		}
	}
	return false
}

// Links lead to a file that is there, and to a heading that it has.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	headings := map[string]map[string]bool{}
	listed := map[string]bool{}
	all := readDocuments(t)
	for _, d := range all {
		headings[d.Name] = map[string]bool{}
		for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(d.Prose, -1) {
			headings[d.Name][slug(h[1])] = true
		}
	}
	for _, d := range all {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(d.Prose, -1) {
			target, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := d.Name
			if target != "" {
				file = filepath.Join(filepath.Dir(d.Name), target)
			}
			if d.Name == "README.md" {
				listed[file] = true
			}
			if _, err := os.Stat(filepath.Join(repository, file)); err != nil {
				t.Errorf("%s: %s leads nowhere", d.Name, link[1])
			} else if anchor != "" && !headings[file][anchor] {
				t.Errorf("%s: %s has no heading #%s", d.Name, file, anchor)
			}
		}
	}
	for _, d := range all {
		if d.Name != "README.md" && !listed[d.Name] {
			t.Errorf("README.md does not list %s", d.Name)
		}
	}
}

// slug is the anchor that a heading gets.
func slug(heading string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c == '-', c == '_', c >= '0' && c <= '9', c >= 'a' && c <= 'z':
			return c
		}
		return -1
	}, strings.ToLower(heading))
}

const repository = "../.."

func readDocuments(t *testing.T) []documents.Document {
	t.Helper()
	all, err := documents.Read(repository)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// inlineCode is what stands between backquotes in the text. In docs/from-k3s.md the
// first cell of a table is k3s's.
func inlineCode(d documents.Document) (codes []string) {
	text := d.Prose
	if d.Name == "docs/from-k3s.md" {
		text = regexp.MustCompile(`(?m)^\|[^|]*\|`).ReplaceAllString(text, "|")
	}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		code := strings.NewReplacer("\n", " ", "…", "", "[-", "-", "[<", "<", "]", "", `\|`, "|").Replace(m[1])
		codes = append(codes, strings.TrimSuffix(strings.TrimSpace(code), "..."))
	}
	return codes
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
