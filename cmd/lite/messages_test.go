package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// foreign is what others say, the kernel, the API and parsers of flags, and what is put
// together of single words.
var foreign = regexp.MustCompile(`address already in use|no space left on device|read-only file system|unknown (flag|field)|` +
	`unrecognized feature gate|not declared in schema|waiting for first consumer|find available persistent volumes|storageclass\.storage|^namespaces |waiting for ConfigMap`)

// A message that a table of troubles explains is one that lite prints: three words of it
// in a row, or all where it has fewer, stand in the code. … and <name> are for what
// differs.
func TestMessagesInDocumentsArePrinted(t *testing.T) {
	printed := spoken(t)
	count := 0
	for _, d := range readDocuments(t) {
		table := false
		for line := range strings.Lines(d.Prose) {
			cells := regexp.MustCompile(`[^\\]\|`).Split(strings.TrimPrefix(line, "|"), 2)
			if !strings.HasPrefix(line, "|") {
				table = false
			} else if regexp.MustCompile(`(?i)message\b|lite status. says`).MatchString(cells[0]) {
				table = true
			} else if table {
				for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
					count++
					if message := strings.ReplaceAll(m[1], `\|`, "|"); !foreign.MatchString(message) && !says(printed, message) {
						t.Errorf("%s: nothing in lite says %q", d.Name, message)
					}
				}
			}
		}
	}
	if count < 100 {
		t.Errorf("only %d messages were found", count)
	}
}

// says looks for a run of words of a message.
func says(printed, message string) bool {
	long := false
	for _, part := range regexp.MustCompile(`…|<[^>]*>`).Split(message, -1) {
		words := strings.Fields(part)
		n := min(3, len(words))
		for i := range len(words) - n + 1 {
			run := strings.Trim(strings.Join(words[i:i+n], " "), " ,;.:()")
			if len(run) < 8 {
				continue
			}
			if long = true; strings.Contains(printed, run) {
				return true
			}
		}
	}
	return !long // nothing is fixed in it
}

// spoken is all strings in the code, and the installer.
func spoken(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	text.WriteString(read(t, "scripts/install.sh"))
	for _, dir := range []string{"pkg", "cmd"} {
		err := filepath.WalkDir(filepath.Join(repository, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					s, _ := strconv.Unquote(literal.Value)
					text.WriteString(strings.ReplaceAll(s, "%ss", "servers") + "\n")
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}
