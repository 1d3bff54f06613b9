package component

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Settings is what a component runs by, as it was told and not as it would be told
// now. Nothing in it is secret: what is, is in files that it names.
type Settings struct {
	// Arguments are of the form --name=value.
	Arguments []string `json:"arguments,omitempty"`
	// Configuration is the component's object of that name, nil if it has none.
	Configuration json.RawMessage `json:"configuration,omitempty"`
}

// Configured is a Component that can say what it runs by.
type Configured interface {
	Settings() (Settings, error)
}

// Settings returns those of all components that can say them, by name. None of the
// components is asked how it does.
func (g *Group) Settings() (map[string]Settings, error) {
	all := map[string]Settings{}
	for _, n := range g.nodes {
		c, ok := n.component.(Configured)
		if !ok {
			continue
		}
		switch s, err := c.Settings(); {
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			return nil, fmt.Errorf("settings of %s: %w", n.component.Name(), err)
		default:
			all[n.component.Name()] = s
		}
	}
	return all, nil
}
