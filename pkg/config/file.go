package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"lite.io/lite/pkg/file"
	"lite.io/lite/pkg/file/document"
)

// fromFiles reads the configuration file and then its drop-ins, each of which replaces
// values from files before it, or appends to them.
func fromFiles(role Role, config setting, h host) (settings, []error) {
	all, errs := settings{}, []error(nil)
	path := config.texts[0]
	if path == "" {
		return all, nil // parse reports the mistake
	}
	dropIns, err := h.readDir(path + ".d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, unreadable(path+".d", config.source, err))
	}
	for i, file := range append([]string{path}, yamlFiles(path+".d", dropIns)...) {
		data, err := h.readRegular(file)
		if i == 0 && errors.Is(err, fs.ErrNotExist) && config.source == "default" {
			continue
		}
		if err != nil {
			errs = append(errs, unreadable(file, config.source, err))
			continue
		}
		r := reader{role: role, file: file, settings: all}
		r.read(data)
		errs = append(errs, r.errs...)
	}
	return all, errs
}

// yamlFiles picks the drop-ins in lexical order, without hidden files, as a shell's *.yaml
// does.
func yamlFiles(dir string, names []string) (files []string) {
	for _, name := range slices.Sorted(slices.Values(names)) {
		if strings.HasSuffix(name, ".yaml") && !strings.HasPrefix(name, ".") {
			files = append(files, filepath.Join(dir, name))
		}
	}
	return files
}

// Unreadable is the configuration file at path, or the first of its drop-ins, that this
// user may not read; "" if all may be read.
func Unreadable(path string) string {
	h := thisHost()
	dropIns, err := h.readDir(path + ".d")
	if errors.Is(err, fs.ErrPermission) {
		return path + ".d"
	}
	for _, file := range append([]string{path}, yamlFiles(path+".d", dropIns)...) {
		if _, err := h.readRegular(file); errors.Is(err, fs.ErrPermission) {
			return file
		}
	}
	return ""
}

func unreadable(path, source string, err error) *Error {
	problem, remedy := "cannot be read: "+err.Error(), "specify a file that can be read"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = "does not exist"
	case errors.Is(err, fs.ErrPermission):
		remedy = "run it as root, or " + remedy
	case errors.Is(err, file.ErrIrregular):
		problem, remedy = err.Error(), "replace it with a file"
	}
	return &Error{"config", path, source, problem, remedy}
}

// reader adds the settings of one file to those of files before it.
type reader struct {
	role     Role
	file     string
	settings settings
	errs     []error
}

func (r *reader) wrong(key string, node *yaml.Node, problem, remedy string) {
	value := ""
	if node.Kind == yaml.ScalarNode {
		value = node.Value
	}
	r.errs = append(r.errs, &Error{key, value, r.at(node), problem, remedy})
}

func (r *reader) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", r.file, node.Line) }

func (r *reader) read(data []byte) {
	top, err := document.Only(data)
	switch {
	case err != nil:
		r.errs = append(r.errs, &Error{"config", r.file, r.file, err.Error(), "correct the YAML"})
	case top == nil:
	case top.Kind != yaml.MappingNode:
		r.errs = append(r.errs, &Error{"config", r.file, r.at(top), "is not a map", "write lines of the form key: value"})
	default:
		before, lineOf := maps.Clone(r.settings), map[string]int{}
		for i := 0; i+1 < len(top.Content); i += 2 {
			r.entry(top.Content[i], top.Content[i+1], before, lineOf)
		}
	}
}

// entry reads one key and its value. before is the settings of earlier files, lineOf the
// lines of keys that this file has already set.
func (r *reader) entry(key, value *yaml.Node, before settings, lineOf map[string]int) {
	key, at := document.Resolve(key), key
	value = document.Resolve(value)
	name, appends := strings.CutSuffix(key.Value, "+")
	o, known := lookup(name)
	switch line, twice := lineOf[name]; {
	case key.Kind != yaml.ScalarNode:
		r.wrong("config", at, "has a key that is not text", "write lines of the form key: value")
		return
	case twice:
		r.wrong(key.Value, value, fmt.Sprintf("is set twice (first on line %d)", line), "keep one of the two")
		return
	case !known:
		r.wrong(key.Value, value, "is not a known option", fmt.Sprintf("did you mean %s?", nearest(name, r.role)))
	case name == "config":
		r.wrong(key.Value, value, "cannot be set in a file", "use --config or LITE_CONFIG")
	case !o.isFor(r.role):
		err := notFor(r.role, o, value.Value, r.at(at))
		r.errs = append(r.errs, err)
	case appends && !o.isList():
		r.wrong(key.Value, value, "is not a list, so nothing can be appended", "remove the +")
	default:
		s, ok := r.setting(o, value)
		if earlier := before[name]; ok && appends && earlier.source != "" {
			s.texts = append(slices.Clone(earlier.texts), s.texts...)
			s.source = earlier.source + ", " + s.source
		}
		if ok {
			r.settings[name] = s
		}
	}
	lineOf[name] = at.Line
}

// setting reads the value of an option. A scalar is a list of what
// is between its separators, as in a flag or a variable.
func (r *reader) setting(o option, value *yaml.Node) (s setting, ok bool) {
	items := []*yaml.Node{value}
	switch {
	case value.Kind == yaml.SequenceNode && o.isList():
		items = value.Content
	case value.Kind == yaml.SequenceNode:
		r.wrong(o.name, value, "takes a single value, not a list", "give it a single "+o.arg)
		return s, false
	}
	s.source = r.at(value)
	for _, item := range items {
		item = document.Resolve(item)
		if item.Kind != yaml.ScalarNode {
			r.wrong(o.name, item, "is a map or a list where text is expected", "write it as "+o.arg)
			return s, false
		}
		if document.IsNull(item) {
			r.wrong(o.name, item, "has no value", "give it one, or remove the key")
			return s, false
		}
		s.texts = append(s.texts, o.split(item.Value)...)
	}
	return s, true
}

// nearest is the key of a role with the fewest edits from what was written.
func nearest(name string, role Role) (best string) {
	least := -1
	for _, o := range optionsOf(role) {
		if d := edits(name, o.name); o.name != "config" && (least < 0 || d < least) {
			best, least = o.name, d
		}
	}
	return best
}

// edits is the Levenshtein distance of two words.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
