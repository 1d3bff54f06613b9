package containerd

import (
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
	"strings"

	"sigs.k8s.io/yaml"

	"lite.io/lite/pkg/file"
)

// registries is the file registries.yaml, in the format that k3s users know
// (https://docs.k3s.io/installation/private-registry).
type registries struct {
	// Mirrors is what to ask in place of a registry; "*" is for all.
	Mirrors map[string]mirror `json:"mirrors"`
	// Configs is how to talk to a host, by host[:port]; "*" is for all.
	Configs map[string]host `json:"configs"`
}

type mirror struct {
	Endpoints []string `json:"endpoint"`
	// Rewrites maps a regular expression on the repository to its
	// replacement at the mirrors.
	Rewrites map[string]string `json:"rewrite"`
}

type host struct {
	Auth *struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		Auth          string `json:"auth"`
		IdentityToken string `json:"identity_token"`
	} `json:"auth"`
	TLS *struct {
		CAFile             string `json:"ca_file"`
		CertFile           string `json:"cert_file"`
		KeyFile            string `json:"key_file"`
		InsecureSkipVerify bool   `json:"insecure_skip_verify"`
	} `json:"tls"`
}

// auth is the credentials for a host, each value quoted for TOML.
type auth struct{ Host, Username, Password, Auth, IdentityToken string }

// parseRegistries reads a registries.yaml and checks what can be checked
// without asking anybody. A file that does not exist is an empty one.
func parseRegistries(file string) (*registries, error) {
	r := &registries{}
	data, err := readRegular(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = yaml.UnmarshalStrict(data, r)
	}
	if err == nil {
		_, err = r.hostsFiles(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("private-registry %s: %w", file, err)
	}
	return r, nil
}

// readRegular reads a file or what a link leads to. Reading a FIFO would wait
// for somebody to write, and reading a device might never end.
func readRegular(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file; put a file in its place")
	}
	return os.ReadFile(file)
}

// CheckRegistries reports what is wrong with a registries.yaml, so that it is
// known before anything is started.
func CheckRegistries(file string) error {
	_, err := parseRegistries(file)
	return err
}

// write makes dir a directory of hosts.toml files that say the same.
func (r *registries) write(dir string, through *rewriter) error {
	files, err := r.hostsFiles(through)
	if err != nil {
		return fmt.Errorf("private-registry: %w", err)
	}
	// What was removed from the file must not live on.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear the registry directory: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name, "hosts.toml")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make the registry directory: %w", err)
		}
		if err := file.Write(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

// hostsFiles renders a hosts.toml for every registry that is named, by the
// directory name containerd looks for. Mirrors that rewrite are reached
// through the rewriter; without one they are only checked.
func (r *registries) hostsFiles(through *rewriter) (map[string]string, error) {
	names := map[string]bool{}
	for name := range r.Mirrors {
		names[name] = true
	}
	for name := range r.Configs {
		names[name] = true
	}
	files := map[string]string{}
	for name := range names {
		if name != "*" && !registryName.MatchString(name) {
			return nil, fmt.Errorf("registry %q is not of the form host[:port]", name)
		}
		content, err := r.hostsFile(name, through)
		if err != nil {
			return nil, err
		}
		files[dirName(name)] = content
	}
	return files, nil
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

func (r *registries) hostsFile(registry string, through *rewriter) (string, error) {
	var b strings.Builder
	// Without a server the registry itself is asked last, and these are its
	// settings.
	if err := r.config(registry).writeTLS(&b, ""); err != nil {
		return "", fmt.Errorf("configs: %s: %w", registry, err)
	}
	m := r.Mirrors[registry]
	rules, err := compileRules(m.Rewrites)
	if err != nil {
		return "", fmt.Errorf("mirrors: %s: %w", registry, err)
	}
	seen := map[string]bool{} // TOML has each table once
	for _, endpoint := range m.Endpoints {
		u, err := parseEndpoint(endpoint)
		if err == nil && !seen[u.String()] {
			seen[u.String()] = true
			err = r.writeMirror(&b, u, rules, through)
		}
		if err != nil {
			return "", fmt.Errorf("mirrors: %s: endpoint %q: %w", registry, endpoint, err)
		}
	}
	return b.String(), nil
}

// writeMirror writes one endpoint of a mirror.
func (r *registries) writeMirror(b *strings.Builder, u *url.URL, rules []rule, through *rewriter) error {
	const capabilities = "  capabilities = [\"pull\", \"resolve\"]\n"
	if len(rules) > 0 && through != nil {
		local, err := through.add(u, rules, r.config(u.Host))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "\n[host.%s]\n%s  override_path = true\n", quote(local), capabilities)
		return nil
	}
	fmt.Fprintf(b, "\n[host.%s]\n%s", quote(u.String()), capabilities)
	return r.config(u.Host).writeTLS(b, "  ")
}

// config is how to talk to a host.
func (r *registries) config(name string) host {
	if h, ok := r.Configs[name]; ok {
		return h
	}
	return r.Configs["*"]
}

// parseEndpoint reads a mirror's address; a bare host means https.
func parseEndpoint(endpoint string) (*url.URL, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("not of the form https://host[:port][/path]")
	}
	return u, nil
}

// writeTLS writes how to verify and what to show to a host.
func (h host) writeTLS(b *strings.Builder, indent string) error {
	t := h.TLS
	if t == nil {
		return nil
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return errors.New("cert_file and key_file go together")
	}
	if t.CAFile != "" {
		fmt.Fprintf(b, "%sca = %s\n", indent, quote(t.CAFile))
	}
	if t.CertFile != "" {
		fmt.Fprintf(b, "%sclient = [[%s, %s]]\n", indent, quote(t.CertFile), quote(t.KeyFile))
	}
	if t.InsecureSkipVerify {
		fmt.Fprintf(b, "%sskip_verify = true\n", indent)
	}
	return nil
}

func (r *registries) auths() []auth {
	var all []auth
	for _, name := range slices.Sorted(maps.Keys(r.Configs)) {
		if a := r.Configs[name].Auth; a != nil {
			if name == "docker.io" {
				name = "registry-1.docker.io" // what containerd asks for the password of
			}
			all = append(all, auth{quote(name), quote(a.Username), quote(a.Password), quote(a.Auth), quote(a.IdentityToken)})
		}
	}
	return all
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
