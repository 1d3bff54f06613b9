// Package licenses says what this binary and its helpers are made of and under which licences. scripts/build/licenses
// collects it.
package licenses

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const file = "data/" + runtime.GOARCH + "/licenses.json.zst"

// Component is something that somebody else wrote.
type Component struct {
	// Name is the path of a Go module, or the name of a project.
	Name    string `json:"name"`
	Version string `json:"version"`
	// SPDX is an expression of the SPDX specification.
	SPDX string `json:"spdx"`
	// In is the programs that it is part of.
	In []string `json:"in"`
	// Source is where its source is.
	Source string `json:"source"`
	texts  []string
}

// Text is its licences and notices, word by word.
func (c Component) Text() string { return strings.Join(c.texts, "\n"+strings.Repeat("-", 79)+"\n\n") }

// All returns all components, by name.
func All() ([]Component, error) {
	packed, err := fs.ReadFile(data, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("this binary was built without the licences: run `make build`")
	}
	if err != nil {
		return nil, err
	}
	return read(packed)
}

func read(packed []byte) ([]Component, error) {
	r, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := r.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack the licences: %w", err)
	}
	var archive struct {
		Components []struct {
			Component
			Texts []int `json:"texts"`
		} `json:"components"`
		Texts []string `json:"texts"`
	}
	if err := json.Unmarshal(content, &archive); err != nil {
		return nil, fmt.Errorf("read the licences: %w", err)
	}
	var all []Component
	for _, c := range archive.Components {
		for _, i := range c.Texts {
			if i < 0 || i >= len(archive.Texts) {
				return nil, fmt.Errorf("read the licences: %s has no text %d", c.Name, i)
			}
			c.texts = append(c.texts, archive.Texts[i])
		}
		all = append(all, c.Component)
	}
	return all, nil
}

// Find returns the component of a name. The last part of a name does, if no other ends so.
func Find(all []Component, name string) (Component, error) {
	if i := slices.IndexFunc(all, func(c Component) bool { return c.Name == name }); i >= 0 {
		return all[i], nil
	}
	var ending []string
	var found Component
	for _, c := range all {
		if strings.HasSuffix(c.Name, "/"+name) {
			ending, found = append(ending, c.Name), c
		}
	}
	switch len(ending) {
	case 0:
		return found, fmt.Errorf("nothing of the name %q is in lite; `lite licenses` lists all", name)
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%q is ambiguous, use one of %s", name, strings.Join(ending, " or "))
}
