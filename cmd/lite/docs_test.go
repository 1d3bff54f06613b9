package main

import (
	"bytes"
	"os"
	"path/filepath"
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
