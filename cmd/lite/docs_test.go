package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"lite.io/lite/pkg/config"
	"lite.io/lite/tests/golden"
)

const (
	begin = "<!-- begin %s: written by make golden -->\n"
	end   = "<!-- end %s -->\n"
)

// TestConfigurationDocument compares what docs/configuration.md says of the
// options and of the commands with what there is.
func TestConfigurationDocument(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "configuration.md")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	after := string(before)
	for name, content := range map[string]string{
		"options":  "\n" + config.Reference(config.Server) + "\n",
		"agent":    "\n" + config.Reference(config.Agent) + "\n",
		"commands": "\n" + commandTable(command()) + "\n",
	} {
		after = replacePart(t, after, name, content)
	}
	switch {
	case bytes.Equal(before, []byte(after)):
	case *golden.Update:
		if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s does not say what lite does: run `make golden` and look at the difference", file)
	}
}

// replacePart replaces what is between the two marks of a name.
func replacePart(t *testing.T, document, name, content string) string {
	t.Helper()
	from, to := strings.Replace(begin, "%s", name, 1), strings.Replace(end, "%s", name, 1)
	head, rest, ok := strings.Cut(document, from)
	_, tail, closed := strings.Cut(rest, to)
	if !ok || !closed {
		t.Fatalf("there is no part of the form\n%s…\n%s", from, to)
	}
	return head + from + content + to + tail
}

// commandTable is a Markdown table of the commands, subcommands included.
func commandTable(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("| Command | What it does |\n|---|---|\n")
	var add func(*cobra.Command)
	add = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Runnable() {
				b.WriteString("| `" + sub.CommandPath() + "` | " + sub.Short + " |\n")
			}
			add(sub)
		}
	}
	root.InitDefaultCompletionCmd()
	add(root)
	return b.String()
}

// The tour of the code stays short, and its picture has each package.
func TestTourShowsEachPackage(t *testing.T) {
	tour := read(t, "ARCHITECTURE.md")
	if n := strings.Count(tour, "\n"); n > 250 {
		t.Errorf("ARCHITECTURE.md has %d lines, and 250 at most make a tour: move details to docs/dev/components.md", n)
	}
	_, after, _ := strings.Cut(tour, "```text\ncmd/lite ")
	picture, _, _ := strings.Cut(after, "```")
	shown, parent := []string{"pkg"}, ""
	for line := range strings.Lines(picture) {
		m := regexp.MustCompile(`^(│  )?[├└]─ ([a-z0-9/, ]+?)(  |$)`).FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		for i, name := range strings.Split(m[2], ", ") {
			switch {
			case m[1] != "":
				name = parent + "/" + name
			case i == 0:
				parent = name
			default:
				name = filepath.Dir(parent) + "/" + name
			}
			shown = append(shown, name)
		}
	}
	err := filepath.WalkDir(filepath.Join(repository, "pkg"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) != ".go" {
			return err
		}
		dir, err := filepath.Rel(repository, filepath.Dir(path))
		if err == nil && !slices.Contains(shown, dir) {
			shown = append(shown, dir)
			t.Errorf("the picture of packages in ARCHITECTURE.md does not show %s", dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range shown {
		if _, err := os.Stat(filepath.Join(repository, name)); err != nil {
			t.Errorf("ARCHITECTURE.md shows the package %s, which does not exist", name)
		}
	}
}

// Files and packages that documents about the code name are there.
func TestCodeInDocumentsExists(t *testing.T) {
	names := map[string]bool{}
	for _, dir := range []string{"cmd", "pkg", "manifests", "scripts", "tests", "literals_test.go", "layers_test.go"} {
		err := filepath.WalkDir(filepath.Join(repository, dir), func(path string, _ fs.DirEntry, err error) error {
			names[filepath.Base(path)] = true
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range readDocuments(t) {
		if d.Name != "ARCHITECTURE.md" && filepath.Dir(d.Name) != filepath.Join("docs", "dev") {
			continue
		}
		for _, name := range inlineCode(d) {
			ours := regexp.MustCompile(`^(cmd/lite|pkg|manifests|scripts|tests)/[\w/.-]+$`).MatchString(name)
			if _, err := os.Stat(filepath.Join(repository, name)); ours && err != nil {
				t.Errorf("%s: %s does not exist", d.Name, name)
			}
			if regexp.MustCompile(`^\w+\.go$`).MatchString(name) && !names[name] {
				t.Errorf("%s: there is no file %s", d.Name, name)
			}
		}
	}
}
