package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"lite.io/lite/pkg/cluster"
)

// Print writes the configuration as YAML, sorted by key, each with a comment on where its
// value comes from and whether it is the whole cluster's. Load reads the output as the same
// configuration, except for secrets, which are left out. known is what the node knows of
// its cluster, the zero Facts if it is in none.
func (c *Config) Print(w io.Writer, known cluster.Facts) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# config: %s # %s\n", c.ConfigFile, c.sources["config"])
	sorted := optionsOf(c.Role)
	slices.SortFunc(sorted, func(a, b option) int { return cmp.Compare(a.name, b.name) })
	for _, o := range sorted {
		if o.name == "config" {
			continue
		}
		if o.secret && c.text(o.name) != "" {
			fmt.Fprintf(&b, "# %s: not shown # %s\n", o.name, c.sources[o.name])
			continue
		}
		shown, source := c.shown(o, known)
		if source == "" {
			continue
		}
		value, err := o.yaml(shown)
		if err != nil {
			return fmt.Errorf("print %s: %w", o.name, err)
		}
		fmt.Fprintf(&b, "%s: %s # %s\n", o.name, value, source)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}

// shown is the configuration that has the value of an option, and where that comes from; ""
// if it is not set.
func (c *Config) shown(o option, known cluster.Facts) (*Config, string) {
	source := c.sources[o.name]
	if !o.shared {
		return c, source
	}
	i := slices.IndexFunc(facts, func(one fact) bool { return one.key == o.name })
	one, given := facts[i], c.Role == Server || source != ""
	switch {
	case !one.known(known) && !given:
		return c, ""
	case !one.known(known):
		return c, source + "; cluster-wide"
	case !given:
		return c.With(known), "the cluster's"
	case one.equal(c.Propose(), known, c.Role):
		return c, source + "; cluster-wide"
	}
	return c, fmt.Sprintf("%s; cluster-wide, and the cluster has %q", source, one.text(known))
}

// yaml is the value of an option in one line.
func (o option) yaml(c *Config) (string, error) {
	var value any = o.get(c)
	if !o.isList() {
		value = o.get(c)[0]
	}
	var node yaml.Node
	if err := node.Encode(value); err != nil {
		return "", err
	}
	node.Style |= yaml.FlowStyle
	out, err := yaml.Marshal(&node)
	return strings.TrimSpace(string(out)), err
}

// text is the value of an option as for a flag.
func (c *Config) text(key string) string {
	o, _ := lookup(key)
	var texts []string
	for _, value := range o.get(c) {
		texts = append(texts, fmt.Sprint(value))
	}
	return strings.Join(texts, o.separator)
}

// Reference is a Markdown table of all options of a role.
func Reference(role Role) string {
	var b strings.Builder
	b.WriteString("| Flag and YAML key | Environment | Default | Meaning |\n|---|---|---|---|\n")
	for _, o := range optionsOf(role) {
		if !o.isOf(role) {
			continue
		}
		flag := fmt.Sprintf("`--%s %s`", o.name, (&flagValue{option: o}).Type())
		if o.short != "" {
			flag += fmt.Sprintf(", `-%s`", o.short)
		}
		def := o.found + o.empty
		if o.def != "" {
			def = "`" + o.def + "`"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", flag, o.variable(), def, o.usage)
	}
	return b.String()
}
