package dns

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// maxWords and maxImports are what a Corefile may have once all that it imports is in
// its place, several times as much as any that serves a cluster. The parser (1.1.4)
// copies the rest of the file for each import, and allows 100,000 of files and 10,000 of
// snippets, however large: a ConfigMap of a few kilobytes would take the memory of the
// machine, and one that imports itself minutes.
const (
	maxWords   = 100_000
	maxImports = 1_000
)

// extent is how much something is, with what it imports in its place.
type extent struct{ words, imports int }

// expansion finds the extents of files, by their paths, and of snippets, as "(name)".
type expansion struct {
	rewriter
	words map[string][]caddyfile.Token
	known map[string]extent
}

// newExpansion is that of files. A snippet is known in all of them.
func newExpansion(r rewriter, files map[string][]caddyfile.Token) *expansion {
	e := &expansion{r, maps.Clone(files), map[string]extent{}}
	for _, words := range files {
		for i, w := range words[:max(0, len(words)-1)] {
			if isSnippet(w.Text) && words[i+1].Text == "{" {
				e.words[w.Text] = append(slices.Clip(e.words[w.Text]), body(words[i+1:])...)
			}
		}
	}
	return e
}

func isSnippet(word string) bool { return strings.HasPrefix(word, "(") && strings.HasSuffix(word, ")") }

// body is the words from a brace to the one that closes it.
func body(words []caddyfile.Token) []caddyfile.Token {
	depth := 0
	for i, w := range words {
		switch w.Text {
		case "{":
			depth++
		case "}":
			depth--
		}
		if depth == 0 {
			return words[:i+1]
		}
	}
	return words
}

// of finds the extent of a file or a snippet. It is an error if that is too much, or if
// it imports itself, perhaps by others; above is by what it was come to.
func (e *expansion) of(name string, above []string) (extent, error) {
	if i := slices.Index(above, name); i >= 0 {
		names := append(above[i:len(above):len(above)], name)
		for i := range names {
			names[i] = e.name(names[i])
		}
		return extent{}, fmt.Errorf("%s: imports itself: %s", names[0], strings.Join(names, " → "))
	}
	if known, ok := e.known[name]; ok {
		return known, nil
	}
	words := e.words[name]
	all := extent{words: len(words)}
	for i, w := range words[:max(0, len(words)-1)] {
		if w.Text != "import" || newLine(w, words[i+1]) {
			continue
		}
		all.imports++
		for _, imported := range e.imported(words[i+1]) {
			below, err := e.of(imported, append(slices.Clip(above), name))
			if err != nil {
				return extent{}, err
			}
			all.words, all.imports = all.words+below.words, all.imports+below.imports
		}
		if all.words > maxWords || all.imports > maxImports {
			return extent{}, fmt.Errorf("%s: too many imports; a Corefile can have at most %d words and %d imports, each counted as often as it is imported", e.name(name), maxWords, maxImports)
		}
	}
	e.known[name] = all
	return all, nil
}

// imported is what a word after import may stand for.
func (e *expansion) imported(pattern caddyfile.Token) []string {
	path := pattern.Text
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(pattern.File), path)
	}
	all, _ := filepath.Glob(path) // the parser judges the pattern
	if snippet := "(" + pattern.Text + ")"; e.words[snippet] != nil {
		all = append(all, snippet)
	}
	return all
}
