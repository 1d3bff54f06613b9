package containerd

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lite.io/lite/pkg/file"
)

// registries is the content of a registries.yaml, in the format that k3s users know
// (https://docs.k3s.io/installation/private-registry).
type registries struct {
	// mirrors is what to ask instead of a registry; "*" is for all.
	mirrors map[string]mirror
	// configs is how to talk to a host, by host[:port]; "*" is for all.
	configs map[string]host
}

type mirror struct {
	endpoints []endpoint
	// rules is what the mirrors call a repository.
	rules []rule
}

// endpoint is the address of a mirror.
type endpoint struct{ *url.URL }

type rule struct {
	match *regexp.Regexp
	with  string
}

type host struct {
	auth *credentials
	tls  *tlsFiles
}

type credentials struct {
	username, password string
	auth               string // both, in base64
	token              string // an identity token
}

type tlsFiles struct {
	ca, cert, key string
	insecure      bool
}

// dockerHub is the names of the one registry that is asked by another name than
// images have.
var dockerHub = []string{"docker.io", "registry-1.docker.io", "index.docker.io"}

// parseRegistries reads a registries.yaml. A file that does not exist is an empty one.
func parseRegistries(file string) (*registries, error) {
	data, err := readUsers(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &registries{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("private-registry %s: %w", file, err)
	}
	return readRegistries(file, data)
}

// readUsers reads a file of the user's.
func readUsers(path string) ([]byte, error) {
	data, err := file.ReadRegular(path)
	if errors.Is(err, file.ErrIrregular) {
		err = fmt.Errorf("%w; replace it with a file", err)
	}
	return data, err
}

// CheckRegistries reports what is wrong with a registries.yaml, so that it is
// known before anything is started.
func CheckRegistries(file string) error {
	_, err := parseRegistries(file)
	return err
}

// unused is what the file sets without effect, "" if there is nothing.
func (r *registries) unused() string {
	if all := r.configs["*"]; all.auth == nil || len(r.strangers()) > 0 {
		return ""
	}
	return `the credentials under "*" apply to endpoints of mirrors without an entry in configs, and there are none: put them under the name of a host`
}

// strangers is the hosts of endpoints without their own entry, to which the entry for all
// applies.
func (r *registries) strangers() (hosts []string) {
	for _, m := range r.mirrors {
		for _, e := range m.endpoints {
			if _, own := r.entryOf(e.Host); !own {
				hosts = append(hosts, e.Host)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// credentialsFor is what to show to a host, as containerd calls it; nil for nothing.
// Credentials for all hosts are sent to mirrors only: a password must not go to
// whatever registry a pod names.
func (r *registries) credentialsFor(name string) *credentials {
	for _, alias := range aliases(name) {
		if h := r.configs[alias]; h.auth != nil {
			return h.auth
		}
	}
	if slices.Contains(r.strangers(), name) {
		return r.configs["*"].auth
	}
	return nil
}

// entryOf is the entry of a host, by whichever of its names.
func (r *registries) entryOf(name string) (host, bool) {
	for _, alias := range aliases(name) {
		if h, ok := r.configs[alias]; ok {
			return h, true
		}
	}
	return host{}, false
}

// aliases is the names that a host may have in configs, the given one first.
func aliases(name string) []string {
	all := []string{name}
	if slices.Contains(dockerHub, name) {
		all = append(all, dockerHub...)
	}
	if short, ok := strings.CutSuffix(name, ":443"); ok {
		all = append(all, short)
	} else if strings.LastIndex(name, ":") <= strings.LastIndex(name, "]") {
		all = append(all, name+":443")
	}
	return all
}

// userAndSecret is the credentials as containerd wants them. A secret without a user
// is an identity token.
func (c *credentials) userAndSecret() (user, secret string) {
	switch {
	case c == nil:
		return "", ""
	case c.username != "":
		return c.username, c.password
	case c.token != "":
		return "", c.token
	}
	decoded, _ := base64.StdEncoding.DecodeString(c.auth) // checked when it was read
	user, secret, _ = strings.Cut(string(decoded), ":")
	return user, strings.TrimRight(secret, "\x00")
}

// config is how to talk to a host.
func (r *registries) config(name string) host {
	h, own := r.entryOf(name)
	if !own {
		h = r.configs["*"]
	}
	h.auth = r.credentialsFor(name)
	if h.tls == nil && slices.Contains(dockerHub, name) {
		for _, alias := range dockerHub {
			h.tls = cmp.Or(h.tls, r.configs[alias].tls)
		}
	}
	return h
}

// write makes dir a directory of hosts.toml files with the same content. containerd reads
// them at each pull: each is another at one moment, and those that stay the same are
// left alone.
func (r *registries) write(dir string, through *rewriter) error {
	files, err := r.hostsFiles(through)
	if err != nil {
		return fmt.Errorf("private-registry: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the registry directory: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name, "hosts.toml")
		if before, err := os.ReadFile(path); err == nil && string(before) == content {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("create the registry directory: %w", err)
		}
		if err := file.Write(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	// What was removed from the file must not live on.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("clear the registry directory: %w", err)
	}
	for _, e := range entries {
		if _, ok := files[e.Name()]; ok {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("clear the registry directory: %w", err)
		}
	}
	return nil
}

// hostsFiles renders a hosts.toml for every registry that is named, by the
// directory name containerd looks for. Mirrors that rewrite are reached
// through the rewriter.
func (r *registries) hostsFiles(through *rewriter) (map[string]string, error) {
	names := map[string]bool{}
	for name := range r.mirrors {
		names[name], names[imageName(name)] = true, true
	}
	for name := range r.configs {
		names[name], names[imageName(name)] = true, true
	}
	files := map[string]string{}
	for name := range names {
		content, err := r.hostsFile(name, through)
		if err != nil {
			return nil, err
		}
		files[dirName(name)] = content
	}
	return files, nil
}

// imageName is a registry as the names of images have it once they are normalised.
func imageName(registry string) string {
	if slices.Contains(dockerHub, registry) {
		return dockerHub[0]
	}
	return registry
}

// registryName is a host, which may be an IPv6 address in brackets, and perhaps
// a port. It becomes the name of a directory.
var registryName = regexp.MustCompile(`^([a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_])?|\[[0-9a-fA-F:.]+\])(:[0-9]+)?$`)

// dirName is where containerd looks for a host's file; a colon may not be in a
// path on every system.
func dirName(registry string) string {
	if registry == "*" {
		return "_default"
	}
	// The last colon: an IPv6 address has others, in brackets.
	if i := strings.LastIndex(registry, ":"); i > strings.LastIndex(registry, "]") {
		return registry[:i] + "_" + registry[i+1:] + "_"
	}
	return registry
}

// mirrorOf is what to ask instead of a registry.
func (r *registries) mirrorOf(registry string) mirror {
	if registry == dockerHub[0] {
		for _, alias := range dockerHub {
			if m, ok := r.mirrors[alias]; ok {
				return m
			}
		}
	}
	return r.mirrors[registry]
}

func (r *registries) hostsFile(registry string, through *rewriter) (string, error) {
	var b strings.Builder
	// Without a server the registry itself is asked last, and these are its
	// settings.
	r.config(registry).writeTLS(&b, "")
	m := r.mirrorOf(registry)
	for _, e := range m.endpoints {
		if err := r.writeMirror(&b, e, m.rules, through); err != nil {
			return "", fmt.Errorf("mirrors: %s: endpoint %q: %w", registry, e, err)
		}
	}
	return b.String(), nil
}

// writeMirror writes one endpoint of a mirror.
func (r *registries) writeMirror(b *strings.Builder, e endpoint, rules []rule, through *rewriter) error {
	const capabilities = "  capabilities = [\"pull\", \"resolve\"]\n"
	if len(rules) > 0 && through != nil {
		local, err := through.address(e, rules, r.config(e.Host))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "\n[host.%s]\n%s  override_path = true\n", quote(local), capabilities)
		return nil
	}
	fmt.Fprintf(b, "\n[host.%s]\n%s", quote(e.String()), capabilities)
	r.config(e.Host).writeTLS(b, "  ")
	return nil
}

// parseEndpoint reads a mirror's address; a bare host means https.
func parseEndpoint(text string) (*url.URL, error) {
	wrong := errors.New("must be https://host[:port][/path]")
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, wrong
	}
	if u.User != nil {
		return nil, errors.New("contains credentials, which belong below configs")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("%s is not a port", port)
		}
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// writeTLS writes how to verify and what to show to a host.
func (h host) writeTLS(b *strings.Builder, indent string) {
	t := h.tls
	if t == nil {
		return
	}
	if t.ca != "" {
		fmt.Fprintf(b, "%sca = %s\n", indent, quote(t.ca))
	}
	if t.cert != "" {
		fmt.Fprintf(b, "%sclient = [[%s, %s]]\n", indent, quote(t.cert), quote(t.key))
	}
	if t.insecure {
		fmt.Fprintf(b, "%sskip_verify = true\n", indent)
	}
}

// hosts is the names of all hosts that there are credentials for, as containerd asks
// for them.
func (r *registries) hosts() []string {
	named := map[string]bool{}
	for name, h := range r.configs {
		switch {
		case h.auth == nil || name == "*":
		case imageName(name) == dockerHub[0]:
			named["registry-1.docker.io"] = true
		default:
			named[name] = true
		}
	}
	for _, m := range r.mirrors {
		for _, e := range m.endpoints {
			if r.credentialsFor(e.Host) != nil {
				named[e.Host] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(named))
}

// quote makes a TOML basic string. JSON's escapes are a part of TOML's, but JSON
// leaves DEL as it is and TOML does not.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can be encoded
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
