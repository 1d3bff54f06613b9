package release

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Statements names a release's statements about its programs: bill of materials and provenance.
func (s Sums) Statements() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		kind := strings.HasSuffix(name, ".cdx.json") || strings.HasSuffix(name, ".provenance.json")
		if kind && strings.HasPrefix(name, "lite-") && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names
}

// CheckStatement makes sure that a statement matches SHA256SUMS and is about the program with a SHA-256. It does not
// judge the content. It returns the commit that the statement names, if any.
func (s Sums) CheckStatement(name string, text []byte, program string) (commit string, err error) {
	hash, err := sumOf(bytes.NewReader(text))
	if err == nil {
		err = s.Check(name, hash)
	}
	if err != nil {
		return "", err
	}
	if !bytes.Contains(text, []byte(`"`+program+`"`)) {
		return "", fmt.Errorf("%s is about a program other than the one beside it; do not use these files, and ask whoever serves them", name)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), `"gitCommit": "`); ok {
			commit, _, _ = strings.Cut(value, `"`)
			break
		}
	}
	if strings.Trim(commit, "0123456789abcdef") != "" { // it is shown
		commit = ""
	}
	return commit, nil
}
