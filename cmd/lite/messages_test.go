package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lite.io/lite/tests/documents"
)

// foreign is what others say, the kernel, the API and parsers of flags, and what is put
// together of single words.
var foreign = regexp.MustCompile(`address already in use|no space left on device|read-only file system|unknown (flag|field)|` +
	`unrecognized feature gate|not declared in schema|waiting for first consumer|find available persistent volumes|storageclass\.storage|^namespaces |waiting for ConfigMap|` +
	`^x509: |^You must be|^tls: |^remote error|^The connection to|^permission denied|command not found|^proxyconnect|^ErrImage|not available yet|` +
	`^Resource temporarily|^violates PodSecurity|^Use of external IPs`)

// A message that a table of troubles explains, or a paragraph that begins with it, is one
// that lite prints: three words of it in a row, or all where it has fewer, stand in the
// code. … and <name> are for what differs.
func TestMessagesInDocumentsArePrinted(t *testing.T) {
	printed := spoken(t)
	count := 0
	for _, d := range readDocuments(t) {
		for _, message := range messages(d) {
			count++
			if !foreign.MatchString(message) && !says(printed, message) {
				t.Errorf("%s: nothing in lite says %q", d.Name, message)
			}
		}
	}
	if count < 120 {
		t.Errorf("only %d messages were found", count)
	}
}

// messages are those that a document explains.
func messages(d documents.Document) (all []string) {
	code := func(text string) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
			all = append(all, strings.ReplaceAll(m[1], `\|`, "|"))
		}
	}
	table := false
	for line := range strings.Lines(d.Prose) {
		cells := regexp.MustCompile(`[^\\]\|`).Split(strings.TrimPrefix(line, "|"), 2)
		switch {
		case !strings.HasPrefix(line, "|"):
			table = false
		case regexp.MustCompile(`(?i)message\b|lite status. says`).MatchString(cells[0]):
			table = true
		case table:
			code(cells[0])
		}
	}
	if d.Name == "docs/troubleshooting.md" {
		for _, m := range regexp.MustCompile(`(?m)^\*\*([^*]+)\*\*`).FindAllStringSubmatch(d.Prose, -1) {
			code(strings.ReplaceAll(m[1], "\n", " "))
		}
	}
	// In paragraphs there are names of parts and states too.
	return slices.DeleteFunc(all, func(m string) bool { return d.Name == "docs/troubleshooting.md" && len(strings.Fields(m)) < 3 })
}

// says looks for a run of words of a message.
func says(printed, message string) bool {
	long := false
	for _, part := range regexp.MustCompile(`…|<[^>]*>`).Split(message, -1) {
		words := strings.Fields(part)
		n := min(3, len(words))
		for i := range len(words) - n + 1 {
			run := strings.Trim(strings.Join(words[i:i+n], " "), " ,;.:()/")
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
