// Command licenses writes down what a lite binary and its bundle are made of and under which licences, with their texts,
// for package licenses to embed. What it cannot tell ends it: somebody has to look.
//
//	licenses -o licenses.json.zst -c scripts/build/mklicenses/c.txt -lock scripts/build/debian.lock -sysroot dir -sources dir lite=./cmd/lite
//
// Each argument is a program and its Go package; programs of other languages stand in the file c.txt.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
	"github.com/klauspost/compress/zstd"
)

// component is as in package licenses.
type component struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	SPDX    string   `json:"spdx"`
	In      []string `json:"in"`
	Source  string   `json:"source"`
	Texts   []int    `json:"texts"`
}

// archive is as in package licenses.
type archive struct {
	Components []*component `json:"components"`
	Texts      []string     `json:"texts"`
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("licenses: ")
	out := flag.String("o", "", "file to write")
	table := flag.String("c", "", "file with what is not written in Go")
	lock := flag.String("lock", "", "file with the versions of Debian packages")
	roots := map[string]*string{
		"sysroot": flag.String("sysroot", "", "unpacked Debian packages"),
		"sources": flag.String("sources", "", "unpacked sources"),
	}
	tags := flag.String("tags", "", "build tags")
	cgo := flag.String("cgo", "", "program that is built with cgo")
	flag.Parse()
	a := &archive{}
	if err := a.addGo(flag.Args(), *tags, *cgo); err != nil {
		log.Fatal(err)
	}
	if err := a.addTable(*table, *lock, roots); err != nil {
		log.Fatal(err)
	}
	slices.SortFunc(a.Components, func(x, y *component) int { return strings.Compare(x.Name, y.Name) })
	if err := a.write(*out); err != nil {
		log.Fatal(err)
	}
}

// module is what of a Go module is linked.
type module struct {
	path, version, dir string
	packages           map[string]bool // directories
	in                 []string
}

// listed is what `go list` says of a package.
type listed struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
		Replace            *struct{ Path, Version, Dir string }
	}
}

func (a *archive) addGo(programs []string, tags, cgo string) error {
	modules := map[string]*module{}
	var all []string
	for _, program := range programs {
		name, pkg, _ := strings.Cut(program, "=")
		all = append(all, name)
		cmd := exec.Command("go", "list", "-deps", "-json=Dir,Standard,Module", "-tags", tags, pkg)
		cmd.Stderr = os.Stderr
		if name == cgo {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		}
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("list the packages of %s: %w", name, err)
		}
		if err := collect(modules, name, out); err != nil {
			return fmt.Errorf("list the packages of %s: %w", name, err)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		if err := a.addModule(modules[path]); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(runtime.GOROOT(), "LICENSE")) //nolint:staticcheck // it runs where it was built
	if err != nil {
		return err
	}
	a.Components = append(a.Components, &component{
		Name: "go", Version: strings.TrimPrefix(runtime.Version(), "go"), SPDX: "BSD-3-Clause", In: all,
		Source: "https://go.dev/dl/", Texts: []int{a.text(string(text))},
	})
	return nil
}

func collect(modules map[string]*module, program string, list []byte) error {
	for d := json.NewDecoder(bytes.NewReader(list)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		path, version, dir := p.Module.Path, p.Module.Version, p.Module.Dir
		if r := p.Module.Replace; r != nil {
			path, version, dir = r.Path, r.Version, r.Dir
		}
		m := modules[path]
		if m == nil {
			m = &module{path: path, version: version, dir: dir, packages: map[string]bool{}}
			modules[path] = m
		}
		m.packages[p.Dir] = true
		if !slices.Contains(m.in, program) {
			m.in = append(m.in, program)
		}
	}
}

var (
	licenseFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|copyright)([-._].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|patents)([-._].*)?$`)
)

// addModule looks for licences in the directories of the packages that are linked and all above them.
func (a *archive) addModule(m *module) error {
	dirs := map[string]bool{}
	for dir := range m.packages {
		for ; strings.HasPrefix(dir, m.dir); dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	c := &component{Name: m.path, Version: m.version, In: m.in, Source: "https://proxy.golang.org/" + m.path + "/@v/" + m.version + ".zip"}
	var ids []string
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			license := licenseFile.MatchString(e.Name()) && filepath.Ext(e.Name()) != ".go"
			if e.IsDir() || !license && !noticeFile.MatchString(e.Name()) {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			c.Texts = append(c.Texts, a.text(string(content)))
			if license {
				ids = append(ids, identify(string(content))...)
			}
		}
	}
	slices.Sort(ids)
	c.SPDX = strings.Join(slices.Compact(ids), " AND ")
	if c.SPDX == "" {
		return fmt.Errorf("no licence found for %s in %s", m.path, m.dir)
	}
	a.Components = append(a.Components, c)
	return nil
}

// identify names the licences in a text.
func identify(text string) []string {
	var ids []string
	for _, match := range licensecheck.Scan([]byte(text)).Match {
		if !match.IsURL && !slices.Contains(ids, match.ID) {
			ids = append(ids, match.ID)
		}
	}
	return ids
}

// addTable adds what a table says: lines of name, Debian package, SPDX expression, programs separated by commas, address of the
// source, and files with texts, each below one of the roots.
func (a *archive) addTable(path, lock string, roots map[string]*string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	versions, err := lockedVersions(lock)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if strings.HasPrefix(line, "#") || len(fields) < 2 {
			continue
		}
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if len(fields) != 6 {
			return fmt.Errorf("%s: %q has %d fields, not 6", path, line, len(fields))
		}
		if versions[fields[1]] == "" {
			return fmt.Errorf("%s: %s is not in %s", path, fields[1], lock)
		}
		c := &component{Name: fields[0], Version: versions[fields[1]], SPDX: fields[2], In: strings.Split(fields[3], ","), Source: fields[4]}
		for name := range strings.FieldsSeq(fields[5]) {
			root, file, _ := strings.Cut(name, "/")
			if roots[root] == nil {
				return fmt.Errorf("%s: %s is below no known directory", path, name)
			}
			text, err := os.ReadFile(filepath.Join(*roots[root], file))
			if err != nil {
				return fmt.Errorf("%s: licence of %s: %w", path, c.Name, err)
			}
			c.Texts = append(c.Texts, a.text(string(text)))
		}
		a.Components = append(a.Components, c)
	}
	return nil
}

// lockedVersions is the version of each Debian package.
func lockedVersions(lock string) (map[string]string, error) {
	content, err := os.ReadFile(lock)
	if err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 4 {
			versions[fields[0]] = fields[1]
		}
	}
	return versions, nil
}

// text is the index of a text, which many share.
func (a *archive) text(text string) int {
	text = strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")) + "\n"
	if i := slices.Index(a.Texts, text); i >= 0 {
		return i
	}
	a.Texts = append(a.Texts, text)
	return len(a.Texts) - 1
}

func (a *archive) write(path string) error {
	content, err := json.Marshal(a)
	if err != nil {
		return err
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	return os.WriteFile(path, w.EncodeAll(content, nil), 0o644)
}
