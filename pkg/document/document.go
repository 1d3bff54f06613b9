// Package document takes apart what a user has written in YAML. It looks at nodes, not
// at values: a node has a line, keeps 0600 as it was written, and a key that is there
// twice is there twice.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"

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
			return nil, err
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

// Resolve follows an alias; YAML has no aliases of aliases.
func Resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// IsNull reports whether a node says nothing: null, ~, or no value at all.
func IsNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
