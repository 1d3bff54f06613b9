package containerd

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"lite.io/lite/pkg/file/document"
)

// reading turns a registries.yaml into registries, by the nodes of the YAML: so a
// password such as 0777 is what was written.
type reading struct {
	file    string
	errs    []error
	aliases int // that were followed
}

// wrong is something impossible in the file.
func (r *reading) wrong(n *yaml.Node, where, problem, remedy string) {
	if where != "" {
		where += ": "
	}
	r.errs = append(r.errs, fmt.Errorf("private-registry %s:%d: %s%s; %s", r.file, n.Line, where, problem, remedy))
}

// readRegistries reads the text of a registries.yaml, and checks what can be checked
// without asking anybody. All that is wrong is reported at once.
func readRegistries(file string, data []byte) (*registries, error) {
	r := &reading{file: file}
	all := &registries{mirrors: map[string]mirror{}, configs: map[string]host{}}
	top, err := document.Only(data)
	if err != nil {
		return nil, fmt.Errorf("private-registry %s: %w; correct the YAML, and indent it with spaces", file, err)
	}
	r.fields(top, "", []field{
		{"mirrors", func(e entry) {
			for _, m := range r.entries(e.value, e.key) {
				all.mirrors[m.key] = r.mirror(m)
			}
		}},
		{"configs", func(e entry) {
			for _, c := range r.entries(e.value, e.key) {
				all.configs[c.key] = r.host(c)
			}
		}},
	})
	if err := errors.Join(r.errs...); err != nil {
		return nil, err
	}
	return all, nil
}

// entry is a key with its value, aliases being resolved.
type entry struct {
	key   string
	at    *yaml.Node
	value *yaml.Node
	path  string // of the map that it is in
}

func (e entry) String() string {
	if e.path == "" {
		return e.key
	}
	return e.path + ": " + e.key
}

// entries is what a map holds, in its order. Nothing is an empty map. Where a map is
// merged into another, that one's own keys count.
func (r *reading) entries(n *yaml.Node, path string) []entry {
	n = r.resolve(n)
	if n == nil || document.IsNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.wrong(n, path, "is not a map", "write lines of the form key: value")
		return nil
	}
	var own, merged []entry
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], r.resolve(n.Content[i+1])
		if key.ShortTag() == "!!merge" {
			merged = append(merged, r.merged(value, path)...)
			continue
		}
		e := entry{key: r.resolve(key).Value, at: key, value: value, path: path}
		if line, twice := lines[e.key]; twice {
			r.wrong(key, path, fmt.Sprintf("%q is set twice (first on line %d)", e.key, line), "keep one of them")
			continue
		}
		lines[e.key] = key.Line
		own = append(own, e)
	}
	for _, m := range merged {
		if _, there := lines[m.key]; !there {
			lines[m.key] = m.at.Line
			own = append(own, m)
		}
	}
	return own
}

// merged is the entries of a map, or of several, that << merges into another.
func (r *reading) merged(n *yaml.Node, path string) []entry {
	if n.Kind != yaml.SequenceNode {
		return r.entries(n, path)
	}
	var all []entry
	for _, one := range n.Content {
		all = append(all, r.entries(one, path)...)
	}
	return all
}

// mostAliases is how many aliases a file may have us follow. A map that is merged into
// itself, or maps that multiply what is in others, would have us do so without end.
const mostAliases = 1000

// resolve follows an alias; YAML has no aliases of aliases.
func (r *reading) resolve(n *yaml.Node) *yaml.Node {
	if n == nil || n.Kind != yaml.AliasNode {
		return n
	}
	if r.aliases++; r.aliases <= mostAliases {
		return n.Alias
	}
	if r.aliases == mostAliases+1 {
		r.wrong(n, "", fmt.Sprintf("the alias *%s leads to itself, or to more than %d others", n.Value, mostAliases), "replace the alias with its value")
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line}
}

// field is a key that is known where it is, with what reads its value.
type field struct {
	key  string
	read func(entry)
}

// fields reads a map of which some keys are known.
func (r *reading) fields(n *yaml.Node, path string, known []field) {
	for _, e := range r.entries(n, path) {
		i := slices.IndexFunc(known, func(f field) bool { return f.key == e.key })
		if i < 0 {
			r.unknown(e, known)
			continue
		}
		known[i].read(e)
	}
}

// unknown reports a key that means nothing where it is. Most of them are known
// elsewhere, and indented wrongly.
func (r *reading) unknown(e entry, known []field) {
	var keys []string
	for _, f := range known {
		keys = append(keys, f.key)
	}
	remedy := "valid keys here are " + strings.Join(keys, ", ")
	for _, level := range []struct {
		keys []string
		at   string
	}{
		{[]string{"mirrors", "configs"}, "at the beginning of a line"},
		{[]string{"endpoint", "rewrite"}, "below mirrors and the name of a registry"},
		{[]string{"auth", "tls"}, "below configs and the name of a host"},
		{[]string{"username", "password", "identity_token"}, "below auth"},
		{[]string{"ca_file", "cert_file", "key_file", "insecure_skip_verify"}, "below tls"},
	} {
		if slices.Contains(level.keys, e.key) {
			remedy = "it belongs " + level.at + "; " + remedy
		}
	}
	r.wrong(e.at, e.path, fmt.Sprintf("unknown key %q", e.key), remedy)
}

// name checks the name of a registry or a host.
func (r *reading) name(e entry) {
	if e.key == "*" || registryName.MatchString(e.key) {
		return
	}
	remedy := `write the host as in the names of images, or "*" for all`
	if _, rest, ok := strings.Cut(e.key, "://"); ok {
		remedy = fmt.Sprintf("omit the scheme: %q", strings.TrimRight(rest, "/"))
	} else if host, _, ok := strings.Cut(e.key, "/"); ok && registryName.MatchString(host) {
		remedy = fmt.Sprintf("omit the path: %q", host)
	} else if strings.Contains(e.key, "*") {
		remedy = `"*" stands only for all registries: list each of them`
	}
	r.wrong(e.at, e.path, fmt.Sprintf("registry %q must be host[:port]", e.key), remedy)
}

// mirror reads one entry of mirrors.
func (r *reading) mirror(e entry) (m mirror) {
	if e.key == "configs" || e.key == "mirrors" {
		r.wrong(e.at, e.path, fmt.Sprintf("%q is indented, and so the name of a registry", e.key), "put it at the beginning of its line")
		return m
	}
	r.name(e)
	r.fields(e.value, e.String(), []field{
		{"endpoint", func(f entry) { m.endpoints = r.endpoints(f) }},
		{"rewrite", func(f entry) { m.rules = r.rewrites(f) }},
	})
	return m
}

// endpoints reads the addresses of a mirror, each once.
func (r *reading) endpoints(f entry) (all []endpoint) {
	if document.IsNull(f.value) {
		return nil
	}
	if f.value.Kind != yaml.SequenceNode {
		r.wrong(f.at, f.path, "endpoint is not a list", `write it as one: endpoint: ["https://host:port"]`)
		return nil
	}
	for _, n := range f.value.Content {
		n = r.resolve(n)
		u, err := parseEndpoint(n.Value)
		if err != nil || n.Kind != yaml.ScalarNode {
			r.wrong(n, f.path, fmt.Sprintf("endpoint %q: %v", n.Value, err), "correct it")
			continue
		}
		if !slices.ContainsFunc(all, func(e endpoint) bool { return e.String() == u.String() }) {
			all = append(all, endpoint{u})
		}
	}
	return all
}

// rewrites reads the rules of a mirror, in alphabetical order of their patterns.
func (r *reading) rewrites(f entry) (rules []rule) {
	for _, e := range r.entries(f.value, f.String()) {
		match, err := regexp.Compile(e.key)
		if err != nil {
			r.wrong(e.at, f.path, fmt.Sprintf("rewrite %q: %v", e.key, err), "correct the expression")
			continue
		}
		rules = append(rules, rule{match, r.text(e)})
	}
	slices.SortFunc(rules, func(a, b rule) int { return strings.Compare(a.match.String(), b.match.String()) })
	return rules
}

// host reads one entry of configs.
func (r *reading) host(e entry) (h host) {
	r.name(e)
	r.fields(e.value, e.String(), []field{
		{"auth", func(f entry) { h.auth = r.auth(f) }},
		{"tls", func(f entry) { h.tls = r.tls(f) }},
	})
	return h
}

func (r *reading) auth(e entry) *credentials {
	c := &credentials{}
	r.fields(e.value, e.String(), []field{
		{"username", func(f entry) { c.username = r.credential(f) }},
		{"password", func(f entry) { c.password = r.credential(f) }},
		{"auth", func(f entry) { c.auth = r.userAndPassword(f) }},
		{"identity_token", func(f entry) { c.token = r.credential(f) }},
	})
	return c
}

// credential is a text that is not null: nobody knows whether that is a password or a
// template without one.
func (r *reading) credential(f entry) string {
	if document.IsNull(f.value) && f.value.Value != "" {
		r.wrong(f.at, f.path, fmt.Sprintf("%s: %s means null in YAML", f.key, f.value.Value), "write it in quotes, or remove the line")
		return ""
	}
	return r.text(f)
}

// userAndPassword is "user:password" in base64.
func (r *reading) userAndPassword(f entry) string {
	const remedy = "write `user:password` in base64, or username and password instead"
	auth := r.credential(f)
	decoded, err := base64.StdEncoding.DecodeString(auth)
	switch {
	case err != nil:
		r.wrong(f.at, f.path, "auth is not base64", remedy)
	case auth != "" && !bytes.Contains(decoded, []byte(":")):
		r.wrong(f.at, f.path, "auth has no colon between user and password", remedy)
	}
	return auth
}

func (r *reading) tls(e entry) *tlsFiles {
	t := &tlsFiles{}
	r.fields(e.value, e.String(), []field{
		{"ca_file", func(f entry) { t.ca = r.path(f) }},
		{"cert_file", func(f entry) { t.cert = r.path(f) }},
		{"key_file", func(f entry) { t.key = r.path(f) }},
		{"insecure_skip_verify", func(f entry) { t.insecure = r.truth(f) }},
	})
	if (t.cert == "") != (t.key == "") {
		r.wrong(e.at, e.path, "cert_file and key_file belong together", "set both, or neither")
	}
	return t
}

// text is a value as it was written, whatever YAML would make of it.
func (r *reading) text(f entry) string {
	if f.value.Kind != yaml.ScalarNode {
		r.wrong(f.at, f.path, f.key+" is not a string", "write one value, in quotes if it has special characters")
		return ""
	}
	if document.IsNull(f.value) {
		return ""
	}
	return f.value.Value
}

// path is a file. containerd would look for one without its directory below lite's.
func (r *reading) path(f entry) string {
	p := r.text(f)
	if p != "" && !filepath.IsAbs(p) {
		r.wrong(f.at, f.path, fmt.Sprintf("%s %q is not an absolute path", f.key, p), "write an absolute path")
	}
	return p
}

// truth reads true and false, also in the words of YAML 1.1 and in quotes.
func (r *reading) truth(f entry) bool {
	switch strings.ToLower(r.text(f)) {
	case "true", "yes", "on":
		return true
	case "false", "no", "off", "":
		return false
	}
	r.wrong(f.at, f.path, fmt.Sprintf("%s: %q is neither true nor false", f.key, f.value.Value), "write true or false")
	return false
}
