// Package documents shows that the commands which documents tell users to run do what
// the documents say, and takes documents apart for that.
//
// Documents show commands in blocks of sh (a script) and console (commands after `$ `
// or `# `, and what they print). A comment right above each says who runs them:
//
//	<!-- run: tests/documents TestCommands -->
//	<!-- not run: it opens an editor -->
//
// Tests of this package run the blocks that name them, word for word. Any other test that
// is named has the same commands in it, with names and files of its own.
package documents

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Document is a Markdown file.
type Document struct {
	Name   string // below the root of the repository
	Prose  string // without blocks
	Blocks []Block
}

// Block is a fenced part of a document.
type Block struct {
	At       string // file:line
	Language string
	Above    string // the line above it
	Lines    []string
}

// Read takes the documents in the root, docs/*.md and docs/dev/*.md apart.
func Read(repository string) ([]Document, error) {
	names := []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}
	for _, dir := range []string{"docs", "docs/dev"} {
		files, err := filepath.Glob(filepath.Join(repository, dir, "*.md"))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			names = append(names, filepath.Join(dir, filepath.Base(f)))
		}
	}
	var all []Document
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			return nil, err
		}
		all = append(all, takeApart(name, string(text)))
	}
	return all, nil
}

func takeApart(name, text string) Document {
	d := Document{Name: name}
	var prose strings.Builder
	var open *Block
	above := ""
	for i, line := range strings.Split(text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &Block{At: fmt.Sprintf("%s:%d", name, i+1), Language: language, Above: above}
		case fence:
			d.Blocks = append(d.Blocks, *open)
			open = nil
		case open != nil:
			open.Lines = append(open.Lines, line)
		default:
			prose.WriteString(line + "\n")
			above = line
		}
	}
	d.Prose = prose.String()
	return d
}

// HasCommands says whether the block is for a shell.
func (b Block) HasCommands() bool { return b.Language == "sh" || b.Language == "console" }

// Commands are the command lines of a block for a shell, those that go on in the next
// line joined. In a console the first line begins with the prompt.
func (b Block) Commands() (commands []string) {
	if !b.HasCommands() {
		return nil
	}
	text := strings.ReplaceAll(strings.Join(b.Lines, "\n"), "\\\n", " ") + "\n"
	for line := range strings.SplitSeq(text, "\n") {
		if b.Language == "console" {
			command, ok := strings.CutPrefix(line, text[:1]+" ") // the prompt; # may begin what is printed
			if !ok {
				continue
			}
			line = command
		}
		if strings.TrimSpace(line) != "" {
			commands = append(commands, line)
		}
	}
	return commands
}

// Follow has run called with each command of the blocks that a test of this package is to
// run, in the order of the documents, and returns how many there were.
func Follow(all []Document, test string, run func(at, command string)) (ran int) {
	for _, d := range all {
		for _, b := range d.Blocks {
			if by, err := b.RunBy(); err != nil || !slices.Contains(by, "tests/documents "+test) {
				continue
			}
			for _, command := range b.Commands() {
				ran++
				run(b.At, command)
			}
		}
	}
	return ran
}

// RunBy is the tests that the mark above the block names, each as "package test".
func (b Block) RunBy() ([]string, error) {
	mark, ok := strings.CutPrefix(b.Above, "<!-- ")
	mark, closed := strings.CutSuffix(mark, " -->")
	if tests, run := strings.CutPrefix(mark, "run: "); ok && closed && run {
		return strings.Split(tests, ", "), nil
	}
	if why, not := strings.CutPrefix(mark, "not run: "); ok && closed && not && why != "" {
		return nil, nil
	}
	return nil, fmt.Errorf("%s: above the block must stand <!-- run: PACKAGE TEST -->, or <!-- not run: WHY --> if no test runs these commands", b.At)
}
