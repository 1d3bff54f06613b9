// Package document takes apart what a user has written in YAML. It reads nodes, not
// at values: a node has a line, keeps 0600 as it was written, and a key that is there
// twice is there twice.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Only parses the only document of a file, those that are empty aside; nil if there is
// none.
func Only(data []byte) (only *yaml.Node, err error) {
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var next yaml.Node
		if err := decoder.Decode(&next); errors.Is(err, io.EOF) {
			return only, nil
		} else if err != nil {
			return nil, Problem(err, data)
		}
		switch {
		case len(next.Content) == 0 || IsNull(next.Content[0]):
		case only != nil:
			return nil, fmt.Errorf("line %d: a second YAML document begins", next.Line)
		default:
			only = Resolve(next.Content[0])
		}
	}
}

// Problem is an error of a YAML parser as it may be logged. Of an alias that leads
// nowhere the parser (3.0) shows the name, and no line: a password that begins with a
// star, and is not in quotes, is one to it.
func Problem(err error, data []byte) error {
	_, rest, ok := strings.Cut(err.Error(), "unknown anchor '")
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(rest, "' referenced")
	before, _, _ := bytes.Cut(data, []byte("*"+name))
	return fmt.Errorf("line %d: a value starts with *, which is an alias in YAML, and its anchor does not exist; put it in quotes", 1+bytes.Count(before, []byte("\n")))
}

// Resolve follows an alias; YAML has no aliases of aliases.
func Resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// IsNull reports whether a node is empty: null, ~, or no value at all.
func IsNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
