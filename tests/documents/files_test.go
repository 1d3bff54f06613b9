package documents

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fileRow is a path that docs/files.md names.
type fileRow struct {
	pattern string // for path.Match
	tree    bool   // with all below it
	mode    string // octal, "" where nothing is said
}

var (
	quoted = regexp.MustCompile("`([^`]+)`")
	octal  = regexp.MustCompile(`\b0[0-7]{3}\b`)
	onlyOn = regexp.MustCompile(` on an? `) // the mode is another elsewhere
)

// fileRows reads the tables of files. A name without a directory is in that of the path
// before it, or in the data directory.
func fileRows(t *testing.T) (rows []fileRow) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "docs", "files.md"))
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.NewReplacer("<data-dir>", "/var/lib/lite", "<bin-dir>", "/usr/local/bin", "<sha256>", "*", "…", "*").Replace(string(text)))
	withFiles := false
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		if title := strings.TrimSpace(cells[1]); !strings.Contains(title, "`") {
			if !strings.HasPrefix(title, "-") {
				withFiles = strings.HasPrefix(title, "Path")
			}
			continue
		}
		if !withFiles {
			continue
		}
		names, modes, dir := quoted.FindAllStringSubmatch(cells[1], -1), octal.FindAllString(cells[2], -1), "/var/lib/lite"
		for i, m := range names {
			name := m[1]
			if !path.IsAbs(name) {
				name = dir + "/" + name
			}
			row := fileRow{pattern: strings.TrimSuffix(name, "/"), tree: strings.HasSuffix(name, "/")}
			dir = path.Dir(row.pattern)
			switch {
			case onlyOn.MatchString(cells[2]):
			case len(modes) == 1:
				row.mode = modes[0]
			case len(modes) == len(names):
				row.mode = modes[i]
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// testFiles: a server has the files that docs/files.md names, with these modes, and no
// others where lite keeps its own.
func (n *newcomer) testFiles(t *testing.T) {
	rows := fileRows(t)
	if len(rows) < 60 {
		t.Errorf("docs/files.md names only %d paths", len(rows))
	}
	met := 0
	out := n.Sh(t, `
		find /etc/lite /var/lib/lite /run/lite /var/log/lite -xdev \( -path '*/containerd/root/*' -o -path '*/bundle/*/*' \) -prune -o -printf '%%m %%y %%p\n'
		while read -r path; do find "$path" -maxdepth 0 -printf '%%m %%y %%p\n'; done </etc/lite/installed`)
	for line := range strings.Lines(out) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		mode, kind, file := "0"+fields[0], fields[1], strings.TrimSuffix(fields[2], "/")
		named := false
		own := slices.ContainsFunc(rows, func(row fileRow) bool { return row.pattern == file })
		for _, row := range rows {
			if ok, _ := path.Match(row.pattern, file); ok && (!own || row.pattern == file) {
				named = true
				met++
				if row.mode != "" && kind != "l" && mode != row.mode {
					t.Errorf("%s has mode %s and not %s", file, mode, row.mode)
				}
			}
			named = named || kind == "d" && leadsTo(file, row.pattern) || row.tree && below(row.pattern, file)
		}
		if !named {
			t.Errorf("docs/files.md does not name %s", file)
		}
	}
	t.Logf("%d files are as the document has them", met)
}

// leadsTo says whether a directory is one of those in which a pattern lies.
func leadsTo(dir, pattern string) bool {
	for pattern = path.Dir(pattern); pattern != "/" && pattern != "."; pattern = path.Dir(pattern) {
		if ok, _ := path.Match(pattern, dir); ok {
			return true
		}
	}
	return false
}

// below says whether a file lies in a directory that matches the pattern.
func below(pattern, file string) bool {
	for file = path.Dir(file); file != "/"; file = path.Dir(file) {
		if ok, _ := path.Match(pattern, file); ok {
			return true
		}
	}
	return false
}
