package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	yamldocument "lite.io/lite/pkg/file/document"
)

// object is one of a file.
type object struct {
	*unstructured.Unstructured
	line int // where its content begins, from 1
}

// document is a part of a file between separators.
type document struct {
	data []byte
	line int // of its first line, from 1
}

// decode reads all objects of a file: documents of YAML, or JSON objects one
// after the other. Lists are opened. It is all or nothing: half of a file is not
// what its author wants.
func decode(data []byte) (objects []object, err error) {
	for _, d := range split(bytes.TrimPrefix(data, []byte("\uFEFF"))) {
		found, err := d.decode()
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	for _, o := range objects {
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", o.line, err)
		}
	}
	return objects, nil
}

// split cuts a file at its separators, and leaves out what has no content.
func split(data []byte) (documents []document) {
	current, number := document{line: 1}, 0
	for line := range bytes.Lines(data) {
		number++
		if rest, ok := separator(line); ok {
			documents = append(documents, current)
			current, line = document{line: number}, rest
		}
		current.data = append(current.data, line...)
	}
	return slices.DeleteFunc(append(documents, current), document.blank)
}

// separator reports whether a line separates documents, which it does wherever
// it stands, also within text. What follows the dashes belongs to the next one.
func separator(line []byte) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte("---"))
	return rest, ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

// begin is the line of the file on which a document's content begins.
func (d document) begin() int {
	number := d.line
	for line := range bytes.Lines(d.data) {
		if !(document{data: line}).blank() {
			break
		}
		number++
	}
	return number
}

// blank reports whether a document has only comments and directives.
func (d document) blank() bool {
	for line := range bytes.Lines(d.data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

func (d document) decode() ([]object, error) {
	if values, ok := d.values(); ok {
		var all []object
		for _, v := range values {
			found, err := v.yaml()
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		return all, nil
	}
	return d.yaml()
}

// values takes a document of JSON apart, which may have several objects one
// after the other. What begins like JSON may be YAML all the same.
func (d document) values() (values []document, ok bool) {
	if !bytes.HasPrefix(bytes.TrimSpace(d.data), []byte("{")) {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(d.data))
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return values, true
		}
		if err != nil {
			return nil, false
		}
		before := d.data[:decoder.InputOffset()-int64(len(raw))]
		values = append(values, document{data: raw, line: d.line + bytes.Count(before, []byte("\n"))})
	}
}

func (d document) yaml() ([]object, error) {
	asJSON, err := yaml.YAMLToJSONStrict(d.data)
	if err != nil {
		// With as many lines before it as there are, its lines are the file's.
		padded := append(bytes.Repeat([]byte("\n"), d.line-1), d.data...)
		if _, again := yaml.YAMLToJSONStrict(padded); again != nil {
			err = again
		}
		// The lines of the padded text are those of the file.
		text := strings.TrimPrefix(yamldocument.Problem(err, padded).Error(), "error converting YAML to JSON: ")
		return nil, fmt.Errorf("document at line %d: %s", d.begin(), strings.Join(strings.Fields(text), " "))
	}
	if string(asJSON) == "null" {
		return nil, nil
	}
	content := map[string]any{}
	if err := utiljson.Unmarshal(asJSON, &content); err != nil {
		return nil, fmt.Errorf("document at line %d: not an object with apiVersion, kind and metadata", d.begin())
	}
	if len(content) == 0 {
		return nil, nil
	}
	return open(object{&unstructured.Unstructured{Object: content}, d.begin()})
}

// open returns the items of a list, and any other object as it is.
func open(o object) ([]object, error) {
	kind, isList := strings.CutSuffix(o.GetKind(), "List")
	if !isList || !o.IsList() {
		return []object{o}, nil
	}
	var all []object
	items, _ := o.Object["items"].([]any)
	for n, item := range items {
		content, ok := item.(map[string]any)
		if !ok {
			list := o.GetKind()
			if !isKind(list) {
				list = "List"
			}
			return nil, fmt.Errorf("line %d: item %d of the %s is not an object", o.line, n+1, list)
		}
		one := object{&unstructured.Unstructured{Object: content}, o.line}
		// The items of a PodList do not need a kind.
		if one.GetKind() == "" && one.GetAPIVersion() == "" && kind != "" {
			one.SetKind(kind)
			one.SetAPIVersion(o.GetAPIVersion())
		}
		opened, err := open(one)
		if err != nil {
			return nil, err
		}
		all = append(all, opened...)
	}
	return all, nil
}

// check wants what names an object, and removes what only the cluster sets: it
// is in files that were exported from one, and would be refused.
func (o object) check() error {
	metadata, ok := o.Object["metadata"].(map[string]any)
	_, wrong := schema.ParseGroupVersion(o.GetAPIVersion())
	switch {
	case o.GetAPIVersion() == "":
		return errors.New("apiVersion is missing")
	case wrong != nil:
		return fmt.Errorf("apiVersion %q is not valid: it must be a version, or group/version", o.GetAPIVersion())
	case o.GetKind() == "":
		return errors.New("kind is missing")
	case !isKind(o.GetKind()):
		return fmt.Errorf("kind %q is not valid: it must be one word", o.GetKind())
	case !ok:
		return fmt.Errorf("metadata of the %s is missing", o.GetKind())
	case !isText(metadata["name"]), !isText(metadata["namespace"]):
		return fmt.Errorf("name or namespace of the %s is not a string: put it in quotes (in YAML y, n, on and 1 are not strings)", o.GetKind())
	case o.GetName() == "" && o.GetGenerateName() != "":
		return fmt.Errorf("%s with generateName: use name, an object of a file needs a fixed one", o.GetKind())
	case o.GetName() == "":
		return fmt.Errorf("metadata.name of the %s is missing", o.GetKind())
	}
	for _, field := range []string{"creationTimestamp", "generateName", "generation", "managedFields", "resourceVersion", "selfLink", "uid"} {
		delete(metadata, field)
	}
	return nil
}

// isKind reports whether there may be a kind of that name.
func isKind(name string) bool { return len(validation.IsDNS1035Label(strings.ToLower(name))) == 0 }

func isText(v any) bool {
	_, ok := v.(string)
	return ok || v == nil
}
